"""Item codes: the main directions of all texts, few dimensions of unit length, fixed for the life of a snapshot.

Far memories are written in them and the history encoder reads texts through them. They are a linear map, so that an
item which comes tomorrow has its code from its text alone, in the same space.

Letters: N items, C dimensions of text vectors, D of codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float32


@dataclass(frozen=True, slots=True)
class ItemCodes:
    """`mean` [C] of all texts, and their leading principal `directions` [C, D]."""

    mean: Float32[np.ndarray, " C"]
    directions: Float32[np.ndarray, "C D"]

    @property
    def width(self) -> int:
        return int(self.directions.shape[1])

    @classmethod
    def fit(cls, vectors: Float32[np.ndarray, "N C"], width: int) -> Self:
        """The `width` directions in which the texts differ most (fewer where texts have fewer dimensions)."""
        told = vectors[np.asarray(vectors.any(axis=1))].astype(np.float64)
        mean = told.mean(axis=0) if len(told) else np.zeros(vectors.shape[1])
        centred = told - mean
        _, directions = np.linalg.eigh(centred.T @ centred)
        return cls(mean.astype(np.float32), np.ascontiguousarray(directions[:, ::-1][:, :width], dtype=np.float32))

    def of(self, vectors: Float32[np.ndarray, "n C"]) -> Float32[np.ndarray, "n D"]:
        """Codes of unit length; zero for items without a text."""
        codes = (vectors - self.mean) @ self.directions
        codes /= np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), 1e-9)
        return np.where(np.asarray(vectors.any(axis=1))[:, None], codes, 0.0).astype(np.float32)

    def save(self, path: Path) -> None:
        """Both arrays as one .npz file."""
        np.savez(path, mean=self.mean, directions=self.directions)

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["mean"], file["directions"])
