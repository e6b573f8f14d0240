"""What accuracy does not say of the first ten: how much of the catalogue they show, how popular, alike and new they
are, and whether they keep the mix of a user's interests. Measured on the popularity baseline as well, to compare.

    coverage     share of all items that anybody is shown
    gini         of how often each item is shown: 0 all alike, 1 a single one
    popularity   users who met an item, mean of a list, mean of lists (ARP: Abdollahpouri et al. 2019, "Managing
                 popularity bias in recommender systems with personalized re-ranking"), beside that of the targets and
                 of the users' own histories; `popularity_percentile` the same by place among all items, in 0..1
    diversity    1 - mean cosine of the texts of two items of a list; items without a text take no part
    novelty      -log2 of the share of users who met an item (+1 on both counts, so that unmet items have one)
    calibration  KL(p | .99 q + .01 p) of the categories of history p and list q (Steck 2018, "Calibrated
                 recommendations"): 0 where the list keeps the history's mix; items without categories take no part

None stands where a data set has nothing to measure by. All counts are those of the stage's memory.

Letters: Q queries, k places, N items, G categories, T (query, item) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64, Int, Int32, Int64

from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.flow import allowed_mask, batches
from recsys.train.stages import Stage

PLACES = 10
SMOOTHING = 0.01
BATCH = 512


class TopItems:
    """Collects the first k items of each query while a stage is asked; -1 where there are fewer."""

    def __init__(self, num_queries: int, k: int = PLACES) -> None:
        self.rows = np.full((num_queries, k), -1, np.int32)

    def __call__(
        self, queries: Int[np.ndarray, " B"], candidates: Int32[np.ndarray, "B K"], scores: Float64[np.ndarray, "B K"]
    ) -> None:
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.rows.shape[1]]
        self.rows[queries, : order.shape[1]] = np.where(
            np.isneginf(np.take_along_axis(scores, order, axis=1)), -1, np.take_along_axis(candidates, order, axis=1)
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """T (query, item) pairs, queries in ascending order: lists, targets and histories are all this."""

    owners: Int64[np.ndarray, " T"]
    items: Int64[np.ndarray, " T"]

    @classmethod
    def of_lists(cls, lists: Int32[np.ndarray, "Q k"]) -> Self:
        owners, places = np.nonzero(lists >= 0)
        return cls(owners, lists[owners, places].astype(np.int64))

    def mean(self, values: Float64[np.ndarray, " N"]) -> float | None:
        """The mean over queries of the mean over their items; queries without an item take no part."""
        if len(self.items) == 0:
            return None
        counts = np.bincount(self.owners)
        sums = np.bincount(self.owners, values[self.items])
        return float((sums[counts > 0] / counts[counts > 0]).mean())


def beyond_accuracy(
    lists: Int32[np.ndarray, "Q k"], stage: Stage, items: ItemTable, *, include_seen: bool
) -> dict[str, Any]:
    """The measures of these lists (-1 pads), of the most popular items, and of what targets and histories are like."""
    queries = stage.queries
    histories = queries.states.histories
    met = users_of_items(stage.memory, len(items))
    targets = Pairs(np.repeat(np.arange(len(queries)), np.diff(queries.indptr)), queries.targets.astype(np.int64))
    popular = popular_lists(stage, items, k=lists.shape[1], include_seen=include_seen)
    return {
        "k": lists.shape[1],
        "ours": _of_lists(lists, histories, items, met, len(stage.memory)),
        "popularity": _of_lists(popular, histories, items, met, len(stage.memory)),
        "targets": _of_pairs(targets, met, len(stage.memory)),
        "histories": _of_pairs(Pairs(histories.users, histories.items.astype(np.int64)), met, len(stage.memory)),
    }


def users_of_items(memory: Histories, num_items: int) -> Int64[np.ndarray, " N"]:
    """How many users met each item."""
    return np.bincount(np.unique(memory.users * num_items + memory.items) % num_items, minlength=num_items)


def popular_lists(stage: Stage, items: ItemTable, *, k: int, include_seen: bool) -> Int32[np.ndarray, "Q k"]:
    """The items of most events in the memory, for each query, among those that may be shown to it."""
    counts = np.bincount(stage.memory.items, minlength=len(items))
    order = np.argsort(-counts, kind="stable")
    out = np.full((len(stage.queries), k), -1, np.int32)
    for rows, states in batches(stage.queries.states, BATCH):
        allowed = allowed_mask(states, include_seen=include_seen)[:, order]
        owners, places = np.nonzero(allowed & (np.cumsum(allowed, axis=1, dtype=np.int32) <= k))
        nth = np.arange(len(owners)) - np.searchsorted(owners, owners)
        out[rows[owners], nth] = order[places]
    return out


def coverage(lists: Int32[np.ndarray, "Q k"], num_items: int) -> float:
    """The share of items that stand in any list."""
    return len(np.unique(lists[lists >= 0])) / max(num_items, 1)


def gini(exposures: Int64[np.ndarray, " N"]) -> float | None:
    """0 where all are shown equally often, near 1 where one is shown alone; None where nothing is shown."""
    n, total = len(exposures), int(exposures.sum())
    if total == 0:
        return None
    ranks = 2.0 * np.arange(1, n + 1) - n - 1
    return float((ranks * np.sort(exposures)).sum() / (n * total))


def percentiles(values: Int64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """Each value's place among all in 0..1, equals in the middle of their places."""
    ordered = np.sort(values)
    places = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(places / (2.0 * max(len(values), 1)))


