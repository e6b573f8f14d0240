"""Event bank: every event of a user, kept as it was; an exact read, and the judge of every smaller memory.

`read_bank` reads vectors it is given. `Bank` keeps them, as a `recsys.memory.far.FarMemory`: a life goes round things
it has met, so each distinct item is kept once, with how often and when last, and answers exactly as its events would.

Letters: L events of one user, K queries, D dimensions; U users, B users of a batch, Q queries a user, N items,
M distinct items of one user.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Float32, Int32, Int64

from recsys.data.histories import Histories
from recsys.memory.far import Recalled, checked, joined, load_parts, nearest, save_parts, to_write, usable, weightiest

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


VERSION = 1


@dataclass(frozen=True, slots=True)
class Met:
    """The distinct items of one life by row: how often each was met, and the places of the first and last meeting."""

    items: Int32[np.ndarray, " M"]
    counts: Int64[np.ndarray, " M"]
    first: Int32[np.ndarray, " M"]
    last: Int32[np.ndarray, " M"]
    num_events: int

    @classmethod
    def of(cls, events: Int32[np.ndarray, " L"], start: int = 0) -> Self:
        """A life, or the part of one that begins at place `start`."""
        items, first, counts = np.unique(events, return_index=True, return_counts=True)
        last = len(events) - 1 - np.unique(events[::-1], return_index=True)[1]
        places = np.stack([first, last]).astype(np.int32) + np.int32(start)
        return cls(items.astype(np.int32), counts.astype(np.int64), places[0], places[1], len(events))

    def then(self, events: Int32[np.ndarray, " L"]) -> Met:
        """This life after some more events: costs L log L and one pass over M."""
        new = Met.of(events, self.num_events)
        items, at = np.unique(np.concatenate([self.items, new.items]), return_inverse=True)
        old, fresh = at[: len(self.items)], at[len(self.items) :]
        counts = np.zeros(len(items), np.int64)
        counts[old] = self.counts
        counts[fresh] += new.counts
        first, last = np.empty((2, len(items)), np.int32)
        first[fresh], last[old] = new.first, self.last  # an older first and a newer last stay
        first[old], last[fresh] = self.first, new.last
        return Met(items, counts, first, last, self.num_events + new.num_events)

    @property
    def ages(self) -> Float32[np.ndarray, " M"]:
        """Events since the last meeting of each."""
        return (self.num_events - 1 - self.last).astype(np.float32)

    @property
    def size_bytes(self) -> int:
        return sum(part.nbytes for part in (self.items, self.counts, self.first, self.last))


NOTHING_MET = Met.of(np.zeros(0, np.int32))


def pack(lives: list[Met]) -> dict[str, np.ndarray]:
    """Lives one after the other, as columns to be saved."""
    columns = {name: [getattr(met, name) for met in lives] for name in ("items", "counts", "first", "last")}
    empty = {name: getattr(NOTHING_MET, name) for name in columns}
    packed = {name: np.concatenate([empty[name], *parts]) for name, parts in columns.items()}
    lengths = np.array([len(met.items) for met in lives], np.int64)
    return packed | {"lengths": lengths, "num_events": np.array([met.num_events for met in lives], np.int64)}


def unpack(arrays: dict[str, np.ndarray]) -> list[Met]:
    """The lives that `pack` packed."""
    cuts = np.cumsum(arrays["lengths"])[:-1]
    columns = [np.split(arrays[name], cuts) for name in ("items", "counts", "first", "last")]
    lives = zip(*columns, map(int, arrays["num_events"]), strict=len(arrays["lengths"]) > 0)
    return [Met(*life) for life in lives]


class Bank:
    """A `FarMemory` that forgets nothing: the judge of the others. It has nothing to configure.

    Cost: a write of L events L log L + M, a read M D a query; 20 bytes a distinct item.
    """

    name: ClassVar[str] = "bank"
    __slots__ = ("_codes", "_known", "_lives")

    def __init__(self, codes: Float32[np.ndarray, "N D"], lives: list[Met]) -> None:
        self._codes, self._known, self._lives = codes, usable(codes), lives

    @classmethod
    def empty(cls, num_users: int, codes: Float32[np.ndarray, "N D"], config: None = None) -> Self:
        return cls(codes, [NOTHING_MET] * num_users)

    def write(self, users: Int64[np.ndarray, " B"], histories: Histories) -> None:
        users, histories = to_write(users, histories, len(self._lives), self._known)
        for row, user in enumerate(users):
            # A life is a value: a reader finds the old one or the new one.
            self._lives[user] = self._lives[user].then(histories.items[histories.slice(row)])

    def read(self, users: Int64[np.ndarray, " B"], queries: Float32[np.ndarray, "B Q D"], k: int = 1) -> Recalled:
        users = checked(users, len(self._lives))
        found = [nearest(*self._now(user), queries[row : row + 1], k) for row, user in enumerate(users)]
        return joined(found, self._codes.shape[1], queries.shape[1], k)

    def entries(self, users: Int64[np.ndarray, " B"], most: int) -> Recalled:
        users = checked(users, len(self._lives))
        return joined([weightiest(*self._now(user), most) for user in users], self._codes.shape[1], 1, most)

    def _now(self, user: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(vectors, weight, age) of what one user met, the latest first."""
        met = self._lives[user]
        order = np.argsort(-met.last)
        counts = met.counts[order].astype(np.float32)
        return self._codes[met.items[order]][None], counts[None], met.ages[order][None]

    def size_bytes(self) -> Int64[np.ndarray, " U"]:
        return np.array([met.size_bytes for met in self._lives], np.int64)

    def save(self, folder: Path) -> None:
        save_parts(folder, self.name, VERSION, self._codes, {}, pack(list(self._lives)))

    @classmethod
    def load(cls, folder: Path, codes: Float32[np.ndarray, "N D"]) -> Self:
        return cls(codes, unpack(load_parts(folder, cls.name, VERSION, codes)[1]))
