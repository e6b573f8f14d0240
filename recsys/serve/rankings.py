"""Answers of the last few minutes: their next pages, and the state that explains them. Bounded in rows and in time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recsys.errors import NotFound
from recsys.lives import Told
from recsys.types import Fallback, RankedItem, User
from recsys.v1 import types_pb2 as pb
from recsys.watch import asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer. `items` are there for further pages only; `digest` stands for the request's arguments."""

    user: User
    serving: pb.ServingInfo
    top_ids: tuple[str, ...]
    items: Sequence[RankedItem] = ()
    fallbacks: tuple[Fallback, ...] = ()
    digest: bytes = b""

    @property
    def num_rows(self) -> int:
        events = self.user.events
        return 1 + len(self.items) + (events.num_held if isinstance(events, Told) else len(events))


class Rankings:
    """Kept answers by id, oldest first out."""

    def __init__(self, *, max_rows: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_rows = max_rows
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, Kept]] = OrderedDict()
        self._num_rows = 0
        self._moment = 0
        self._forgotten: OrderedDict[str, tuple[int, float]] = OrderedDict()

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
                asked("rankings", hits=0, misses=1)
                raise NotFound("no such ranking: it was never made, or too long ago")
            asked("rankings", hits=1, misses=0)
            return self._kept[ranking_id][1]

    def of_user(self, user_id: str) -> list[tuple[str, float, Kept]]:
        """(id, when it was made by the clock, answer) of a user's kept answers, newest first."""
        with self._lock:
            self._drop_old()
            found = [(each, made, kept) for each, (made, kept) in self._kept.items() if kept.user.user_id == user_id]
        return found[::-1]

    @property
    def moment(self) -> int:
        """Rises with every `forget`; taken before a user is read, it tells whether they were forgotten since."""
        return self._moment

    def forget(self, user_id: str) -> int:
        """Drops a user's answers and returns how many there were."""
        with self._lock:
            self._moment += 1
            self._forgotten[user_id] = (self._moment, self._clock())
            return self._drop(user_id)

    def forgotten_since(self, moment: int, user_id: str) -> bool:
        """Whether the user was forgotten after `moment`; an answer made of what was read then is dropped if it is kept.

        To be asked once an answer is kept: whichever of the two comes last, nothing of the user stays.
        """
        with self._lock:
            known = self._forgotten.get(user_id)
            if known is None or known[0] <= moment:
                return False
            self._drop(user_id)
            return True

    def _drop(self, user_id: str) -> int:
        found = [id_ for id_, (_, kept) in self._kept.items() if kept.user.user_id == user_id]
        for ranking_id in found:
            _, kept = self._kept.pop(ranking_id)
            self._num_rows -= kept.num_rows
        return len(found)

    def __len__(self) -> int:
        return len(self._kept)

    def _drop_old(self) -> None:
        earliest = self._clock() - self._ttl_s
        while self._forgotten and next(iter(self._forgotten.values()))[1] < earliest:
            self._forgotten.popitem(last=False)  # no call lasts as long as that
        while self._kept:
            made, kept = next(iter(self._kept.values()))
            if made >= earliest and self._num_rows <= self._max_rows:
                return
            self._kept.popitem(last=False)
            self._num_rows -= kept.num_rows
