"""Collective memory: for each past moment of each user a key vector, and what that user did next as its value.

A read asks an index: who was ever where this user is now, and what came next? After kNN-LM (Khandelwal et al. 2020,
"Generalization through memorization"), with state keys in place of a language model's.

Letters: B states, E moments, N items, D dimensions, k neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Int32

from recsys.index import Index
from recsys.index.faiss import FaissIndex


@dataclass(frozen=True, slots=True)
class CollectiveMemory:
    """An immutable index over keys, and the value beside each key."""

    index: Index
    following: Int32[np.ndarray, " E"]

    @classmethod
    def build(
        cls,
        keys: Float32[np.ndarray, "E D"],
        following: Int32[np.ndarray, " E"],
        build_index: Callable[[Float32[np.ndarray, "M D"]], Index] = FaissIndex.build,
    ) -> CollectiveMemory:
        """Write the moments that something followed into the index that `build_index` makes of their keys."""
        some = following >= 0
        return cls(build_index(keys[some]), following[some])

    def read(self, queries: Float32[np.ndarray, "B D"], k: int) -> tuple[np.ndarray, np.ndarray]:
        """(similarity [B, k], what followed [B, k]); -inf and -1 where there are fewer than k."""
        scores, rows = self.index.search(queries, k)
        if len(self.following) == 0:
            return scores, rows
        return scores, np.where(rows >= 0, self.following[rows], -1)

    def votes(
        self, queries: Float32[np.ndarray, "B D"], k: int, weigh: Callable[[np.ndarray], np.ndarray], *, num_items: int
    ) -> sp.csr_matrix:
        """The sum of `weigh(similarity)` over those of the k nearest moments that are like at all, by what followed."""
        scores, items = self.read(queries, k)
        good = (items >= 0) & (scores > 0)
        rows = np.repeat(np.arange(len(queries)), k).reshape(good.shape)[good]
        return sp.csr_matrix((weigh(scores[good]), (rows, items[good])), shape=(len(queries), num_items))

    def save(self, folder: Path) -> None:
        self.index.save(folder / "moments.index")
        np.save(folder / "following.npy", self.following)

    @classmethod
    def load(cls, folder: Path) -> CollectiveMemory:
        return cls(FaissIndex.load(folder / "moments.index"), np.load(folder / "following.npy", allow_pickle=False))
