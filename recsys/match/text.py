"""Texts that resemble what the user met lately; the one signal that a brand-new item has from its first second.

Cosine of sentence vectors: to the last item, and to the decayed sum of the last 20.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float32, Int32

from recsys.encode.items import ItemTable
from recsys.index import Index
from recsys.index.faiss import FaissIndex
from recsys.match import Corpus, Signal, States, top_rows
from recsys.memory.keys import latest_items

WINDOW = 20
DECAY = 0.7


@dataclass(frozen=True, slots=True)
class Text:
    """An index over item vectors; new items are scored from the state's item table."""

    index: Index
    name: ClassVar[str] = "text"
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("text_last", absolute=True, proposes=30),
        Signal("text_recent", absolute=True, proposes=40),
    )

    @classmethod
    def fit(cls, corpus: Corpus) -> Self:
        return cls(FaissIndex.build(corpus.items.base))

    def read(self, states: States) -> TextReading:
        recent = states.items.vectors(latest_items(states.histories, WINDOW))
        summed = np.einsum("bwd,w->bd", recent, np.power(DECAY, np.arange(WINDOW), dtype=np.float32))
        length = np.linalg.norm(summed, axis=1, keepdims=True)
        queries = np.stack([recent[:, 0], summed / np.maximum(length, 1e-6)], axis=1)
        return TextReading(self, states.items, queries.astype(np.float32))

    def save(self, folder: Path) -> None:
        self.index.save(folder / "texts.index")

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        return cls(FaissIndex.load(folder / "texts.index"))


@dataclass(frozen=True, slots=True)
class TextReading:
    """Two query vectors a state [B, S=2, D]."""

    matcher: Text
    items: ItemTable
    queries: Float32[np.ndarray, "B S D"]

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        found = []
        for column, signal in enumerate(self.matcher.signals):
            # Ask for twice as many: items the user may not see again are often the nearest.
            scores, rows = self.matcher.index.search(self.queries[:, column], 2 * signal.proposes)
            fit = (scores > 0) & np.take_along_axis(allowed, np.maximum(rows, 0), axis=1)
            found.append(np.where(fit & (np.cumsum(fit, axis=1) <= signal.proposes), rows, -1).astype(np.int32))
            found.append(self._late(column, signal.proposes, allowed))
        return np.concatenate(found, axis=1)

    def _late(self, column: int, k: int, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        """New items: too few for an index, proposed by their texts from their first second."""
        fitted = len(self.items.base)
        if len(self.items) == fitted:
            return np.full((len(allowed), 0), -1, np.int32)
        rows = top_rows(self.queries[:, column] @ self.items.tail.T, k, allowed[:, fitted:])
        return np.where(rows >= 0, rows + fitted, -1).astype(np.int32)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        return np.asarray(np.einsum("bkd,bsd->bks", self.items.vectors(candidates), self.queries))
