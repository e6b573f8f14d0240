"""What users met in all their lives: one row a distinct item, however often it was met. Costs what is distinct.

Whatever matchers and features need of a whole life is read from here; the rest they read from its latest events. A new
event changes one row, so a life that is kept need not be read again.

Letters: B users, E events, M rows of all B users together.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from recsys._kernel import long_kernel
from recsys.data.histories import Histories

HALF_LIFE_EVENTS = 200.0
_FADED = np.exp2(-np.arange(8_192) / HALF_LIFE_EVENTS)
"""What is left after so many events: a power takes a hundred times as long as a look-up. Beyond them nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meetings:
    """Rows of user b: indptr[b] to indptr[b + 1], in the order of first meetings.

    `counts`: events about the item. `moments`: the same with those of one time (of one basket) counted once. `last`:
    the place of the last in the life. `decayed`: meetings as they stood at the last one, halved every
    `HALF_LIFE_EVENTS` events of the life. `lengths`, `last_times`: of the whole lives; -inf for an empty one.
    """

    indptr: Int64[np.ndarray, " B+1"]
    items: Int32[np.ndarray, " M"]
    counts: Int32[np.ndarray, " M"]
    moments: Int32[np.ndarray, " M"]
    last: Int32[np.ndarray, " M"]
    decayed: Float32[np.ndarray, " M"]
    first_s: Float64[np.ndarray, " M"]
    last_s: Float64[np.ndarray, " M"]
    lengths: Int64[np.ndarray, " B"]
    last_times: Float64[np.ndarray, " B"]

    @classmethod
    def of(cls, histories: Histories) -> Self:
        """Those of whole histories: one pass over them."""
        E = histories.num_events
        made = cls._sized(E, histories.lengths, histories.last_times)
        slots = np.full(int(histories.items.max(initial=-1)) + 1, -1, np.int32)
        events = (np.ascontiguousarray(histories.items), np.ascontiguousarray(histories.times))
        if len(histories):
            _meet(histories.indptr, *events, 0, slots, made.indptr, *made._columns)
        return made._cut(int(made.indptr[-1]))

    def then(self, items: Int32[np.ndarray, " E"], times: Float64[np.ndarray, " E"]) -> Self:
        """The meetings of one life (B = 1) after some more events, none of them older than its last."""
        M = len(self.items)
        lengths, last = self.lengths + len(items), times[-1:] if len(times) else self.last_times
        made = self._sized(M + len(items), lengths, last)
        for mine, column in zip(self._columns, made._columns, strict=True):
            column[:M] = mine
        made.indptr[1] = M
        slots = np.full(max(int(self.items.max(initial=-1)), int(items.max(initial=-1))) + 1, -1, np.int32)
        slots[self.items] = np.arange(M)
        span = np.array([0, len(items)])
        _meet(span, items, times, int(self.lengths[0]), slots, made.indptr, *made._columns)
        return made._cut(int(made.indptr[1]))

    @property
    def size_bytes(self) -> int:
        return sum(int(getattr(self, each.name).nbytes) for each in fields(self))

    @property
    def users(self) -> Int64[np.ndarray, " M"]:
        """The user of each row."""
        return np.repeat(np.arange(len(self.lengths)), np.diff(self.indptr))

    @property
    def _columns(self) -> tuple[np.ndarray, ...]:
        return (self.items, self.counts, self.moments, self.last, self.decayed, self.first_s, self.last_s)

    @classmethod
    def _sized(cls, most: int, lengths: np.ndarray, last_times: np.ndarray) -> Self:
        items, counts, moments, last = np.empty((4, most), np.int32)
        first_s, last_s = np.empty((2, most))
        return cls(
            indptr=np.zeros(len(lengths) + 1, np.int64),
            items=items,
            counts=counts,
            moments=moments,
            last=last,
            decayed=np.empty(most, np.float32),
            first_s=first_s,
            last_s=last_s,
            lengths=lengths,
            last_times=last_times,
        )

    def _cut(self, met: int) -> Self:
        """Only the rows in use, in arrays that hold no more."""
        columns = [column[:met].copy() for column in self._columns]
        items, counts, moments, last, decayed, first_s, last_s = columns
        return type(self)(
            indptr=self.indptr,
            items=items,
            counts=counts,
            moments=moments,
            last=last,
            decayed=decayed,
            first_s=first_s,
            last_s=last_s,
            lengths=self.lengths,
            last_times=self.last_times,
        )


@long_kernel
def _meet(  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    starts, events, times, places, slots, indptr, items, counts, moments, last, decayed, first_s, last_s
):
    """Of user 0 rows up to indptr[1] are there already, and `slots` holds them; `places`: where its events begin."""
    row = indptr[1]
    for user in range(len(starts) - 1):
        begin = indptr[user]
        for event in range(starts[user], starts[user + 1]):
            item, time_s = events[event], times[event]
            place = event - starts[user] + places
            at = slots[item]
            if at < 0:
                at = row
                slots[item] = row
                items[at], counts[at], moments[at], decayed[at], first_s[at] = item, 1, 1, 1.0, time_s
                row += 1
            else:
                passed = place - last[at]
                counts[at] += 1
                moments[at] += 1 if time_s != last_s[at] else 0
                decayed[at] = decayed[at] * (_FADED[passed] if passed < len(_FADED) else 0.0) + 1.0
            last[at], last_s[at] = place, time_s
        for each in range(begin, row):
            slots[items[each]] = -1
        indptr[user + 1] = row
