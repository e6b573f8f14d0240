"""The user's own far memory, read for each candidate: its best match, how often, how long ago.

Reads the whole life, not a window; `recall_age` tells the ranker whether the match is near or far.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from recsys.encode.items import ItemTable
from recsys.match import Corpus, Signal, States
from recsys.memory.bank import read_bank


@dataclass(frozen=True, slots=True)
class Recall:
    """Has nothing to fit: item vectors and events come with the state."""

    name: ClassVar[str] = "recall"
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("recall_best", absolute=True),
        Signal("recall_often", absolute=True),
        Signal("recall_age", absolute=True),
    )

    @classmethod
    def fit(cls, corpus: Corpus) -> Self:
        return cls()

    def read(self, states: States) -> RecallReading:
        return RecallReading(states)

    def witness(self, states: States, row: int) -> Float32[np.ndarray, " E"]:
        """Events whose text resembles the item's; a cosine under 0.3 is chance for sentence vectors."""
        past = states.items.vectors(states.histories.items)
        similarity = past @ states.items.vectors(np.array([row]))[0]
        return np.where(similarity > 0.3, np.exp(8.0 * (similarity - 1.0)), 0.0).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Nothing to keep."""

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class RecallReading:
    """Reads lazily: it proposes nothing, and scores only the candidates asked for."""

    states: States

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B 0"]:
        return np.full((len(allowed), 0), -1, np.int32)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        histories, items = self.states.histories, self.states.items
        out = np.zeros((*candidates.shape, 3), np.float32)
        for user in range(len(self.states)):
            met, counts, ages = _met(histories.items[histories.slice(user)])
            read = read_bank(items.vectors(met), items.vectors(candidates[user]), counts)
            age = np.log1p(ages[read.place]) if len(met) else 0.0
            out[user] = np.stack(np.broadcast_arrays(read.best, np.log1p(read.mass), age), axis=1)
        out[candidates < 0] = 0.0
        return out


def _met(
    past: Int32[np.ndarray, " L"],
) -> tuple[Int64[np.ndarray, " M"], Float32[np.ndarray, " M"], Int64[np.ndarray, " M"]]:
    """The distinct items of a life in the order of their last meetings, how often each was met, and how long ago.

    A long life goes round things it has met: they are compared once, not at each meeting.
    """
    counts = np.bincount(past)
    last = np.zeros(len(counts), np.int64)
    last[past] = np.arange(len(past))  # of several meetings the last one stays
    items = np.flatnonzero(counts)
    items = items[np.argsort(last[items])]
    return items, counts[items].astype(np.float32), len(past) - 1 - last[items]
