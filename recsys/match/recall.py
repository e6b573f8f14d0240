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
        """Of one user, what was looked up once is kept: the same items are asked for again and again."""
        shape = (len(self.nearest), len(self.signals))
        return RecallReading(self, states, _Known.nothing(shape) if len(states) == 1 else None)

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
class _Known:
    """Scores of one user by fitted item, where `told` says that they are there."""

    scores: Float32[np.ndarray, "N S"]
    told: Bool[np.ndarray, " N"]

    @classmethod
    def nothing(cls, shape: tuple[int, int]) -> Self:
        return cls(np.empty(shape, np.float32), np.zeros(shape[0], bool))

    @property
    def size_bytes(self) -> int:
        return self.scores.nbytes + self.told.nbytes


@dataclass(frozen=True, slots=True)
class RecallReading:
    """Reads lazily: it proposes nothing, and scores only the candidates asked for."""

    matcher: Recall
    states: States
    known: _Known | None = None

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B 0"]:
        return np.full((len(allowed), 0), -1, np.int32)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        known, fitted = self.known, len(self.matcher.nearest)
        # Padding would be looked up at the end of what is known.
        if known is None or candidates.max(initial=-1) >= fitted or candidates.min(initial=0) < 0:
            return self._fresh(candidates)
        rows = candidates[0]
        if len(untold := rows[~known.told[rows]]):
            known.scores[untold] = self._fresh(untold[None])[0]
            known.told[untold] = True  # last: who reads beside this looks here first
        return np.take(known.scores, candidates, axis=0)

    @property
    def size_bytes(self) -> int:
        return 0 if self.known is None else self.known.size_bytes

    def renewed(self, states: States) -> Self:
        return type(self)(self.matcher, states, self.known)

    def _fresh(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        met, fitted = self.states.meetings, len(self.matcher.nearest)
        best, mass = np.zeros((2, *candidates.shape), np.float32)
        place = np.full(candidates.shape, -1, np.int32)
        size = max(len(self.states.items), fitted)
        weight, last = np.zeros(size, np.float32), np.full(size, -1, np.int32)
        read = (self.matcher.nearest, self.matcher.cosines, np.ascontiguousarray(candidates))
        _recall(*read, met.indptr, met.items, met.counts, met.last, weight, last, best, mass, place)
        late_met = met.items >= fitted
        if candidates.max(initial=-1) >= fitted or late_met.any():
            self._add_late(candidates, late_met, best, mass, place)
        age = np.where(place >= 0, np.log1p(np.maximum(met.lengths[:, None] - 1 - place, 0)), 0.0)
        return np.stack([best, np.log1p(mass), age], axis=-1).astype(np.float32)

    def _add_late(
        self,
        candidates: Int32[np.ndarray, "B K"],
        late_met: Bool[np.ndarray, " M"],
        best: Float32[np.ndarray, "B K"],
        mass: Float32[np.ndarray, "B K"],
        place: Int32[np.ndarray, "B K"],
    ) -> None:
        """What came after the fit, candidates and meetings, is compared with all that was met."""
        met, fitted = self.states.meetings, len(self.matcher.nearest)
        for user in range(len(candidates)):
            rows = slice(met.indptr[user], met.indptr[user + 1])
            late = candidates[user] >= fitted
            every = np.ones(late_met[rows].shape, bool)
            for asked, told in ((late, every), (~late & (candidates[user] >= 0), late_met[rows])):
                if asked.any() and told.any():
                    cosines = self._cosines(candidates[user, asked], met.items[rows][told])
                    found = _compared(cosines, met.counts[rows][told], met.last[rows][told])
                    told_before = (best[user, asked], mass[user, asked], place[user, asked])
                    best[user, asked], mass[user, asked], place[user, asked] = _joined(told_before, found)

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
    nearest, cosines, candidates, starts, items, counts, last, weight, places, best, mass, place
):
    """`weight`, `places`: how often and where last each item was met; all 0 and -1, and left so."""
    fitted, C = nearest.shape
    for user in range(candidates.shape[0]):
        for row in range(starts[user], starts[user + 1]):
            weight[items[row]] = counts[row]
            places[items[row]] = last[row]
        for at in range(candidates.shape[1]):
            item = candidates[user, at]
            if item < 0 or item >= fitted:
                continue
            total = np.float32(0)
            for near in range(C):
                # The eighth power by three squarings: as sharp as exp(8 (cos - 1)) near 1. A row of -1 has cosine 0.
                cosine = cosines[item, near]
                square = cosine * cosine
                fourth = square * square
                total += weight[max(nearest[item, near], 0)] * fourth * fourth
            mass[user, at] = total
            for near in range(C):  # the closest first: the first that was met is the best
                other = nearest[item, near]
                if other < 0 or (place[user, at] >= 0 and cosines[item, near] < best[user, at] - ROUNDING):
                    break
                if places[other] >= 0:
                    best[user, at] = max(best[user, at], cosines[item, near])
                    place[user, at] = max(place[user, at], places[other])
        for row in range(starts[user], starts[user + 1]):
            weight[items[row]] = 0.0
            places[items[row]] = -1