def diversity(lists: Int32[np.ndarray, "Q k"], items: ItemTable) -> float | None:
    """1 - mean cosine of the pairs of a list, mean of the lists that have a pair of texts."""
    found = []
    for at in range(0, len(lists), BATCH):
        vectors = items.vectors(lists[at : at + BATCH])
        length = np.linalg.norm(vectors, axis=2, keepdims=True)
        told = (length[..., 0] > 0).sum(axis=1)
        # |sum of unit vectors|^2 = their number + twice the cosines of their pairs.
        summed = np.square((vectors / np.maximum(length, 1e-12)).sum(axis=1, dtype=np.float64)).sum(axis=1)
        pairs = told * (told - 1)
        found.append(1.0 - ((summed - told) / np.maximum(pairs, 1))[pairs > 0])
    values = np.concatenate(found) if found else np.zeros(0)
    return float(values.mean()) if len(values) else None


def calibration(lists: Int32[np.ndarray, "Q k"], histories: Histories, items: ItemTable) -> float | None:
    """Steck's KL of the history's categories and the list's, mean of the queries that have both."""
    shares = category_shares(items)
    found = []
    for rows, past in histories.batches(BATCH):
        p = _mix(past.users, past.items, len(rows), shares)
        shown = Pairs.of_lists(lists[rows])
        q = _mix(shown.owners, shown.items, len(rows), shares)
        both = (p.sum(axis=1) > 0) & (q.sum(axis=1) > 0)
        found.append(divergence(p[both], q[both]))
    values = np.concatenate(found) if found else np.zeros(0)
    return float(values.mean()) if len(values) else None


def divergence(p: Float64[np.ndarray, "Q G"], q: Float64[np.ndarray, "Q G"]) -> Float64[np.ndarray, " Q"]:
    """KL(p | (1 - a) q + a p) in nats: what p has and q lacks costs much, but not without end."""
    mixed = (1.0 - SMOOTHING) * q + SMOOTHING * p
    return np.asarray((p * np.log(np.where(p > 0, p, 1.0) / np.where(p > 0, mixed, 1.0))).sum(axis=1))


def category_shares(items: ItemTable) -> sp.csr_matrix:
    """[N, G]: an item belongs to each of its categories by equal parts; empty rows for items without any."""
    known: dict[str, int] = {}
    names = [tuple(dict.fromkeys(item.categories)) for item in items.catalogue.items]
    columns = [known.setdefault(name, len(known)) for each in names for name in each]
    counts = np.array([len(each) for each in names], np.int64)
    parts = np.repeat(1.0 / np.maximum(counts, 1), counts)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return sp.csr_matrix((parts, np.array(columns, np.int64), indptr), shape=(len(names), max(len(known), 1)))


def _mix(owners: np.ndarray, rows: np.ndarray, num_queries: int, shares: sp.csr_matrix) -> Float64[np.ndarray, "Q G"]:
    """The shares of categories of each query's items; a row sums to 1, or to 0 where no item has a category."""
    met = sp.csr_matrix((np.ones(len(rows)), (owners, rows)), shape=(num_queries, shares.shape[0]))
    mix = np.asarray((met @ shares).toarray(), np.float64)
    return np.asarray(mix / np.maximum(mix.sum(axis=1, keepdims=True), 1e-12))


def _of_lists(
    lists: Int32[np.ndarray, "Q k"], histories: Histories, items: ItemTable, met: np.ndarray, num_users: int
) -> dict[str, float | None]:
    return {
        "coverage": coverage(lists, len(items)),
        "gini": gini(np.bincount(lists[lists >= 0], minlength=len(items))),
        **_of_pairs(Pairs.of_lists(lists), met, num_users),
        "diversity": diversity(lists, items),
        "calibration": calibration(lists, histories, items),
    }


def _of_pairs(pairs: Pairs, met: Int64[np.ndarray, " N"], num_users: int) -> dict[str, float | None]:
    return {
        "popularity": pairs.mean(met.astype(np.float64)),
        "popularity_percentile": pairs.mean(percentiles(met)),
        "novelty": pairs.mean(-np.log2((met + 1.0) / (num_users + 1.0))),
    }
