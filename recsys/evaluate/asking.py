"""Ask a stage of a flow and its ranker, and sum up what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recsys.flow import Flow, rank_field
from recsys.metrics import Metrics, bootstrap_interval, ranking_metrics
from recsys.rank import Ranker
from recsys.train.examples import fields
from recsys.train.fit import Progress, quiet
from recsys.train.stages import Stage


def ask(
    flow: Flow,
    ranker: Ranker,
    stage: Stage,
    include_seen: bool,
    name: str,
    progress: Progress = quiet,
    *,
    on_ranked: Callable[[np.ndarray, np.ndarray, np.ndarray], None] | None = None,
) -> Metrics:
    """Every query of a stage through flow and ranker; `on_ranked(queries, candidates, scores)` sees each batch."""
    report: Callable[[int, int], None] = lambda done, total: progress(f"asking: {name}", done, total)  # noqa: E731
    counts = np.diff(stage.queries.indptr)
    parts = []
    for rows, field, hits in fields(flow, stage.queries, include_seen=include_seen, on_batch=report):
        scores = rank_field(field, ranker)
        if on_ranked:
            on_ranked(rows, field.candidates, scores)
        metrics = ranking_metrics(scores, hits, counts[rows])
        metrics["candidate_recall"] = hits.sum(axis=1) / counts[rows]
        metrics["candidates"] = field.valid.sum(axis=1).astype(np.float64)
        parts.append(metrics)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def summary(metrics: Metrics, users: np.ndarray) -> dict[str, Any]:
    """Means, and the 95 % bootstrap interval over users of the two figures that are compared."""
    out: dict[str, Any] = {name: float(values.mean()) for name, values in metrics.items()}
    for name in ("ndcg@10", "hr@10"):
        out[f"{name}_interval"] = list(bootstrap_interval(metrics[name], users))
    out["queries"] = len(users)
    return out
