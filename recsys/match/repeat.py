"""The user's own re-consumption: how often, how lately, and whether its rhythm says that it is due.

Letters: B users of a batch, N items.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from recsys._kernel import kernel
from recsys.encode.items import ItemTable
from recsys.match import Corpus, DenseReading, Signal, States
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

    def read(self, states: States) -> DenseReading:
        met = states.meetings
        scores = np.zeros((len(self.signals), len(states), self.num_items), np.float32)
        times = (met.first_s, met.last_s, np.ascontiguousarray(states.now))
        _read(met.indptr, met.lengths, met.items, met.moments, met.last, met.decayed, *times, scores)
        return DenseReading(self.signals, scores)

    def save(self, folder: Path) -> None:
        np.save(folder / "num_items.npy", np.int64(self.num_items))

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        return cls(int(np.load(folder / "num_items.npy", allow_pickle=False)))


@kernel
def _read(  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    starts, lengths, items, moments, last, decayed, first_s, last_s, now, out
):
    for user in range(len(lengths)):
        for row in range(starts[user], starts[user + 1]):
            item = items[row]
            if item >= out.shape[2]:
                continue
            elapsed_s = max(now[user] - last_s[row], 0.0)
            out[0, user, item] = decayed[row] * 2.0 ** ((last[row] + 1 - lengths[user]) / HALF_LIFE_EVENTS)
            out[1, user, item] = np.log1p(np.float64(moments[row]))
            out[2, user, item] = 1.0 / (1.0 + elapsed_s / DAY_S)
            if moments[row] > 1:
                gap_s = (last_s[row] - first_s[row]) / (moments[row] - 1)
                out[3, user, item] = min(elapsed_s / max(gap_s, 1.0), 8.0)
