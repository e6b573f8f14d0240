"""What serves now: one reference to an immutable engine, swapped whole."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import structlog

from recsys.errors import NotFound, Overloaded, SnapshotError, Unavailable
from recsys.serve.engine import Engine, Receipt, Shelf, Store
from recsys.types import Item

_log = structlog.get_logger("recsys.serve")


class Live:
    """A call takes `engine` once and works with it to its end: a swap meanwhile does not concern it."""

    def __init__(self, shelf: Shelf, store: Store) -> None:
        self._shelf = shelf
        self._store = store
        self._engine: Engine | None = None
        self._item_seq = 0
        self._watermark = store.watermark
        self._swapping = threading.Lock()
        self._activating = threading.Lock()
        self._marking = threading.Lock()

    @property
    def engine(self) -> Engine:
        """Raises Unavailable until a snapshot is loaded and warmed."""
        if self._engine is None:
            raise Unavailable("no snapshot is loaded and warmed yet")
        return self._engine

    @property
    def snapshot_id(self) -> str:
        """Empty while nothing serves."""
        return self._engine.snapshot_id if self._engine else ""

    @property
    def watermark(self) -> float:
        """Writes up to this time (seconds) are visible; kept here so that no answer has to ask the store."""
        return self._watermark

    def wrote(self, receipt: Receipt) -> None:
        """Notes that a write is visible."""
        with self._marking:
            self._watermark = max(self._watermark, receipt.watermark)

    def load(self) -> Engine:
        """Serves the current snapshot or, where that is damaged, the newest sound one.

        Raises NotFound where there is none at all, SnapshotError where none is sound.
        """
        ids = dict.fromkeys([self._shelf.current(), *(each.snapshot_id for each in self._shelf.summaries())])
        failure: SnapshotError | None = None
        for snapshot_id in filter(None, ids):
            try:
                return self._swap_to(snapshot_id)
            except SnapshotError as error:
                failure = failure or error
                _log.error("snapshot refused", snapshot_id=snapshot_id, error=type(error).__name__, reason=str(error))
        raise failure or NotFound("there is no snapshot to serve")

    def activate(self, snapshot_id: str) -> tuple[Engine | None, Engine]:
        """(the engine before, the engine now); loads and warms aside, one at a time. Raises NotFound, SnapshotError."""
        if not self._activating.acquire(blocking=False):
            raise Overloaded("another snapshot is being activated", retry_after_s=1.0)
        try:
            before = self._engine
            if before is not None and before.snapshot_id == snapshot_id:
                return before, before
            after = self._swap_to(snapshot_id)
            self._shelf.make_current(snapshot_id)
            return before, after
        finally:
            self._activating.release()

    def write_items(self, items: Sequence[Item], request_id: str, digest: bytes) -> Receipt:
        """Durable first, then visible: the engine catches up with the store, whose word on an item is the last one."""
        with self._swapping:
            receipt = self._store.write_items(items, request_id=request_id, digest=digest)
            if self._engine is not None:
                self._engine = self._caught_up(self._engine, self._item_seq)
        self.wrote(receipt)
        return receipt

    def _swap_to(self, snapshot_id: str) -> Engine:
        engine = self._shelf.open(snapshot_id)
        engine.warm_up()
        with self._swapping:
            self._engine = self._caught_up(engine, engine.store_seq)
            _log.info("serving", snapshot_id=snapshot_id)
            return self._engine

    def _caught_up(self, engine: Engine, seq: int) -> Engine:
        """`engine`, which knows the store's items up to `seq`, with the later ones."""
        newest = self._store.seq
        later = self._store.items(after_seq=seq)
        engine = engine.with_items(later) if later else engine
        self._item_seq = newest
        return engine
