"""What serves now: one reference to an immutable engine, swapped whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import structlog

from recsys.errors import NotFound, Overloaded, SnapshotError, Unavailable
from recsys.serve.engine import Engine, Erasure, Receipt, Shelf, Store
from recsys.types import Item, User

_log = structlog.get_logger("recsys.serve")


@dataclass(frozen=True, slots=True)
class _Serving:
    """An engine, and the numbers up to which it knows the store's items and its erased users."""

    engine: Engine
    item_seq: int
    erased_seq: int

    @classmethod
    def of(cls, engine: Engine) -> _Serving:
        """An engine as it comes from the shelf."""
        return cls(engine, engine.store_seq, engine.store_seq)


class Live:
    """A call takes `engine` once and works with it to its end: a swap meanwhile does not concern it."""

    def __init__(self, shelf: Shelf, store: Store, *, keep_previous_s: float = 0.0) -> None:
        self._shelf = shelf
        self._store = store
        self._serving: _Serving | None = None
        self._keep_previous_s = keep_previous_s
        self._before: _Serving | None = None
        self._keep_until = 0.0
        self._dropping: threading.Timer | None = None
        self._watermark = store.watermark
        self._swapping = threading.Lock()
        self._catching = threading.Lock()
        self._activating = threading.Lock()
        self._marking = threading.Lock()

    @property
    def engine(self) -> Engine:
        """Raises Unavailable until a snapshot is loaded and warmed."""
        if self._serving is None:
            raise Unavailable("no snapshot is loaded and warmed yet")
        return self._serving.engine

    @property
    def snapshot_id(self) -> str:
        """Empty while nothing serves."""
        return self._serving.engine.snapshot_id if self._serving else ""

    @property
    def watermark(self) -> float:
        """Writes up to this time (seconds) are visible; kept here so that no answer has to ask the store."""
        return self._watermark

    def wrote(self, receipt: Receipt) -> None:
        """Notes that a write is visible."""
        with self._marking:
            self._watermark = max(self._watermark, receipt.watermark)

    def load(self, warm: Callable[[Engine], None] = lambda engine: None) -> Engine:
        """Serves the current snapshot or, where that is damaged, the newest sound one; `warm` is called before it does.

        Raises NotFound where there is none at all, SnapshotError where none is sound.
        """
        ids = dict.fromkeys([self._shelf.current(), *(each.snapshot_id for each in self._shelf.summaries())])
        failure: SnapshotError | None = None
        for snapshot_id in filter(None, ids):
            try:
                engine = self._opened(snapshot_id)
                warm(engine)
                return self._swap_to(_Serving.of(engine))
            except SnapshotError as error:
                failure = failure or error
                _log.error("snapshot refused", snapshot_id=snapshot_id, error=type(error).__name__, reason=str(error))
        raise failure or NotFound("there is no snapshot to serve")

    def activate(
        self, snapshot_id: str, check: Callable[[Engine, Engine], object] = lambda old, new: None
    ) -> tuple[Engine | None, Engine]:
        """(the engine before, the engine now); loads and warms aside, one at a time; swaps once `check` passed it.

        The snapshot that served before, while it is kept, serves again without either. Raises NotFound, SnapshotError.
        """
        with self._alone():
            before = self._serving.engine if self._serving else None
            if before is not None and before.snapshot_id == snapshot_id:
                return before, before
            kept = self._before
            if kept is not None and kept.engine.snapshot_id == snapshot_id:
                return before, self._serve(kept)
            after = self._opened(snapshot_id)
            if before is not None:
                check(before, after)
            return before, self._serve(_Serving.of(after))

    def roll_back(self) -> tuple[Engine, Engine]:
        """(the engine before, the engine now): what served before serves again, and the other way round.

        Raises NotFound where it is no longer kept.
        """
        with self._alone():
            before, kept = self.engine, self._before
            if kept is None:
                raise NotFound("no snapshot served before this one of late: activate one by its id")
            return before, self._serve(kept)

    def close(self) -> None:
        """Lets go of the snapshot that served before."""
        self._keep(None)

    def write_items(self, items: Sequence[Item], request_id: str, digest: bytes) -> Receipt:
        """Durable first, then visible: the engine catches up with the store, whose word on an item is the last one."""
        receipt = self._store.write_items(items, request_id=request_id, digest=digest)
        self._catch_up()
        self.wrote(receipt)
        return receipt

    def delete_user(self, user_id: str) -> tuple[Erasure, int]:
        """Durable first, then gone from every answer: (the store's word, events that the engine held)."""
        erasure = self._store.delete_user(user_id)
        with self._swapping:
            held = len(self._serving.engine.history(User(user_id=user_id))) if self._serving else 0
            self._serving, self._before = (_without(each, user_id) for each in (self._serving, self._before))
        with self._marking:
            self._watermark = max(self._watermark, erasure.time_s)
        return erasure, held

    def refresh(self) -> None:
        """Catches up with what other processes wrote into the store: items and erased users."""
        self._catch_up(erased=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One change of the snapshot at a time."""
        if not self._activating.acquire(blocking=False):
            raise Overloaded("another snapshot is being activated", retry_after_s=1.0)
        try:
            yield
        finally:
            self._activating.release()

    def _opened(self, snapshot_id: str) -> Engine:
        engine = self._shelf.open(snapshot_id)
        engine.warm_up()
        return engine

    def _serve(self, serving: _Serving) -> Engine:
        """Swaps, and makes it the current one over a restart."""
        before = self._serving
        after = self._swap_to(serving)
        self._keep(before)
        self._shelf.make_current(after.snapshot_id)
        return after

    def _keep(self, before: _Serving | None) -> None:
        if self._dropping is not None:
            self._dropping.cancel()
        self._before = before if self._keep_previous_s > 0 else None
        if self._before is not None:
            self._keep_until = time.monotonic() + self._keep_previous_s
            self._dropping = threading.Timer(self._keep_previous_s, self._drop)
            self._dropping.daemon = True
            self._dropping.start()

    def _drop(self) -> None:
        if time.monotonic() >= self._keep_until:  # else a later one took its place while this timer ran out
            self._before = None

    def _swap_to(self, serving: _Serving) -> Engine:
        """Serves from it, once it knows all that the store does; texts are encoded aside."""
        while True:
            serving = self._caught_up(serving, erased=True)
            with self._swapping:
                if self._is_caught_up(serving):
                    self._serving = serving
                    _log.info("serving", snapshot_id=serving.engine.snapshot_id)
                    return serving.engine

    def _catch_up(self, *, erased: bool = False) -> None:
        """Makes what the store holds by now visible. The lock is held for as long as it takes to move a pointer."""
        with self._catching:
            while (old := self._serving) is not None:
                new = self._caught_up(old, erased=erased)
                with self._swapping:
                    if self._serving is old:  # else a swap or an erasure came between
                        self._serving = new
                        return

    def _caught_up(self, serving: _Serving, *, erased: bool) -> _Serving:
        """`serving` with the items written since, and without the users `erased` since where that is asked."""
        newest, engine = self._store.seq, serving.engine
        if later := self._store.items(after_seq=serving.item_seq):
            engine = engine.with_items(later)
        if not erased:
            return _Serving(engine, newest, serving.erased_seq)
        last = self._store.last_erased_seq
        if gone := self._store.erased_among(engine.user_ids, after_seq=serving.erased_seq):
            engine = engine.without_users(sorted(gone))
        return _Serving(engine, newest, max(serving.erased_seq, last))

    def _is_caught_up(self, serving: _Serving) -> bool:
        store = self._store
        return store.last_erased_seq <= serving.erased_seq and not store.items(after_seq=serving.item_seq)


def _without(serving: _Serving | None, user_id: str) -> _Serving | None:
    return None if serving is None else replace(serving, engine=serving.engine.without_users([user_id]))
