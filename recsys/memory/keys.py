"""State keys: a user's moment as a decayed superposition of what came just before it.

key(t) = sum_a decay^a * code(item at t - a), a = 0 .. window - 1

The inner product of two keys counts the items both moments share, weighing recent ones more and, because it adds
decay^a * decay^b, order as well: the superposition memory of Plate 1995 ("Holographic reduced representations")
without roles. With one-hot codes the key is a sparse row and the product is exact; with random codes of D dimensions it
is a dense vector for a vector index, with noise of about |key| |query| / sqrt(D).

Letters: B states, E events, N items, D dimensions, W window.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Int32, Int64

from recsys._kernel import kernel
from recsys.data.histories import Histories


def recency_matrix(
    histories: Histories,
    num_items: int,
    *,
    decay: float,
    window: int,
    item_weights: Float32[np.ndarray, " N"] | None = None,
) -> sp.csr_matrix:
    """The keys of the users' present moments under one-hot codes: sparse [B, N]; rows at or above N are left out."""
    recent = histories.last(window)
    kept = recent.items < num_items
    items = recent.items[kept]
    weights = np.power(decay, recent.ages[kept]).astype(np.float32)
    if item_weights is not None:
        weights *= item_weights[items]
    return sp.csr_matrix((weights, (recent.users[kept], items)), shape=(len(histories), num_items))


def recency_sum(
    histories: Histories, matrix: sp.csr_matrix, *, decay: float, window: int
) -> Float32[np.ndarray, "B N"]:
    """`recency_matrix(histories, ...) @ matrix` as a dense array, at the cost of the rows that are read."""
    out = np.zeros((len(histories), matrix.shape[1]), np.float32)
    items = np.ascontiguousarray(histories.items)
    _add_rows(items, histories.indptr, decay, window, matrix.data, matrix.indices, matrix.indptr, out)
    return out


@kernel
def _add_rows(items, ends, decay, window, data, columns, starts, out):  # type: ignore[no-untyped-def]
    for user in range(len(ends) - 1):
        weight = 1.0
        for event in range(ends[user + 1] - 1, max(ends[user], ends[user + 1] - window) - 1, -1):
            item = items[event]
            if item < len(starts) - 1:
                for at in range(starts[item], starts[item + 1]):
                    out[user, columns[at]] += np.float32(weight) * data[at]
            weight *= decay


def recent_items(histories: Histories, window: int) -> Int32[np.ndarray, "E W"]:
    """For each event the items at it and before it in the same history, latest first; -1 before the beginning."""
    start = np.repeat(histories.indptr[:-1], histories.lengths)
    source = np.arange(histories.num_events)[:, None] - np.arange(window)
    inside = source >= start[:, None]
    return np.where(inside, histories.items[np.where(inside, source, 0)], -1).astype(np.int32)


def latest_items(histories: Histories, window: int) -> Int32[np.ndarray, "B W"]:
    """Each user's last `window` items, latest first; -1 where the history is shorter."""
    source = histories.indptr[1:, None] - 1 - np.arange(window)
    inside = source >= histories.indptr[:-1, None]
    if histories.num_events == 0:
        return np.full(source.shape, -1, np.int32)
    return np.where(inside, histories.items[np.where(inside, source, 0)], -1).astype(np.int32)


def superpose(
    items: Int32[np.ndarray, "B W"], codes: Float32[np.ndarray, "N D"], decay: float
) -> Float32[np.ndarray, "B D"]:
    """Dense keys from rows of recent items, latest first, -1 for none; rows without a code
    add nothing."""
    keys = np.zeros((len(items), codes.shape[1]), np.float32)
    for age in range(items.shape[1]):
        some = (items[:, age] >= 0) & (items[:, age] < len(codes))
        keys[some] += np.float32(decay**age) * codes[items[some, age]]
    return keys


def next_items(histories: Histories) -> Int32[np.ndarray, " E"]:
    """The value that belongs to each moment: what the user did next; -1 after the last event."""
    following = np.full(histories.num_events, -1, np.int32)
    following[:-1] = histories.items[1:]
    ends: Int64[np.ndarray, " U"] = histories.indptr[1:][histories.lengths > 0] - 1
    following[ends] = -1
    return following


def following(histories: Histories) -> tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"]]:
    """Where the events that come next after each event begin, and how many they are: one event, a whole basket where
    events come in baskets (their order inside one means nothing), or none."""
    E = histories.num_events
    ends = np.repeat(histories.indptr[1:], histories.lengths)
    if not (histories.baskets >= 0).any():
        first = np.arange(1, E + 1)
        return np.minimum(first, max(E - 1, 0)), (first < ends).astype(np.int64)
    owner = histories.users
    fresh = np.ones(E, bool)
    fresh[1:] = (owner[1:] != owner[:-1]) | (histories.times[1:] != histories.times[:-1])
    heads = np.append(np.flatnonzero(fresh), E)
    group = np.cumsum(fresh) - 1
    first, stop = heads[group + 1], heads[np.minimum(group + 2, len(heads) - 1)]
    inside = first < ends
    return np.where(inside, first, 0), np.where(inside, stop - first, 0)


def next_moments(histories: Histories, rng: np.random.Generator) -> Int32[np.ndarray, " E"]:
    """Like `next_items`; where events come in baskets, any item of the next one."""
    first, count = following(histories)
    chosen = first + (rng.random(len(first)) * count).astype(np.int64)
    return np.where(count > 0, histories.items[chosen], -1).astype(np.int32)
