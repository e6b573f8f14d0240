"""The user's own re-consumption: how often, how lately, and whether its rhythm says that it is due.

Letters: B users of a batch, N items, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float32, Int32

from recsys._kernel import kernel
from recsys.encode.items import ItemTable
from recsys.match import Corpus, Signal, States, top_rows
from recsys.memory.meetings import HALF_LIFE_EVENTS

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Repeat:
    """Knows nothing but the number of items: all it reads lies in the state."""

    num_items: int
    name: ClassVar[str] = "repeat"
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("repeat_recent", proposes=150),
        Signal("repeat_count", absolute=True),
        Signal("repeat_last", absolute=True),
        Signal("repeat_due", absolute=True),
    )

    @classmethod
    def fit(cls, corpus: Corpus) -> Self:
        return cls(len(corpus.items))

    def read(self, states: States) -> RepeatReading:
        met = states.meetings
        places = np.full((len(states), self.num_items), -1, np.int32)
        fitted = met.items < self.num_items
        places[met.users[fitted], met.items[fitted]] = np.flatnonzero(fitted)
        return RepeatReading(self, states, places)

    def save(self, folder: Path) -> None:
        np.save(folder / "num_items.npy", np.int64(self.num_items))

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        return cls(int(np.load(folder / "num_items.npy", allow_pickle=False)))


@dataclass(frozen=True, slots=True)
class RepeatReading:
    """Where in the state each item was met, -1 for nowhere; scores only the candidates asked for."""

    matcher: Repeat
    states: States
    places: Int32[np.ndarray, "B N"]

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        every = np.tile(np.arange(self.matcher.num_items, dtype=np.int32), (len(allowed), 1))
        return top_rows(self.score(every)[..., 0], self.matcher.signals[0].proposes, allowed)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        met, now = self.states.meetings, np.ascontiguousarray(self.states.now)
        out = np.zeros((*candidates.shape, len(self.matcher.signals)), np.float32)
        rows = (np.ascontiguousarray(candidates), self.places)
        _read(*rows, met.lengths, met.moments, met.last, met.decayed, met.first_s, met.last_s, now, out)
        return out

    @property
    def size_bytes(self) -> int:
        return self.places.nbytes

    def renewed(self, states: States) -> Self:
        return type(self)(self.matcher, states, self.places)


@kernel
def _read(  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    candidates, places, lengths, moments, last, decayed, first_s, last_s, now, out
):
    for user in range(candidates.shape[0]):
        for at in range(candidates.shape[1]):
            item = candidates[user, at]
            row = places[user, item] if 0 <= item < places.shape[1] else -1
            if row < 0:
                continue
            elapsed_s = max(now[user] - last_s[row], 0.0)
            out[user, at, 0] = decayed[row] * 2.0 ** ((last[row] + 1 - lengths[user]) / HALF_LIFE_EVENTS)
            out[user, at, 1] = np.log1p(np.float64(moments[row]))
            out[user, at, 2] = 1.0 / (1.0 + elapsed_s / DAY_S)
            if moments[row] > 1:
                gap_s = (last_s[row] - first_s[row]) / (moments[row] - 1)
                out[user, at, 3] = min(elapsed_s / max(gap_s, 1.0), 8.0)
