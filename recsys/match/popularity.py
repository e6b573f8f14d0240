"""Popularity with time decay: what everybody meets now, this month, ever.

Events are counted in bins of time; a read at time t weighs bin j by 2^(-(t - j) / half_life) over the bins that ended
before t, so it never sees the bin it stands in or later ones, whatever the matcher was fitted on. Where the data has no
absolute clock everything falls into one bin and the decayed forms equal the count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Float64, Int64

from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.match import Corpus, DenseReading, Signal, States, load_sparse

DAY_S = 86_400.0
MAX_BINS = 4_096
MAX_TOLD = 8
HALF_LIVES_S = (90 * DAY_S, 7 * DAY_S)


@dataclass(frozen=True, slots=True)
class Popularity:
    """Event counts by time bin and item: sparse [T, N]; `origin_s` is the start of bin 0, `width_s` a bin's length.

    `told`: tables of the bins asked for last; most who ask, ask today.
    """

    counts: sp.csr_matrix
    origin_s: float
    width_s: float
    told: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    name: ClassVar[str] = "popularity"
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("popularity_ever", absolute=True, proposes=20),
        Signal("popularity_season", proposes=20),
        Signal("popularity_week", proposes=40),
    )

    @classmethod
    def fit(cls, corpus: Corpus) -> Self:
        bins, origin_s, width_s = _bins(corpus.histories)
        shape = (int(bins.max(initial=0)) + 1, len(corpus.items))
        ones = np.ones(len(bins), np.float32)
        counts = sp.csr_matrix((ones, (bins, corpus.histories.items)), shape=shape)
        counts.sum_duplicates()
        return cls(counts, origin_s, width_s)

    def read(self, states: States) -> DenseReading:
        now = self._bins_before(states.now)
        if len(now) == 1:
            return DenseReading(self.signals, self._at(int(now[0])), hangs_on=int(now[0]))
        bins, which = np.unique(now, return_inverse=True)
        return DenseReading(self.signals, self._tables(bins)[:, which])

    def _at(self, bin_: int) -> Float32[np.ndarray, "S 1 N"]:
        """What everybody who asks in one bin is told."""
        told = self.told.get(bin_)
        if told is None:
            while len(self.told) >= MAX_TOLD:
                self.told.pop(next(iter(self.told), bin_), None)
            told = self.told[bin_] = self._tables(np.array([bin_]))
        return told

    def _tables(self, bins: Int64[np.ndarray, " T"]) -> Float32[np.ndarray, "S T N"]:
        ever, *decayed = self._decayed(bins, (np.inf, *HALF_LIVES_S))
        return np.stack([np.log1p(ever), *decayed])

    def _bins_before(self, now: Float64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """How many whole bins ended before each time."""
        if not np.isfinite(self.width_s):
            return np.ones(len(now), np.int64)
        passed = np.floor((np.nan_to_num(now, neginf=self.origin_s) - self.origin_s) / self.width_s)
        return np.asarray(np.clip(passed, 0, self.counts.shape[0]), np.int64)

    def _decayed(
        self, bins: Int64[np.ndarray, " T"], half_lives_s: tuple[float, ...]
    ) -> list[Float32[np.ndarray, "T N"]]:
        """The decayed counts as they stood at the start of each of `bins`, one table a half-life."""
        age_s = (bins[:, None] - 1 - np.arange(self.counts.shape[0])) * (
            self.width_s if np.isfinite(self.width_s) else 0.0
        )
        past = np.arange(self.counts.shape[0]) < bins[:, None]
        weights = [np.where(past, np.exp2(-np.maximum(age_s, 0.0) / each_s), 0.0) for each_s in half_lives_s]
        tables = np.asarray(np.concatenate(weights).astype(np.float32) @ self.counts, np.float32)
        return np.split(tables, len(half_lives_s))

    def save(self, folder: Path) -> None:
        sp.save_npz(folder / "counts.npz", self.counts, compressed=False)
        np.save(folder / "clock.npy", np.array([self.origin_s, self.width_s]))

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        origin_s, width_s = np.load(folder / "clock.npy", allow_pickle=False)
        return cls(load_sparse(folder / "counts.npz"), float(origin_s), float(width_s))


def _bins(histories: Histories) -> tuple[Int64[np.ndarray, " E"], float, float]:
    if histories.clock != "timestamp" or histories.num_events == 0:
        return np.zeros(histories.num_events, np.int64), 0.0, np.inf
    origin_s, last_s = float(histories.times.min()), float(histories.times.max())
    # A bin is a day whatever stray date of long ago the data holds; what is older than all bins falls into the first.
    origin_s = max(origin_s, last_s - (MAX_BINS - 1) * DAY_S)
    return np.floor(np.maximum(histories.times - origin_s, 0.0) / DAY_S).astype(np.int64), origin_s, DAY_S
