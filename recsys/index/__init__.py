"""Nearest vectors by inner product.

Letters: N vectors, B queries, D dims, k answers.

`FlatIndex` (numpy, exact) judges `FaissIndex`; one contract suite runs on both (`tests/contracts.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

import numpy as np
from jaxtyping import Float32, Int32

from recsys.errors import InvalidInput


class Index(Protocol):
    """N vectors that can be searched and never change: a new set of vectors is a new index.

    Built by `build(vectors)` and `load(path)` of each class. Safe for concurrent `search`.
    """

    @property
    def kind(self) -> str:
        """How it searches, e.g. "flat"."""
        ...

    @property
    def dimension(self) -> int: ...

    @property
    def size_bytes(self) -> int:
        """What it holds in memory, and about what `save` writes."""
        ...

    def __len__(self) -> int: ...

    def search(
        self, queries: Float32[np.ndarray, "B D"], k: int
    ) -> tuple[Float32[np.ndarray, "B k"], Int32[np.ndarray, "B k"]]:
        """(scores, rows) of the k largest inner products, falling; -inf and row -1 where there are fewer than k.

        Raises InvalidInput for k below 1, another dimension, NaN or infinity.
        """
        ...

    def save(self, path: Path) -> None:
        """Write it as one file."""
        ...

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; DamagedSnapshot where that is no such index. Verify checksums before."""
        ...


def checked_vectors(name: str, vectors: np.ndarray, dimension: int | None = None) -> Float32[np.ndarray, "N D"]:
    """`vectors` as contiguous float32, or InvalidInput naming `name`: wrong shape, NaN or infinity."""
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise InvalidInput.of(f"{name}.shape", vectors.shape, "must be rows of at least one dimension")
    if dimension is not None and vectors.shape[1] != dimension:
        raise InvalidInput.of(f"{name}.shape", vectors.shape, f"the index has {dimension} dimensions")
    out = np.ascontiguousarray(vectors, np.float32)
    bad = np.flatnonzero(~np.isfinite(out).all(1))
    if len(bad):
        raise InvalidInput.of(f"{name}[{bad[0]}]", out[bad[0]].tolist(), "holds NaN or infinity")
    return out


def checked_k(k: int) -> int:
    """`k`, or InvalidInput."""
    if k < 1:
        raise InvalidInput.of("k", k, "must be at least 1")
    return k


def padded(
    scores: Float32[np.ndarray, "B n"], rows: np.ndarray, k: int
) -> tuple[Float32[np.ndarray, "B k"], Int32[np.ndarray, "B k"]]:
    """Widen n <= k answers to k, and give every missing one (row below 0) the score -inf."""
    missing = ((0, 0), (0, k - scores.shape[1]))
    wide_rows = np.pad(rows, missing, constant_values=-1).astype(np.int32)
    wide_scores = np.pad(scores, missing, constant_values=-np.inf)
    return np.where(wide_rows < 0, np.float32(-np.inf), wide_scores), wide_rows
