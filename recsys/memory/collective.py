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
from jaxtyping import Bool, Float32, Int32

from recsys._kernel import kernel
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
    ) -> Float32[np.ndarray, "B N"]:
        """The sum of `weigh(similarity)` over those of the k nearest moments that are like at all, by what followed."""
        votes = np.zeros((len(queries), num_items), np.float32)
        if queries.any():  # nothing is like an empty past
            scores, items = self.read(queries, k)
            _add(np.ascontiguousarray(items, np.int32), scores, weigh(scores).astype(np.float32), votes)
        return votes

    def without(self, gone: Bool[np.ndarray, " E"]) -> CollectiveMemory:
        """The same keys, where the moments `gone` have no value: they are found and do not vote."""
        return CollectiveMemory(self.index, np.where(gone, np.int32(-1), self.following))

    def save(self, folder: Path) -> None:
        self.index.save(folder / "moments.index")
        np.save(folder / "following.npy", self.following)

    @classmethod
    def load(cls, folder: Path) -> CollectiveMemory:
        return cls(FaissIndex.load(folder / "moments.index"), np.load(folder / "following.npy", allow_pickle=False))


@kernel
def _add(items, scores, weights, out):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    for user in range(items.shape[0]):
        for place in range(items.shape[1]):
            if items[user, place] >= 0 and scores[user, place] > 0.0:
                out[user, items[user, place]] += weights[user, place]
