"""The user's own re-consumption: how often, how lately, and whether its rhythm says that it is due.

Letters: B users of a batch, N items, E events of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Float32

from recsys.encode.items import ItemTable
from recsys.match import Corpus, DenseReading, Signal, States

HALF_LIFE_EVENTS = 200.0
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
        histories = states.histories
        known = histories.items < self.num_items
        cells = histories.users[known] * self.num_items + histories.items[known]
        decayed = np.exp2(-histories.ages[known] / HALF_LIFE_EVENTS)
        order = _stable_order(cells)
        met = _meetings(cells[order], histories.times[known][order], decayed[order])
        elapsed_s = np.maximum(states.now[met.cells // max(self.num_items, 1)] - met.last_s, 0.0)
        gap_s = (met.last_s - met.first_s) / np.maximum(met.count - 1, 1)
        due = np.where(met.count > 1, np.clip(elapsed_s / np.maximum(gap_s, 1.0), 0.0, 8.0), 0.0)
        columns = (met.decayed, np.log1p(met.count), 1.0 / (1.0 + elapsed_s / DAY_S), due)
        return DenseReading(self.signals, [self._dense(len(states), met.cells, column) for column in columns])

    def _dense(self, num_states: int, cells: np.ndarray, values: np.ndarray) -> Float32[np.ndarray, "B N"]:
        out = np.zeros(num_states * self.num_items, np.float32)
        out[cells] = values
        return out.reshape(num_states, self.num_items)

    def save(self, folder: Path) -> None:
        np.save(folder / "num_items.npy", np.int64(self.num_items))

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        return cls(int(np.load(folder / "num_items.npy", allow_pickle=False)))


@dataclass(frozen=True, slots=True)
class _Meetings:
    """One row a (user, item) that met, as cell = user * N + item."""

    cells: np.ndarray
    count: np.ndarray
    first_s: np.ndarray
    last_s: np.ndarray
    decayed: np.ndarray


def _stable_order(cells: np.ndarray) -> np.ndarray:
    """The stable order of integers >= 0: NumPy sorts 16 bits in linear time, more of them fifteen times as slowly."""
    order = np.argsort((cells & 0xFFFF).astype(np.uint16), kind="stable")
    while (cells := cells >> 16).any():
        order = order[np.argsort((cells & 0xFFFF)[order].astype(np.uint16), kind="stable")]
    return order


def _meetings(cells: np.ndarray, times_s: np.ndarray, decayed: np.ndarray) -> _Meetings:
    """Group sorted cells; lines at one time (of one basket) count as one meeting: the rhythm is between times."""
    if len(cells) == 0:
        return _Meetings(cells, *(np.zeros(0) for _ in range(4)))
    fresh = np.append(True, cells[1:] != cells[:-1])
    starts = np.flatnonzero(fresh)
    ends = np.append(starts[1:], len(cells)) - 1
    distinct = fresh | np.append(True, times_s[1:] != times_s[:-1])
    count = np.add.reduceat(distinct.astype(np.int64), starts)
    return _Meetings(cells[starts], count, times_s[starts], times_s[ends], np.add.reduceat(decayed, starts))
