"""Places: where in a life each item lies; a known thing is found by its address, and a similar one through a hash.

Two tables. A user's own, by item: how often it was met, and the places of the first and last meeting. And one that all
users share, by vector: locality-sensitive hashing of the codes (Charikar 2002, "Similarity estimation techniques from
rounding algorithms"), `tables` times the signs of `bits` random projections. A query's buckets name the items that are
alike, and the user's own table says which of them were met:

    P(two vectors share a bucket) = 1 - (1 - (1 - angle / pi)^bits)^tables

A query that equals an item's code always finds that item. What shares no bucket with the query is not found at all:
with the defaults a cosine of .9 is found 19 times of 20, .7 every second time, and 0 once in a hundred reads.

Cost: a write of L events L log L + M; a read tables * (bucket + log M), whatever the length of the life; 20 bytes a
distinct item, so at most 20 N a user.

Letters: U users, B users of a batch, Q queries a user, N items, D dimensions, M distinct items of one user, H tables.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from recsys.data.histories import Histories
from recsys.errors import InvalidInput
from recsys.memory.bank import NOTHING_MET, Met, pack, unpack
from recsys.memory.far import Recalled, checked, joined, load_parts, nearest, save_parts, to_write, usable, weightiest

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacesConfig:
    """More `bits` make smaller buckets, more `tables` miss less; `seed` draws the projections."""

    tables: int = 12
    bits: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tables < 1:
            raise InvalidInput.of("tables", self.tables, "at least 1")
        if not 1 <= self.bits <= 30:
            raise InvalidInput.of("bits", self.bits, "between 1 and 30")


@dataclass(frozen=True, slots=True)
class _Buckets:
    """Each table's items by signature: `signatures` [H, N] ascending, `items` [H, N] beside them."""

    planes: Float32[np.ndarray, "D P"]
    signatures: Int64[np.ndarray, "H N"]
    items: Int32[np.ndarray, "H N"]

    @classmethod
    def of(cls, codes: Float32[np.ndarray, "N D"], known: np.ndarray, config: PlacesConfig) -> Self:
        rng = np.random.default_rng(config.seed)
        planes = rng.standard_normal((codes.shape[1], config.tables * config.bits)).astype(np.float32)
        rows = np.flatnonzero(known).astype(np.int32)
        signatures = _signatures(codes[rows], planes, config.tables)
        order = np.argsort(signatures, axis=1, kind="stable")
        return cls(planes, np.take_along_axis(signatures, order, axis=1), rows[order])

    def alike(self, queries: Float32[np.ndarray, "Q D"]) -> tuple[Int64[np.ndarray, " X"], Int32[np.ndarray, " X"]]:
        """(query, item) of all pairs that share a bucket, as often as they share one."""
        pairs = []
        wanted = _signatures(queries, self.planes, len(self.items))
        for signatures, items, asked in zip(self.signatures, self.items, wanted, strict=True):
            start, end = np.searchsorted(signatures, asked), np.searchsorted(signatures, asked + 1)
            query = np.repeat(np.arange(len(asked)), end - start)
            at = np.arange(len(query)) + np.repeat(start - np.cumsum(end - start) + (end - start), end - start)
            pairs.append((query, items[at]))
        query, item = (np.concatenate(part) for part in zip(*pairs, strict=True))
        return query, item


def _signatures(vectors: np.ndarray, planes: np.ndarray, tables: int) -> Int64[np.ndarray, "H N"]:
    """The sign bits of each table's projections, as one number."""
    signs = (vectors @ planes > 0.0).reshape(len(vectors), tables, planes.shape[1] // tables)
    return np.asarray((signs @ (1 << np.arange(signs.shape[2], dtype=np.int64))).T)


class Places:
    """A `FarMemory` by address: reads what a query's buckets name."""

    name: ClassVar[str] = "places"
    __slots__ = ("_buckets", "_codes", "_config", "_known", "_lives")

    def __init__(self, codes: Float32[np.ndarray, "N D"], config: PlacesConfig, lives: list[Met]) -> None:
        self._codes, self._known, self._config, self._lives = codes, usable(codes), config, lives
        self._buckets = _Buckets.of(codes, self._known, config)

    @classmethod
    def empty(cls, num_users: int, codes: Float32[np.ndarray, "N D"], config: PlacesConfig | None = None) -> Self:
        return cls(codes, config or PlacesConfig(), [NOTHING_MET] * num_users)

    def write(self, users: Int64[np.ndarray, " B"], histories: Histories) -> None:
        users, histories = to_write(users, histories, len(self._lives), self._known)
        for row, user in enumerate(users):
            # A life is a value: a reader finds the old one or the new one.
            self._lives[user] = self._lives[user].then(histories.items[histories.slice(row)])

    def read(self, users: Int64[np.ndarray, " B"], queries: Float32[np.ndarray, "B Q D"], k: int = 1) -> Recalled:
        users = checked(users, len(self._lives))
        found = [self._read(self._lives[user], queries[row], k) for row, user in enumerate(users)]
        return joined(found, self._codes.shape[1], queries.shape[1], k)

    def _read(self, met: Met, queries: Float32[np.ndarray, "Q D"], k: int) -> Recalled:
        query, item = self._buckets.alike(queries)
        at, some = _find(met, item)
        held, column = np.unique(at[some], return_inverse=True)
        shares = np.zeros((1, len(queries), len(held)), bool)
        shares[0, query[some], column] = True
        return nearest(*self._at(met, held), queries[None], k, shares)

    def entries(self, users: Int64[np.ndarray, " B"], most: int) -> Recalled:
        lives = [self._lives[user] for user in checked(users, len(self._lives))]
        every = [weightiest(*self._at(met, np.arange(len(met.items))), most) for met in lives]
        return joined(every, self._codes.shape[1], 1, most)

    def met(self, user: int, items: Int32[np.ndarray, " K"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(counts, first places, last places) of items by row, without a search; 0, -1, -1 where one was never met."""
        met = self._lives[user]
        at, some = _find(met, items)
        found = np.where(some, at, -1)
        padded = [np.append(column, blank) for column, blank in ((met.counts, 0), (met.first, -1), (met.last, -1))]
        return padded[0][found], padded[1][found], padded[2][found]

    def _at(self, met: Met, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(vectors, weight, age) of the items at places `at` of the table of a life."""
        counts = met.counts[at].astype(np.float32)
        return self._codes[met.items[at]][None], counts[None], met.ages[at][None]

    def size_bytes(self) -> Int64[np.ndarray, " U"]:
        return np.array([met.size_bytes for met in self._lives], np.int64)

    def save(self, folder: Path) -> None:
        save_parts(folder, self.name, VERSION, self._codes, asdict(self._config), pack(list(self._lives)))

    @classmethod
    def load(cls, folder: Path, codes: Float32[np.ndarray, "N D"]) -> Self:
        config, arrays = load_parts(folder, cls.name, VERSION, codes)
        return cls(codes, PlacesConfig(**config), unpack(arrays))


def _find(met: Met, items: Int32[np.ndarray, " K"]) -> tuple[Int64[np.ndarray, " K"], Bool[np.ndarray, " K"]]:
    """Where each item stands in the table of a life, and whether it does."""
    at = np.searchsorted(met.items, items)
    some = at < len(met.items)
    some[some] = met.items[at[some]] == items[some]
    return at, some
