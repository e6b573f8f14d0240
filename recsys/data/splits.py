"""Cutting histories for training and evaluation, so that no state sees its own target or anything later.

Letters: U users, E events, B users of a split, Q queries, N targets of all queries together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from recsys.data.histories import Histories
from recsys.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOneOut:
    """Each user's state before one held-out event. `users` are the rows of those who had enough events."""

    users: Int64[np.ndarray, " B"]
    states: Histories
    targets: Int32[np.ndarray, " B"]
    times: Float64[np.ndarray, " B"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """Q questions in time order: what is in the basket a user comes back with?

    A basket is what one user did under one basket id, or without one at one time; its time is that of its first
    event. The state of query q is the first `lengths[q]` events of user `users[q]`: those strictly before `times[q]`.
    The distinct target rows of q are `targets[indptr[q]:indptr[q + 1]]`, ascending. `baskets` is -1 where none was
    given.
    """

    users: Int64[np.ndarray, " Q"]
    times: Float64[np.ndarray, " Q"]
    baskets: Int32[np.ndarray, " Q"]
    lengths: Int64[np.ndarray, " Q"]
    indptr: Int64[np.ndarray, " Q+1"]
    targets: Int32[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.users)

    def states(self, histories: Histories, rows: slice | np.ndarray = slice(None)) -> Histories:
        """The states of the queries `rows`, from the full histories that the queries were made from."""
        return histories.prefixes(self.users[rows], self.lengths[rows])

    def take(self, rows: np.ndarray) -> Queries:
        """The queries `rows` (int), in that order."""
        sizes = np.diff(self.indptr)[rows]
        indptr = _indptr(sizes)
        index = np.arange(indptr[-1]) - np.repeat(indptr[:-1], sizes) + np.repeat(self.indptr[rows], sizes)
        return replace(
            self,
            users=self.users[rows],
            times=self.times[rows],
            baskets=self.baskets[rows],
            lengths=self.lengths[rows],
            indptr=indptr,
            targets=self.targets[index],
        )


def leave_one_out(histories: Histories, back: int = 1) -> LeaveOneOut:
    """Holds out the event `back` places from each user's end (1 is the last), and what follows it.

    Users with `back` events or fewer would be asked with nothing known; they are left out.
    """
    if back < 1:
        raise InvalidInput.of("back", back, "must be at least 1")
    users = np.flatnonzero(histories.lengths > back)
    events = histories.indptr[1:][users] - back
    return LeaveOneOut(
        users=users,
        states=histories.prefixes(users, histories.lengths[users] - back),
        targets=histories.items[events],
        times=histories.times[events],
    )


def shuffle_ties(histories: Histories, seed: int) -> Histories:
    """The same histories with events of one user at one time in random order.

    Where time has the grain of a day, the order inside a day is an accident of the file; a result must not hang
    on it.
    """
    chance = np.random.default_rng(seed).random(histories.num_events)
    return histories._pick(np.lexsort((chance, histories.times, histories.users)), histories.indptr)


def global_time_split(
    histories: Histories, *cuts: float, targets: Bool[np.ndarray, " E"] | None = None
) -> tuple[Histories, tuple[Queries, ...]]:
    """What everyone did before the first cut, and the queries of each window [cut, next cut), the last one open.

    `targets` marks the events that may be asked for (all by default), e.g. purchases without returns; states hold
    every event. Needs histories with timestamps: other clocks are not comparable between users.
    """
    if histories.clock != "timestamp":
        raise InvalidInput.of("clock", histories.clock, "a global time split needs timestamps")
    if not cuts or any(after <= before for before, after in pairwise(cuts)):
        raise InvalidInput.of("cuts", cuts, "expected one or more rising times")
    wanted = np.ones(histories.num_events, bool) if targets is None else targets
    windows = [(histories.times >= start) & (histories.times < end) for start, end in pairwise((*cuts, np.inf))]
    return histories.before(cuts[0]), tuple(_queries(histories, np.flatnonzero(mask & wanted)) for mask in windows)


def _queries(histories: Histories, events: np.ndarray) -> Queries:
    """Queries whose targets are `events` (rows of the event arrays, ascending)."""
    users, times, baskets = histories.users[events], histories.times[events], histories.baskets[events]
    group, first = _groups(users, np.where(baskets < 0, times, 0.0), baskets)
    order = np.lexsort((first, times[first]))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    first = first[order]
    pairs = np.unique(np.stack([place[group], histories.items[events]]), axis=1)
    return Queries(
        users=users[first],
        times=times[first],
        baskets=baskets[first],
        lengths=_lengths_before(histories, users[first], times[first]),
        indptr=_indptr(np.bincount(pairs[0], minlength=len(first))),
        targets=pairs[1].astype(np.int32),
    )


def _groups(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The group of each element (equal in all `keys`), and each group's first element."""
    order = np.lexsort(keys)
    new = np.ones(len(order), bool)
    new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    return group, order[new]


def _lengths_before(histories: Histories, users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """How many events each of `users` had strictly before each of `times`."""
    # Times become ranks, so that (user, time) is one int64 key, ascending over all events: one search for all.
    ranks, of_event = np.unique(histories.times, return_inverse=True)
    keys = histories.users * len(ranks) + of_event
    found = np.searchsorted(keys, users * len(ranks) + np.searchsorted(ranks, times))
    return np.asarray(found - histories.indptr[users])


def _indptr(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
