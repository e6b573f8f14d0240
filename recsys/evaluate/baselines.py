"""Baselines on the same memory and the same questions, each ranking every item.

Popularity; popularity of the week; item-item (cosine of co-occurrence, Sarwar et al. 2001, over the whole history);
EASE, flat and with recency weights; last item's transitions; the user's own repeats where the data repeats. On demand
also every matcher alone: each signal that proposes candidates, as if it were the whole engine.

Letters: B queries of a batch, N items, T targets of all queries together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int64

from recsys.data.histories import Histories
from recsys.flow import Flow, allowed_mask, batches
from recsys.match import DenseReading, Reading, Signal, States
from recsys.match.lexical import LexicalReading
from recsys.match.text import TextReading
from recsys.match.transitions import capped_product
from recsys.memory.keys import recency_matrix
from recsys.metrics import Metrics, place_metrics
from recsys.train.examples import BATCH, Queries
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

CHUNK = 512
"""Items scored at a time by a reading that does not hold all its scores."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A batch of questions over all N items: `targets` that may be found, whose they are, and who competes with them.

    A target that is not allowed counts as missed: it is in `num_targets` only.
    """

    rivals: Bool[np.ndarray, "B N"]
    owners: Int64[np.ndarray, " T"]
    targets: Int64[np.ndarray, " T"]
    num_targets: Int64[np.ndarray, " B"]

    @classmethod
    def of(cls, queries: Queries, rows: np.ndarray, allowed: Bool[np.ndarray, "B N"]) -> Self:
        """The questions `rows` with the allowed items as candidates."""
        num_items = allowed.shape[1]
        counts = np.diff(queries.indptr)[rows]
        owners = np.repeat(np.arange(len(rows)), counts)
        targets = np.concatenate([queries.targets[queries.indptr[r] : queries.indptr[r + 1]] for r in rows])
        fitted = targets < num_items
        cells = np.unique(owners[fitted] * num_items + targets[fitted])
        cells = cells[allowed.reshape(-1)[cells]]
        rivals = allowed.copy()
        rivals.reshape(-1)[cells] = False
        return cls(rivals=rivals, owners=cells // num_items, targets=cells % num_items, num_targets=counts)

    def metrics(self, scores: Float[np.ndarray, "B N"]) -> Metrics:
        """Each metric of each question under these scores of all items."""
        return place_metrics(scores, self.rivals, self.owners, self.targets, self.num_targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """The metrics of each query of a stage, by baseline and by proposing signal (none where not asked for)."""

    baselines: dict[str, Metrics]
    signals: dict[str, Metrics]


def ask_baselines(flow: Flow, stage: Stage, include_seen: bool, progress: Progress = quiet) -> dict[str, Metrics]:
    """Each baseline's metrics of each query of the stage."""
    return ask_alone(flow, stage, include_seen, progress).baselines


def ask_alone(
    flow: Flow, stage: Stage, include_seen: bool, progress: Progress = quiet, *, every_signal: bool = False
) -> Alone:
    """The baselines and, with `every_signal`, each signal of the flow that proposes; a batch is read once for both.

    Own repeats are left out where nothing may be recommended again: they could only miss.
    """
    item_item = ItemItem.fit(stage.memory, flow.num_fitted)
    proposing = _proposing(flow, include_seen) if every_signal else ()
    named = {name: signal for name, signal in SIGNALS.items() if include_seen or name != "own_repeat"}
    wanted = {*named.values(), *proposing}
    parts: dict[str, list[Metrics]] = {}
    for rows, states in batches(stage.queries.states, BATCH):
        allowed = allowed_mask(states, include_seen=include_seen)[:, : flow.num_fitted]
        asked = Asked.of(stage.queries, rows, allowed)
        parts.setdefault("item_item", []).append(asked.metrics(item_item.score(states)))
        for name, scores in signal_scores(flow, states, wanted):
            parts.setdefault(name, []).append(asked.metrics(scores))
        progress("asking: baselines", int(rows[-1]) + 1, len(stage.queries))
    found = {name: {m: np.concatenate([p[m] for p in each]) for m in each[0]} for name, each in parts.items()}
    told = {"item_item": "item_item", **named}
    return Alone(
        baselines={name: found[signal] for name, signal in told.items() if signal in found},
        signals={name: found[name] for name in proposing},
    )


def _proposing(flow: Flow, include_seen: bool) -> tuple[str, ...]:
    names = [signal.name for signal in flow.signals if signal.proposes]
    return tuple(name for name in names if include_seen or name != SIGNALS["own_repeat"])


def signal_scores(flow: Flow, states: States, wanted: set[str]) -> Iterator[tuple[str, Float[np.ndarray, "B N"]]]:
    """(name, scores of all fitted items) of each wanted signal; each matcher is read once, and only where wanted."""
    for matcher in flow.matchers:
        signals = matcher.signals
        if wanted.isdisjoint(signal.name for signal in signals):
            continue
        columns = _columns(matcher.read(states), signals, len(states), flow.num_fitted)
        for signal, scores in zip(signals, columns, strict=False):
            if signal.name in wanted:
                yield signal.name, scores


def _columns(
    reading: Reading, signals: Sequence[Signal], num_states: int, num_items: int
) -> Iterator[Float[np.ndarray, "B N"]]:
    """Each signal over all items. Readings that hold the scores of what they propose, or can have them by one product,
    are spared the candidates' way, which gathers a vector for each candidate."""
    if isinstance(reading, DenseReading | LexicalReading):
        yield from (scores[:, :num_items] for scores in reading.scores)
    elif isinstance(reading, TextReading):
        yield from (reading.queries[:, s] @ reading.items.base[:num_items].T for s in range(len(signals)))
    else:
        every = np.broadcast_to(np.arange(num_items, dtype=np.int32), (num_states, num_items))
        chunks = [reading.score(every[:, at : at + CHUNK]) for at in range(0, num_items, CHUNK)]
        yield from (np.concatenate([chunk[..., s] for chunk in chunks], axis=1) for s in range(len(signals)))
