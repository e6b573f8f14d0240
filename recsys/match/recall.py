"""The user's own far memory, read for each candidate: its best match, how often, how long ago.

Reads the whole life, not a window; `recall_age` tells the ranker whether the match is near or far. A candidate is
compared with what was met of the `NEAREST` items of the most similar text, itself among them: which they are is known
beforehand, so a read looks them up among the meetings and costs the same after any number of events (docs/adr/0009).

Letters: B users of a batch, N items, K candidates, C nearest items of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float32, Int32

from recsys._kernel import long_kernel
from recsys.encode.items import ItemTable
from recsys.index.faiss import FaissIndex
from recsys.match import Corpus, Signal, States
from recsys.memory.bank import ROUNDING

NEAREST = 64
BATCH = 1_024


@dataclass(frozen=True, slots=True)
class Recall:
    """The nearest items of each item and their cosines, the closest first; -1 where fewer have a positive one."""

    nearest: Int32[np.ndarray, "N C"]
    cosines: Float32[np.ndarray, "N C"]
    name: ClassVar[str] = "recall"
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("recall_best", absolute=True),
        Signal("recall_often", absolute=True),
        Signal("recall_age", absolute=True),
    )

    @classmethod
    def fit(cls, corpus: Corpus, *, nearest: int = NEAREST) -> Self:
        return cls(*_nearest(corpus.items.base, nearest))

    @property
    def floor(self) -> float:
        """A cosine that the last of an item's nearest typically has; 0 while all items are among them."""
        last = self.cosines[:, -1:]
        return float(np.median(last)) if len(self.cosines) > self.cosines.shape[1] else 0.0

    def read(self, states: States) -> RecallReading:
        return RecallReading(self, states)

    def witness(self, states: States, row: int) -> Float32[np.ndarray, " E"]:
        """Events whose text resembles the item's; a cosine under 0.3 is chance for sentence vectors."""
        past = states.items.vectors(states.histories.items)
        similarity = past @ states.items.vectors(np.array([row]))[0]
        return np.where(similarity > 0.3, np.exp(8.0 * (similarity - 1.0)), 0.0).astype(np.float32)

    def save(self, folder: Path) -> None:
        np.savez(folder / "nearest.npz", nearest=self.nearest, cosines=self.cosines)

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        with np.load(folder / "nearest.npz", allow_pickle=False) as file:
            return cls(file["nearest"], file["cosines"])


@dataclass(frozen=True, slots=True)
class RecallReading:
    """Reads lazily: it proposes nothing, and scores only the candidates asked for."""

    matcher: Recall
    states: States

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B 0"]:
        return np.full((len(allowed), 0), -1, np.int32)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        met, fitted = self.states.meetings, len(self.matcher.nearest)
        best, mass = np.zeros((2, *candidates.shape), np.float32)
        place = np.full(candidates.shape, -1, np.int32)
        slots = np.full(max(len(self.states.items), fitted), -1, np.int32)
        read = (self.matcher.nearest, self.matcher.cosines, np.ascontiguousarray(candidates))
        _recall(*read, met.indptr, met.items, met.counts, met.last, slots, best, mass, place)
        for user in range(len(candidates)):
            rows = slice(met.indptr[user], met.indptr[user + 1])
            late = candidates[user] >= fitted
            met_late = met.items[rows] >= fitted
            for asked, told in ((late, np.ones(len(met_late), bool)), (~late & (candidates[user] >= 0), met_late)):
                if asked.any() and told.any():
                    cosines = self._cosines(candidates[user, asked], met.items[rows][told])
                    found = _compared(cosines, met.counts[rows][told], met.last[rows][told])
                    told_before = (best[user, asked], mass[user, asked], place[user, asked])
                    best[user, asked], mass[user, asked], place[user, asked] = _joined(told_before, found)
        age = np.where(place >= 0, np.log1p(np.maximum(met.lengths[:, None] - 1 - place, 0)), 0.0)
        return np.stack([best, np.log1p(mass), age], axis=-1).astype(np.float32)

    def _cosines(self, asked: Int32[np.ndarray, " K"], met: Int32[np.ndarray, " M"]) -> Float32[np.ndarray, "K M"]:
        """Of items that came after the fit, whose nearest nobody knows: those that are as near as the nearest are."""
        cosines = self.states.items.vectors(asked) @ self.states.items.vectors(met).T
        return np.where(cosines >= self.matcher.floor, cosines, np.float32(0))


Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of each candidate the best cosine, the sum of cos^8 over all meetings, and the place of the best (-1: none)."""


def _compared(cosines: Float32[np.ndarray, "K M"], counts: np.ndarray, last: np.ndarray) -> Found:
    best = cosines.max(axis=1)
    close = (cosines >= best[:, None] - ROUNDING) & (best > 0)[:, None]
    return best, (cosines**8) @ counts.astype(np.float32), np.where(close, last, -1).max(axis=1)


def _joined(one: Found, other: Found) -> Found:
    """What is found among both."""
    best = np.maximum(one[0], other[0])
    places = [np.where(found[0] >= best - ROUNDING, found[2], -1) for found in (one, other)]
    return best, one[1] + other[1], np.maximum(*places)


def _nearest(items: Float32[np.ndarray, "N D"], most: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows [N, C], cosines [N, C]) of the nearest items of each, itself among them."""
    size = min(most, len(items))
    if size == 0:
        return np.zeros((len(items), 0), np.int32), np.zeros((len(items), 0), np.float32)
    index = FaissIndex.build(items)
    parts = [index.search(items[at : at + BATCH], size) for at in range(0, len(items), BATCH)]
    cosines, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
    return np.where(cosines > 0, rows, -1).astype(np.int32), np.where(cosines > 0, cosines, 0.0).astype(np.float32)


@long_kernel
def _recall(  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    nearest, cosines, candidates, starts, items, counts, last, slots, best, mass, place
):
    fitted, C = nearest.shape
    for user in range(candidates.shape[0]):
        for row in range(starts[user], starts[user + 1]):
            slots[items[row]] = row
        for at in range(candidates.shape[1]):
            item = candidates[user, at]
            if item < 0 or item >= fitted:
                continue
            for near in range(C):
                other = nearest[item, near]
                if other < 0:
                    break
                row = slots[other]
                if row >= 0:
                    cosine = cosines[item, near]
                    best[user, at] = max(best[user, at], cosine)
                    if cosine >= best[user, at] - ROUNDING:
                        place[user, at] = max(place[user, at], last[row])
                    # The eighth power by three squarings: as sharp as exp(8 (cos - 1)) near 1.
                    square = cosine * cosine
                    fourth = square * square
                    mass[user, at] += counts[row] * fourth * fourth
        for row in range(starts[user], starts[user + 1]):
            slots[items[row]] = -1
