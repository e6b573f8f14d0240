"""What an erased user leaves behind goes on a timer: bytes in the store's files, and rows in snapshots."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from recsys.errors import RecsysError
from recsys.serve.engine import Shelf, Store
from recsys.serve.live import Live

_log = structlog.get_logger("recsys.serve")

LIVE_FILES_CLEAN_S = 900.0
"""Promised for the store's files; several sweeps long, so that a reader at work cannot break the promise."""
SNAPSHOTS_CLEAN_S = 24 * 3600.0
"""Promised for snapshots."""


class Sweeper:
    """One thread for one tenant. What fails is logged, and tried again the next time."""

    def __init__(self, live: Live, store: Store, shelf: Shelf, *, interval_s: float, rewrite_interval_s: float) -> None:
        self._live, self._store, self._shelf = live, store, shelf
        self._interval_s = interval_s
        self._sweeps_a_rewrite = max(round(rewrite_interval_s / interval_s), 1)
        self._renamed: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends it; a snapshot that is being rewritten is left as it was."""
        self._stopping.set()
        self._shelf.stop_rewriting()
        if self._thread.is_alive():
            self._thread.join()

    def reclaim(self) -> None:
        """The store's files, and what other processes wrote or erased."""
        if not self._store.reclaim():
            _log.warning("readers keep erased bytes in the store's log: the next sweep takes them out")
        self._live.refresh()

    def rewrite(self) -> None:
        """The snapshots: those that hold erased users are made anew without them, and what serves changes over."""
        if self._shelf.holding_erased(self._store):
            self._renamed |= self._shelf.rewrite_erased()
            _log.info("snapshots rewritten without erased users", snapshots=len(self._renamed))
        if fresh := self._renamed.get(self._live.snapshot_id):
            self._live.activate(fresh)
        if self._renamed:
            self._live.close()  # the one before may be one of those that are gone
            self._renamed = {}

    def _run(self) -> None:
        count = 0
        while not self._stopping.wait(self._interval_s):
            count += 1
            self._attempt(self.reclaim)
            if count % self._sweeps_a_rewrite == 0:
                self._attempt(self.rewrite)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the edge of a thread that has to live on
            reason = str(error) if isinstance(error, RecsysError) else ""  # of others it may hold users' data
            _log.error("sweep failed", step=step.__name__, error=type(error).__name__, reason=reason)
