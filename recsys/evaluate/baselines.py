"""Baselines on the same memory and the same questions, each ranking every item.

Popularity; popularity of the week; item-item (cosine of co-occurrence, Sarwar et al. 2001, over the whole history);
EASE, flat and with recency weights; last item's transitions; the user's own repeats where the data repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from recsys.data.histories import Histories
from recsys.flow import Flow, allowed_mask, batches
from recsys.match import DenseReading, States
from recsys.match.transitions import capped_product
from recsys.memory.keys import recency_matrix
from recsys.metrics import ranking_metrics
from recsys.train.examples import BATCH
from recsys.train.fit import Progress, quiet
from recsys.train.stages import Stage

SIGNALS = {
    "popularity": "popularity_ever",
    "recency_popularity": "popularity_week",
    "ease": "linear_all",
    "ease_recent": "linear_recent",
    "last_item_transitions": "transitions_next",
    "sequence_neighbours": "neighbours_shared",
    "own_repeat": "repeat_recent",
}
"""Baseline -> the signal that is it, read over all items."""


@dataclass(frozen=True, slots=True)
class ItemItem:
    """Cosine between items' sets of users, the 200 nearest an item kept; a user's items add up."""

    similarity: sp.csr_matrix

    @classmethod
    def fit(cls, memory: Histories, num_items: int) -> ItemItem:
        met = sp.csr_matrix(
            (np.ones(memory.num_events, np.float32), (memory.users, memory.items)), shape=(len(memory), num_items)
        )
        met.data[:] = 1.0
        length = np.sqrt(np.asarray(met.sum(axis=0)).ravel()) + 1e-6
        # Unit columns first: their products are the cosines.
        unit = sp.csr_matrix(met @ sp.diags((1.0 / length).astype(np.float32)))
        nearest = capped_product(unit.T.tocsr(), unit, 201)  # 200 and the item itself
        return cls(sp.csr_matrix(nearest - sp.diags(nearest.diagonal())))

    def score(self, states: States) -> np.ndarray:
        past = recency_matrix(states.histories, self.similarity.shape[0], decay=1.0, window=1 << 30)
        past.sum_duplicates()
        past.data[:] = 1.0
        return np.asarray((past @ self.similarity).toarray())


def ask_baselines(
    flow: Flow, stage: Stage, include_seen: bool, progress: Progress = quiet
) -> dict[str, dict[str, np.ndarray]]:
    """Each baseline's metrics of each query of the stage."""
    item_item = ItemItem.fit(stage.memory, flow.num_fitted)
    counts = np.diff(stage.queries.indptr)
    parts: dict[str, list[dict[str, np.ndarray]]] = {}
    for rows, states in batches(stage.queries.states, BATCH):
        allowed = allowed_mask(states, include_seen=include_seen)[:, : flow.num_fitted]
        everything = np.broadcast_to(np.arange(flow.num_fitted, dtype=np.int32), allowed.shape)
        hits = stage.queries.hits(rows, everything) & allowed
        for name, scores in {"item_item": item_item.score(states), **_signals(flow, states)}.items():
            if name == "own_repeat" and not include_seen:
                continue
            masked = np.where(allowed, scores, -np.inf)
            parts.setdefault(name, []).append(ranking_metrics(masked, hits, counts[rows]))
        progress("asking: baselines", int(rows[-1]) + 1, len(stage.queries))
    return {name: {m: np.concatenate([p[m] for p in found]) for m in found[0]} for name, found in parts.items()}


def _signals(flow: Flow, states: States) -> dict[str, np.ndarray]:
    """Dense scores of the signals that are baselines."""
    found: dict[str, np.ndarray] = {}
    for matcher in flow.matchers:
        names = {signal.name for signal in matcher.signals}
        if names & set(SIGNALS.values()):
            reading = matcher.read(states)
            if isinstance(reading, DenseReading):
                found.update(zip((s.name for s in reading.signals), reading.scores, strict=True))
    return {name: found[signal] for name, signal in SIGNALS.items() if signal in found}
