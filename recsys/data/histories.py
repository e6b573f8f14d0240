"""User histories as CSR arrays: one flat array a column, one slice a user.

Letters: U users, E events, B users of a batch. Within a user, events stand in time order; ties keep the input's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int32, Int64
from scipy import sparse

Clock = Literal["timestamp", "relative", "position"]
"""What `times` means: seconds since the epoch; seconds since the user's first event; only an order."""

_Index = np.ndarray | slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """What U users did.

    `items` are catalogue rows, `types` index `event_types`, `values` are NaN where none was given, `baskets` are
    -1 where none was given.
    """

    indptr: Int64[np.ndarray, " U+1"]
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

    def without_types(self, names: Sequence[str]) -> Histories:
        """Events of all types but `names`."""
        out = [code for code, name in enumerate(self.event_types) if name in names]
        return self.keep(~np.isin(self.types, out)) if out else self

    def met(self, num_items: int) -> Bool[np.ndarray, " N"]:
        """Which of `num_items` items anybody did anything with; rows beyond are left out."""
        out = np.zeros(num_items, bool)
        out[self.items[self.items < num_items]] = True
        return out

    def drop_last(self, k: int) -> Histories:
        """Each user's history without its last `k` events."""
        return self.keep(self.ages >= k)

    def last(self, k: int) -> Histories:
        """Each user's last `k` events."""
        lengths = np.minimum(self.lengths, k)
        return self._spans(self.indptr[1:] - lengths, lengths)

    def before(self, time: float | np.ndarray) -> Histories:
        """Events strictly before `time` (a scalar, or one a user [U])."""
        bound = np.repeat(time, self.lengths) if np.ndim(time) else time
        return self.keep(self.times < bound)

    def of(self, user: int) -> Histories:
        """The history of one user, in views of these: costs the same however long it is."""
        span = self.slice(user)
        return self._pick(span, np.array([0, span.stop - span.start], np.int64))

    def take(self, users: np.ndarray) -> Histories:
        """The histories of `users` (int [B]), in that order; a user may come twice."""
        return self.prefixes(users, self.lengths[users])

    def prefixes(self, users: np.ndarray, lengths: np.ndarray) -> Histories:
        """The first `lengths` (int [B]) events of `users` (int [B]), in that order; a user may come twice."""
        return self._spans(self.indptr[users], lengths)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, Histories]]:
        """(user rows [B], their histories) in order, `size` users at a time."""
        for start in range(0, len(self), size):
            users = np.arange(start, min(start + size, len(self)))
            yield users, self.take(users)

    def save(self, path: Path) -> None:
        """Write all columns as one .npz file."""
        np.savez(path, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Histories:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        arrays["event_types"] = tuple(map(str, arrays["event_types"]))
        arrays["clock"] = str(arrays["clock"])
        return cls(**arrays)

    def _spans(self, starts: np.ndarray, lengths: np.ndarray) -> Histories:
        """One history a span of events; costs what the spans hold, however long the histories are."""
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        index = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], lengths)
        return self._pick(index, indptr)

    def _pick(self, index: _Index, indptr: np.ndarray) -> Histories:
        return replace(
            self,
            indptr=indptr,
            items=self.items[index],
            times=self.times[index],
            types=self.types[index],
            values=self.values[index],
            baskets=self.baskets[index],
        )


def histories_from_events(
    users: Int32[np.ndarray, " E"],
    items: Int32[np.ndarray, " E"],
    times: Float64[np.ndarray, " E"],
    *,
    num_users: int,
    event_types: tuple[str, ...] = ("view",),
    clock: Clock = "timestamp",
    types: Int16[np.ndarray, " E"] | None = None,
    values: Float32[np.ndarray, " E"] | None = None,
    baskets: Int32[np.ndarray, " E"] | None = None,
    ties: Float64[np.ndarray, " E"] | None = None,
) -> Histories:
    """Events in any order -> histories: by user, then time, then `ties` if given, then input order.

    Users are rows 0..num_users-1; those without an event get an empty history.
    """
    counts = np.bincount(users, minlength=num_users)
    order = time_order(users, times, ties, num_users)

    def ordered(column: np.ndarray) -> np.ndarray:
        # np.take, for indexing by an array costs twice as much; a slice copies nothing.
        return column[order] if isinstance(order, slice) else np.take(column, order)

    return Histories(
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=ordered(items),
        times=ordered(times),
        types=np.zeros(len(users), np.int16) if types is None else ordered(types),
        values=np.full(len(users), np.nan, np.float32) if values is None else ordered(values),
        baskets=np.full(len(users), -1, np.int32) if baskets is None else ordered(baskets),
        event_types=event_types,
        clock=clock,
    )


def time_order(
    users: np.ndarray, times: np.ndarray, ties: np.ndarray | None, num_users: int
) -> Int64[np.ndarray, " E"] | slice:
    """The stable order that sorts events by user, then time, then `ties`; a slice where they are sorted already."""
    if ties is not None:
        return _then_by_user(np.lexsort((ties, times)), users, num_users)
    falls = times[1:] < times[:-1]
    if not falls.any():
        return _by_user(users, num_users)
    if (users[1:] >= users[:-1]).all() and not (falls & (users[1:] == users[:-1])).any():
        return slice(None)
    return _then_by_user(np.argsort(times, kind="stable"), users, num_users)


def _then_by_user(by_time: np.ndarray, users: np.ndarray, num_users: int) -> Int64[np.ndarray, " E"]:
    return np.asarray(by_time[_by_user(users[by_time], num_users)])


def _by_user(users: np.ndarray, num_users: int) -> Int64[np.ndarray, " E"]:
    """A stable counting sort: turning one-event columns into rows takes one pass in C, not a sort."""
    # In one line, so that the one-event columns are freed before the order is widened.
    order = _one_a_column(users, num_users).tocsr().indices
    return np.asarray(order, np.int64)


def _one_a_column(rows: np.ndarray, num_rows: int) -> sparse.csc_array:
    num_columns = len(rows)
    ends = np.arange(num_columns + 1, dtype=np.int32 if num_columns < 2**31 - 1 else np.int64)
    return sparse.csc_array((np.ones(num_columns, np.int8), rows, ends), shape=(num_rows, num_columns))
