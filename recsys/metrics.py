"""Ranking metrics, full ranking, binary relevance; cross-checked against trec_eval in the tests.

    hr@k      1 if any target is among the first k
    recall@k  targets among the first k / all targets
    ndcg@k    sum of 1/log2(place + 1) over targets among the first k / the same for an ideal order of all targets
    mrr       1 / place of the first target

A target that is not among the candidates counts as missed. Among equal scores targets stand last, so a tie never helps.

Letters: B queries, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

CUTS = (1, 5, 10, 20)


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
        ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(cut) + 2.0))])[np.minimum(num_targets, cut)]
        out[f"hr@{cut}"] = np.asarray(top.any(axis=1), np.float64)
        out[f"recall@{cut}"] = top.sum(axis=1) / np.maximum(num_targets, 1)
        out[f"ndcg@{cut}"] = (top * gains).sum(axis=1) / np.maximum(ideal, 1e-12)
    first = ordered.argmax(axis=1) if ordered.shape[1] else np.zeros(len(hits), np.int64)
    out["mrr"] = np.where(ordered.any(axis=1), 1.0 / (first + 1.0), 0.0)
    return out


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
