"""The exact index in plain numpy: slow, obvious, and the judge of the others. Equal scores come in row order."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float32, Int32

from recsys.errors import DamagedSnapshot
from recsys.index import checked_k, checked_vectors, padded

_BLOCK_SCORES = 4 * 1024**2  # scores held at once: 16 MiB, so that memory does not grow with B x N


class FlatIndex:
    """All vectors, compared with every query."""

    kind = "flat"

    def __init__(self, vectors: Float32[np.ndarray, "N D"]) -> None:
        self._vectors = vectors

    @classmethod
    def build(cls, vectors: Float32[np.ndarray, "N D"]) -> Self:
        """Copies `vectors`. Raises InvalidInput for NaN or infinity."""
        return cls(checked_vectors("vectors", vectors).copy())

    @property
    def dimension(self) -> int:
        return int(self._vectors.shape[1])

    @property
    def size_bytes(self) -> int:
        return self._vectors.nbytes

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: Float32[np.ndarray, "B D"], k: int
    ) -> tuple[Float32[np.ndarray, "B k"], Int32[np.ndarray, "B k"]]:
        """See `Index.search`."""
        queries, n = checked_vectors("queries", queries, self.dimension), min(checked_k(k), len(self))
        scores, rows = np.empty((len(queries), n), np.float32), np.empty((len(queries), n), np.int32)
        step = max(1, _BLOCK_SCORES // max(1, len(self)))
        for start in range(0, len(queries) if n else 0, step):
            for query, found in enumerate(queries[start : start + step] @ self._vectors.T, start):
                rows[query] = _best(found, n)
                scores[query] = found[rows[query]]
        return padded(scores, rows, k)

    def save(self, path: Path) -> None:
        """Write a .npy file (whatever `path` ends in)."""
        with path.open("wb") as file:
            np.save(file, self._vectors, allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """See `Index.load`."""
        try:
            vectors = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DamagedSnapshot(f"{path.name} holds no flat index: {error}") from error
        if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or vectors.ndim != 2:
            raise DamagedSnapshot(f"{path.name} holds no flat index")
        return cls(vectors)


def _best(scores: Float32[np.ndarray, " N"], n: int) -> Int32[np.ndarray, " n"]:
    """Rows of the n largest, falling; of equal ones the lower row first."""
    least = np.partition(scores, len(scores) - n)[len(scores) - n]
    rows = np.flatnonzero(scores >= least)
    return rows[np.argsort(-scores[rows], kind="stable")[:n]].astype(np.int32)
