"""Texts that resemble what the user met lately; the one signal that a brand-new item has from its first second.

Cosine of sentence vectors: to the last item, and to the decayed sum of the last 20.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np
from jaxtyping import Bool, Float32, Int32

from recsys._kernel import kernel
from recsys.encode.items import ItemTable
from recsys.index import Index
from recsys.index.faiss import FaissIndex
from recsys.match import Corpus, Signal, States, gather, top_rows
from recsys.memory.keys import latest_items

WINDOW = 20
DECAY = 0.7
_NO_TAIL = np.zeros((0, 1), np.float32)


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
        return look_up(self, self.index, states.items, queries_of(states, states.items, WINDOW, DECAY))

    def space(self, items: ItemTable) -> ItemTable:
        """The items' vectors as they are compared."""
        return items

    def save(self, folder: Path) -> None:
        self.index.save(folder / "texts.index")

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        return cls(FaissIndex.load(folder / "texts.index"))


class Compared(Protocol):
    """A matcher that compares vectors of items."""

    @property
    def signals(self) -> tuple[Signal, ...]: ...

    def space(self, items: ItemTable) -> ItemTable:
        """The same items with the vectors that are compared."""
        ...


def queries_of(states: States, items: ItemTable, window: int, decay: float) -> Float32[np.ndarray, "B S=2 D"]:
    """Of each state the vector of the last item, and the unit vector of the decayed sum of the last `window`."""
    recent = items.vectors(latest_items(states.histories, window))
    summed = np.einsum("bwd,w->bd", recent, np.power(decay, np.arange(window), dtype=np.float32))
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.stack([recent[:, 0], summed / np.maximum(length, 1e-6)], axis=1).astype(np.float32)


def look_up(matcher: Compared, index: Index, items: ItemTable, queries: Float32[np.ndarray, "B S D"]) -> TextReading:
    """What lies nearest to each query; `index` is over `items.base`."""
    # Ask for twice as many as are proposed: items the user may not see again are often the nearest.
    wanted = [2 * signal.proposes for signal in matcher.signals]
    if not queries.any():  # nothing is like an empty past
        nothing = np.zeros((len(queries), 0), np.float32)
        return TextReading(matcher, items, queries, [(nothing, nothing.astype(np.int32)) for _ in wanted])
    if index.kind != "flat" or len(queries) > 1 or len(items.base) <= max(wanted):
        pairs = zip(np.ascontiguousarray(queries.swapaxes(0, 1)), wanted, strict=True)
        return TextReading(matcher, items, queries, [index.search(query, k) for query, k in pairs])
    # Of one user both queries in one pass over the vectors: bringing them from memory is what a search costs.
    every = np.arange(len(items.base), dtype=np.int32)[None]
    out = np.empty((1, len(items.base), len(wanted)), np.float32)
    _products(items.base, _NO_TAIL, every, queries, out)
    scores = np.ascontiguousarray(out.transpose(2, 0, 1))
    return TextReading(matcher, items, queries, list(map(_best, scores, wanted)), scores)


@dataclass(frozen=True, slots=True)
class TextReading:
    """Two query vectors a state [B, S=2, D], and (scores [B, k], rows [B, k]) of what lies nearest to each.

    `scores`: of all fitted items, where the search came by them.
    """

    matcher: Compared
    items: ItemTable
    queries: Float32[np.ndarray, "B S D"]
    found: Sequence[tuple[np.ndarray, np.ndarray]]
    scores: Float32[np.ndarray, "S B N"] | None = None

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        chosen = []
        for column, (signal, (scores, rows)) in enumerate(zip(self.matcher.signals, self.found, strict=True)):
            fit = (scores > 0) & np.take_along_axis(allowed, np.maximum(rows, 0), axis=1)
            chosen.append(np.where(fit & (np.cumsum(fit, axis=1) <= signal.proposes), rows, -1).astype(np.int32))
            chosen.append(self._late(column, signal.proposes, allowed))
        return np.concatenate(chosen, axis=1)

    def _late(self, column: int, k: int, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        """New items: too few for an index, proposed by their texts from their first second."""
        fitted = len(self.items.base)
        if len(self.items) == fitted:
            return np.full((len(allowed), 0), -1, np.int32)
        rows = top_rows(self.queries[:, column] @ self.items.tail.T, k, allowed[:, fitted:])
        return np.where(rows >= 0, rows + fitted, -1).astype(np.int32)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        base = self.items.base
        if self.scores is not None and candidates.max(initial=-1) < len(base):
            return gather(self.scores, candidates)
        out = np.zeros((*candidates.shape, len(self.matcher.signals)), np.float32)
        _products(base, self.items.tail.reshape(-1, base.shape[1]), np.ascontiguousarray(candidates), self.queries, out)
        return out

    @property
    def size_bytes(self) -> int:
        dense = 0 if self.scores is None else self.scores.nbytes
        return self.queries.nbytes + dense + sum(part.nbytes for pair in self.found for part in pair)

    def renewed(self, states: States) -> Self:
        return type(self)(self.matcher, self.matcher.space(states.items), self.queries, self.found, self.scores)


def _best(scores: Float32[np.ndarray, "B N"], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest positive scores and their rows, falling; 0 and row -1 where there are fewer."""
    rows = top_rows(scores, k, np.ones(scores.shape, bool))
    best = np.where(rows >= 0, np.take_along_axis(scores, np.maximum(rows, 0), axis=1), np.float32(0))
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(rows, order, axis=1)


@kernel
def _products(base, tail, candidates, queries, out):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    """Rows are read where they lie: gathering 500 vectors costs more than multiplying them."""
    fitted, D = base.shape
    for user in range(candidates.shape[0]):
        for place in range(candidates.shape[1]):
            row = candidates[user, place]
            if row >= 0:
                vector = base[row] if row < fitted else tail[row - fitted]
                for query in range(queries.shape[1]):
                    total = np.float32(0)
                    for at in range(D):
                        total += vector[at] * queries[user, query, at]
                    out[user, place, query] = total
