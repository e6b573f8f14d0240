"""Ranking metrics, full ranking, binary relevance; cross-checked against trec_eval in the tests.

    hr@k      1 if any target is among the first k
    recall@k  targets among the first k / all targets
    ndcg@k    sum of 1/log2(place + 1) over targets among the first k / the same for an ideal order of all targets
    mrr       1 / place of the first target

A target that is not among the candidates counts as missed. Among equal scores targets stand last, so a tie never helps.

`ranking_metrics` sorts; `place_metrics` gives the same of a whole catalogue without a sort, by counting who stands
before each target.

Letters: B queries, K candidates, N items, T targets of all queries together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

CUTS = (1, 5, 10, 20)

Metrics = dict[str, np.ndarray]
"""Each metric's value of each query."""


def ranking_metrics(
    scores: Float[np.ndarray, "B K"],
    hits: Bool[np.ndarray, "B K"],
    num_targets: Int[np.ndarray, " B"],
    cuts: Sequence[int] = CUTS,
) -> dict[str, Float64[np.ndarray, " B"]]:
    """Each metric of each query. Padding candidates carry a score of -inf and are no hits."""
    order = np.lexsort((hits, -scores), axis=1)
    ordered = np.take_along_axis(hits, order, axis=1)
    out: dict[str, Float64[np.ndarray, " B"]] = {}
    for cut in cuts:
        top = ordered[:, :cut]
        gains = 1.0 / np.log2(np.arange(top.shape[1]) + 2.0)
        out[f"hr@{cut}"] = np.asarray(top.any(axis=1), np.float64)
        out[f"recall@{cut}"] = top.sum(axis=1) / np.maximum(num_targets, 1)
        out[f"ndcg@{cut}"] = (top * gains).sum(axis=1) / ideal_gain(num_targets, cut)
    first = ordered.argmax(axis=1) if ordered.shape[1] else np.zeros(len(hits), np.int64)
    out["mrr"] = np.where(ordered.any(axis=1), 1.0 / (first + 1.0), 0.0)
    return out


def ideal_gain(num_targets: Int[np.ndarray, " B"], cut: int) -> Float64[np.ndarray, " B"]:
    """What `cut` places hold at best: NDCG's denominator; tiny, not 0, for a query without a target."""
    held = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(cut) + 2.0))])
    return np.asarray(np.maximum(held[np.minimum(num_targets, cut)], 1e-12))


def place_metrics(
    scores: Float[np.ndarray, "B N"],
    rivals: Bool[np.ndarray, "B N"],
    owners: Int[np.ndarray, " T"],
    targets: Int[np.ndarray, " T"],
    num_targets: Int[np.ndarray, " B"],
    cuts: Sequence[int] = CUTS,
) -> dict[str, Float64[np.ndarray, " B"]]:
    """What `ranking_metrics` gives where column targets[t] is a hit of query owners[t], and `rivals` are all the other
    candidates. Targets that are no candidates are left out of `targets`, but not of `num_targets`."""
    places = target_places(scores, rivals, owners, targets)
    size = len(num_targets)
    out: dict[str, Float64[np.ndarray, " B"]] = {}
    for cut in cuts:
        inside = places < cut
        gains = np.bincount(owners[inside], 1.0 / np.log2(places[inside] + 2.0), minlength=size)
        found = np.bincount(owners[inside], minlength=size)
        out[f"hr@{cut}"] = np.asarray(found > 0, np.float64)
        out[f"recall@{cut}"] = found / np.maximum(num_targets, 1)
        out[f"ndcg@{cut}"] = gains / ideal_gain(num_targets, cut)
    first = np.full(size, np.inf)
    np.minimum.at(first, owners, places)
    out["mrr"] = 1.0 / (first + 1.0)
    return out


def target_places(
    scores: Float[np.ndarray, "B N"],
    rivals: Bool[np.ndarray, "B N"],
    owners: Int[np.ndarray, " T"],
    targets: Int[np.ndarray, " T"],
) -> Int64[np.ndarray, " T"]:
    """How many stand before each target: rivals that do not score lower, and targets of the same query that do better.

    Costs a comparison a target and item. A score that is no number stands before every target that has it as rival.
    """
    reached = scores[owners, targets]
    order = np.lexsort((-reached, owners))
    nth = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
    places = np.empty(len(order), np.int64)
    for step in range(int(nth.max(initial=-1)) + 1):
        some = order[nth == step]  # at most one target a query: rows of scores are compared, never repeated
        rows = slice(None) if len(some) == len(scores) else owners[some]
        before = rivals[rows] & ~(scores[rows] < reached[some, None])
        places[some] = before.sum(axis=1) + step
    return places


def paired_interval(
    ours: Float64[np.ndarray, " B"],
    theirs: Float64[np.ndarray, " B"],
    groups: Int[np.ndarray, " B"],
    *,
    seed: int = 0,
    draws: int = 1_000,
) -> tuple[float, float]:
    """The 95 % interval of mean(ours) - mean(theirs) when users are drawn anew, the same users for both: far narrower
    than two intervals side by side, for most of the spread is between users."""
    return bootstrap_interval(ours - theirs, groups, seed=seed, draws=draws)


def bootstrap_interval(
    values: Float64[np.ndarray, " B"], groups: Int[np.ndarray, " B"], *, seed: int = 0, draws: int = 1_000
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean when `groups` (users) are drawn anew, with all their queries."""
    if len(values) == 0:
        return (float("nan"), float("nan"))
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    picks = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
