"""User histories as CSR arrays: one flat array a column, one slice a user.

Letters: U users, E events, B users of a batch. Within a user, events stand in time order; ties keep the input's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int32, Int64

Clock = Literal["timestamp", "relative", "position"]
"""What `times` means: seconds since the epoch; seconds since the user's first event; only an order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """What U users did.

    `items` are catalogue rows, `types` index `event_types`, `values` are NaN where none was given, `baskets` are
    -1 where none was given.
    """

    indptr: Int64[np.ndarray, "U+1"]
    items: Int32[np.ndarray, " E"]
    times: Float64[np.ndarray, " E"]
    types: Int16[np.ndarray, " E"]
    values: Float32[np.ndarray, " E"]
    baskets: Int32[np.ndarray, " E"]
    event_types: tuple[str, ...]
    clock: Clock

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_events(self) -> int:
        return int(self.indptr[-1])

    @property
    def lengths(self) -> Int64[np.ndarray, " U"]:
        return np.diff(self.indptr)

    @property
    def users(self) -> Int64[np.ndarray, " E"]:
        """The user row of each event."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def last_times(self) -> Float64[np.ndarray, " U"]:
        """The time of each user's last event; -inf for an empty history."""
        out = np.full(len(self), -np.inf)
        some = self.lengths > 0
        out[some] = self.times[self.indptr[1:][some] - 1]
        return out

    @property
    def ages(self) -> Int64[np.ndarray, " E"]:
        """Steps back from each user's last event: 0 is the last."""
        return np.repeat(self.indptr[1:], self.lengths) - 1 - np.arange(self.num_events)

    def slice(self, user: int) -> slice:
        return slice(int(self.indptr[user]), int(self.indptr[user + 1]))

    def keep(self, mask: np.ndarray) -> Histories:
        """The same users with only the events where `mask` (bool [E]) is true."""
        counts = np.add.reduceat(np.append(mask, False), self.indptr[:-1]) if len(self) else np.zeros(0)
        counts = np.where(self.lengths > 0, counts, 0)
        return self._pick(np.flatnonzero(mask), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    def drop_last(self, k: int) -> Histories:
        """Each user's history without its last `k` events."""
        return self.keep(self.ages >= k)

    def last(self, k: int) -> Histories:
        """Each user's last `k` events."""
        return self.keep(self.ages < k)

    def before(self, time: float | np.ndarray) -> Histories:
        """Events strictly before `time` (a scalar, or one a user [U])."""
        bound = np.repeat(time, self.lengths) if np.ndim(time) else time
        return self.keep(self.times < bound)

    def take(self, users: np.ndarray) -> Histories:
        """The histories of `users` (int [B]), in that order; a user may come twice."""
        lengths = self.lengths[users]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        index = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths) + np.repeat(self.indptr[users], lengths)
        return self._pick(index, indptr)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, Histories]]:
        """(user rows [B], their histories) in order, `size` users at a time."""
        for start in range(0, len(self), size):
            users = np.arange(start, min(start + size, len(self)))
            yield users, self.take(users)

    def _pick(self, index: np.ndarray, indptr: np.ndarray) -> Histories:
        return replace(
            self,
            indptr=indptr,
            items=self.items[index],
            times=self.times[index],
            types=self.types[index],
            values=self.values[index],
            baskets=self.baskets[index],
        )
