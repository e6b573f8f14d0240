"""Event bank: every event of a user, kept as it was; an exact read, and the judge of every smaller memory.

Letters: L events of one user, K queries, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

ROUNDING = 1e-5
"""Cosines of float32 vectors that differ by less are taken for equal."""

BLOCK = 256
"""Queries at a time: bounds what a read holds at 1 KiB an event, and keeps it in the cache for some thousand events."""


@dataclass(frozen=True, slots=True)
class BankRead:
    """For each of K queries: `best` similarity, its `place` in the history (-1: none), and the `mass` of close ones."""

    best: Float32[np.ndarray, " K"]
    place: Int64[np.ndarray, " K"]
    mass: Float32[np.ndarray, " K"]


def read_bank(
    events: Float32[np.ndarray, "L D"],
    queries: Float32[np.ndarray, "K D"],
    counts: Float32[np.ndarray, " L"] | None = None,
) -> BankRead:
    """The closest event to each query (the latest of those equal to rounding), and the sum of cos^8 over all events.

    Vectors have unit length. An event that stands for several counts as `counts` says, once by default. Cost K * L * D;
    recent and distant events count alike: how long ago is in `place`.
    """
    if len(events) == 0 or len(queries) == 0:
        nothing = np.zeros(len(queries), np.float32)
        return BankRead(nothing, np.full(len(queries), -1), nothing)
    counts = np.ones(len(events), np.float32) if counts is None else counts
    latest_first, counts = np.ascontiguousarray(events[::-1]), np.ascontiguousarray(counts[::-1])
    reads = [_read(latest_first, counts, queries[at : at + BLOCK]) for at in range(0, len(queries), BLOCK)]
    best, latest, mass = (np.concatenate(part) for part in zip(*reads, strict=True))
    return BankRead(best, len(events) - 1 - latest, mass)


def _read(
    events: Float32[np.ndarray, "L D"], counts: Float32[np.ndarray, " L"], queries: Float32[np.ndarray, "K D"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(best, place, mass) of each query, over events latest first."""
    similarity = queries @ events.T
    best = similarity.max(axis=1)
    # Equal vectors' products may differ in the last bit by where they stand in the matrix; `place` must not.
    latest = (similarity >= best[:, None] - ROUNDING).argmax(axis=1)
    # The eighth power by three squarings: as sharp as exp(8 (cos - 1)) near 1, at a fifth of its cost.
    close = np.maximum(similarity, 0.0)
    for _ in range(3):
        np.square(close, out=close)
    return best, latest, close @ counts
