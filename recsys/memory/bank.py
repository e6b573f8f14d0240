"""Event bank: every event of a user, kept as it was; an exact read, and the judge of every smaller memory.

Letters: L events of one user, K queries, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64


@dataclass(frozen=True, slots=True)
class BankRead:
    """For each of K queries: `best` similarity, its `place` in the history (-1: none), and the `mass` of close ones."""

    best: Float32[np.ndarray, " K"]
    place: Int64[np.ndarray, " K"]
    mass: Float32[np.ndarray, " K"]


def read_bank(
    events: Float32[np.ndarray, "L D"], queries: Float32[np.ndarray, "K D"], *, sharpness: float = 8.0
) -> BankRead:
    """The closest event to each query (the latest of equals), and sum exp(sharpness (cos - 1)) over all events.

    Vectors have unit length. Cost K * L * D; recent and distant events count alike: how long ago is in `place`.
    """
    if len(events) == 0:
        nothing = np.zeros(len(queries), np.float32)
        return BankRead(nothing, np.full(len(queries), -1), nothing)
    similarity = queries @ events[::-1].T
    latest = similarity.argmax(axis=1)
    best = similarity[np.arange(len(queries)), latest]
    mass = np.exp(sharpness * (similarity - 1.0)).sum(axis=1)
    return BankRead(best.astype(np.float32), len(events) - 1 - latest, mass.astype(np.float32))
