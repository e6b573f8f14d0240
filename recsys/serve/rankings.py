"""Answers of the last few minutes: their next pages, and the state that explains them. Bounded in rows and in time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from recsys.errors import NotFound
from recsys.types import Fallback, RankedItem, User
from recsys.v1 import types_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer. `items` are there for further pages only; `digest` stands for the request's arguments."""

    user: User
    serving: pb.ServingInfo
    top_ids: tuple[str, ...]
    items: tuple[RankedItem, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    digest: bytes = b""

    @property
    def num_rows(self) -> int:
        return 1 + len(self.items) + len(self.user.events)


class Rankings:
    """Kept answers by id, oldest first out."""

    def __init__(self, *, max_rows: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_rows = max_rows
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, Kept]] = OrderedDict()
        self._num_rows = 0

    def keep(self, ranking_id: str, kept: Kept) -> None:
        with self._lock:
            self._kept[ranking_id] = (self._clock(), kept)
            self._num_rows += kept.num_rows
            self._drop_old()

    def get(self, ranking_id: str) -> Kept:
        """Raises NotFound for one that never was or is no longer kept."""
        with self._lock:
            self._drop_old()
            if ranking_id not in self._kept:
                raise NotFound("no such ranking: it was never made, or too long ago")
            return self._kept[ranking_id][1]

    def __len__(self) -> int:
        return len(self._kept)

    def _drop_old(self) -> None:
        earliest = self._clock() - self._ttl_s
        while self._kept:
            made, kept = next(iter(self._kept.values()))
            if made >= earliest and self._num_rows <= self._max_rows:
                return
            self._kept.popitem(last=False)
            self._num_rows -= kept.num_rows
