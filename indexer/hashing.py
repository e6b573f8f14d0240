"""A hash of ids that is the same on every machine: it says where a row stands and in which shard.

FNV-1a over the UTF-8 bytes (Fowler, Noll, Vo), finished as MurmurHash3 does, for the upper bits of FNV of short ids
hardly differ. Rows are ordered by (hash, id). A shard is a range of hashes, so finished shards in order are the whole
in order, however many there are.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Int64, UInt64

from recsys._kernel import long_kernel

MAX_SHARDS = 64
"""A shard is a run of these many equal ranges of hashes."""


def hashes(ids: pl.Series) -> UInt64[np.ndarray, " n"]:
    """The hash of each id of a column of strings without nulls."""
    out = np.empty(len(ids), np.uint64)
    if len(ids):
        array = ids.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        _, offsets, text = array.buffers()
        ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        _hash(ends, np.frombuffer(text or b"", np.uint8), out)
    return out


def shards_of(hashed: UInt64[np.ndarray, " n"], num_shards: int) -> Int64[np.ndarray, " n"]:
    """The shard of each hash, rising with it."""
    return ranges_of(hashed) * num_shards // MAX_SHARDS


def ranges_of(hashed: UInt64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Which of the `MAX_SHARDS` ranges each hash lies in."""
    return (hashed >> np.uint64(58)).astype(np.int64)


@long_kernel
def _hash(ends, text, out):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    for row in range(len(out)):
        value = np.uint64(0xCBF29CE484222325)
        for at in range(ends[row], ends[row + 1]):
            value = (value ^ np.uint64(text[at])) * np.uint64(0x100000001B3)
        value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        out[row] = value ^ (value >> np.uint64(33))
