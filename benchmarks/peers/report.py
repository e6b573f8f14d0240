"""The peer's answers judged by the engine's metrics, and what is said of its training.

Letters: Q queries, K answers a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from recsys.data.ids import IdMap
from recsys.errors import InvalidInput
from recsys.evaluate.asking import summary
from recsys.evaluate.slices import slice_report
from recsys.metrics import Metrics, ranking_metrics
from recsys.train.stages import Stage

RECENT = 3
"""Epochs over which a rise of the validation is averaged: single ones jump by more than they gain."""


def judged(stage: Stage, items: Int32[np.ndarray, "Q K"], scores: Float32[np.ndarray, "Q K"]) -> Metrics:
    """Each metric of each query of the stage; item -1 is no answer.

    Raises InvalidInput where an answer is an item the user has met, which the protocol excludes.
    """
    past = stage.queries.states.histories
    for query in range(len(past)):
        met = np.intersect1d(items[query], past.items[past.slice(query)])
        if len(met):
            raise InvalidInput.of(f"answers[{query}]", int(met[0]), "the user has met this item before")
    hits = items == stage.queries.targets[:, None]
    valid = np.where(items >= 0, scores, -np.inf)
    return ranking_metrics(valid, hits, np.ones(len(items), np.int64))


def test_report(stage: Stage, metrics: Metrics) -> dict[str, Any]:
    """Means with intervals, slices, and how many targets no event of the memory mentions."""
    unknown = ~np.isin(stage.queries.targets, stage.memory.items)
    return {
        "test": summary(metrics, stage.users),
        "slices": slice_report(stage, metrics),
        "targets_never_met": int(unknown.sum()),
    }


def training_report(curve: Sequence[dict[str, Any]], stopped: str | None) -> dict[str, Any]:
    """The epoch that validation chose, the time, and whether the training had come to its end."""
    found = [epoch["ndcg@10"] for epoch in curve]
    best = int(np.argmax(found))
    rise = rising(found)
    ended = f"stopped by {stopped} at epoch {len(curve)}"
    if stopped != "patience":
        ended += f", validation NDCG@10 rising by {rise:+.5f} an epoch"
    return {
        "epochs": len(curve),
        "best_epoch": best + 1,
        "validation_ndcg@10": found[best],
        "cpu_s": curve[-1]["cpu_s"],
        "stopped": stopped,
        "rise_per_epoch": rise,
        "ended": ended,
    }


def rising(found: Sequence[float]) -> float:
    """What an epoch gained of late: the mean of the last epochs less that of as many before them, an epoch."""
    span = min(RECENT, len(found) // 2)
    if span == 0:
        return 0.0
    return float(np.mean(found[-span:]) - np.mean(found[-2 * span : -span])) / span


def write_users(path: Path, stage: Stage, users: IdMap, metrics: Metrics) -> None:
    """One row a query, so that two systems can be compared pair by pair: ids, NDCG@10, HR@10, reciprocal rank (0 where
    the target is not among the answers)."""
    columns: dict[str, Any] = {name: metrics[name] for name in ("ndcg@10", "hr@10", "mrr")}
    np.savez(path, user_id=np.array(users.ids)[stage.users], **columns)
