"""Where quality comes from: by length of history, coldness of the target, event type, and day of the target."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.train.stages import DAY_S, Stage

_COLDNESS = (("0", 0, 0), ("1-4", 1, 4), ("5-19", 5, 19), ("20+", 20, np.inf))
_LENGTHS = (("<=50", 0, 50), ("51-200", 51, 200), (">200", 201, np.inf))


def slice_report(stage: Stage, metrics: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """NDCG@10 and HR@10 by slice. A query of several targets belongs to the coldness of its least-known one."""
    histories = stage.queries.states.histories
    lengths = histories.lengths
    masks = {f"history {name}": (lengths >= low) & (lengths <= high) for name, low, high in _LENGTHS}
    masks["history longest decile"] = lengths >= np.quantile(lengths, 0.9)
    met = _times_met(stage)
    masks |= {f"target met {name} times": (met >= low) & (met <= high) for name, low, high in _COLDNESS}
    masks |= _by_type(stage)
    if histories.clock != "position":
        same = _same_day(stage)
        masks |= {"target same day": same, "target other day": ~same}
    return {name: _figures(mask, metrics) for name, mask in masks.items()}


def _figures(mask: np.ndarray, metrics: dict[str, np.ndarray]) -> dict[str, Any]:
    if not mask.any():
        return {"queries": 0}
    return {"queries": int(mask.sum()), **{m: float(metrics[m][mask].mean()) for m in ("ndcg@10", "hr@10")}}


def _times_met(stage: Stage) -> np.ndarray:
    """How often the memory has met each query's least-known target."""
    highest = int(max(stage.queries.targets.max(initial=0), stage.memory.items.max(initial=0))) + 1
    counts = np.bincount(stage.memory.items, minlength=highest)[stage.queries.targets]
    return np.minimum.reduceat(counts, stage.queries.indptr[:-1])


def _by_type(stage: Stage) -> dict[str, np.ndarray]:
    if len(stage.memory.event_types) < 2:
        return {}
    names = enumerate(stage.memory.event_types)
    masks = {f"type {name}": stage.target_types == code for code, name in names}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _same_day(stage: Stage) -> np.ndarray:
    """Whether the target came within a day of the event before it."""
    gap_s = stage.target_times - stage.queries.states.histories.last_times
    return np.asarray(gap_s < DAY_S)
