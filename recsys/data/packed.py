"""Ids that lie in one buffer: a string is made of one where somebody looks at it, and rows are found without any.

A request brings hundreds of ids that are only looked up and sent back; as many strings cost more than ranking them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, overload

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from recsys._kernel import kernel

_NO_BYTES = np.zeros(1, np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class PackedIds(Sequence[str]):
    """Id i is data[starts[i]:starts[i] + sizes[i]], in UTF-8."""

    data: UInt8[np.ndarray, " bytes"]
    starts: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]

    @classmethod
    def of(cls, ids: Sequence[str], errors: str = "strict") -> PackedIds:
        """Any ids, packed. Raises UnicodeEncodeError for one that has no UTF-8, unless `errors` says otherwise."""
        if isinstance(ids, PackedIds):
            return ids
        encoded = [id_.encode(errors=errors) for id_ in ids]
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        data = np.frombuffer(b"".join(encoded), np.uint8)
        return cls(data if len(data) else _NO_BYTES, np.cumsum(sizes) - sizes, sizes)

    def take(self, order: Int64[np.ndarray, " m"]) -> Self:
        """The ids at the places `order`, in that order; the buffer is shared."""
        return type(self)(self.data, self.starts[order], self.sizes[order])

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> str | Self:
        if isinstance(at, slice):
            return type(self)(self.data, self.starts[at], self.sizes[at])
        start = self.starts[at]
        return self.data[start : start + self.sizes[at]].tobytes().decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list


class IdTable:
    """Rows by the bytes of ids: a hash table with open addressing, at most half full."""

    def __init__(self, ids: Sequence[str]) -> None:
        """Row i is that of ids[i]; they are all different."""
        self._ids = PackedIds.of(ids, "surrogatepass")
        self._slots = np.full(1 << max(2 * len(ids) - 1, 1).bit_length(), -1, np.int32)
        _fill(self._ids.data, self._ids.starts, self._ids.sizes, self._slots)

    def rows(self, wanted: PackedIds) -> Int32[np.ndarray, " n"]:
        """The row of each; -1 where it is unknown."""
        out = np.empty(len(wanted), np.int32)
        own = (self._ids.data, self._ids.starts, self._ids.sizes, self._slots)
        _find(*own, wanted.data, wanted.starts, wanted.sizes, out)
        return out


@kernel
def _hash(data, start, size):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    """FNV-1a, its high bits folded in, for a table looks at the low ones."""
    value = np.uint64(14695981039346656037)
    for at in range(start, start + size):
        value = (value ^ np.uint64(data[at])) * np.uint64(1099511628211)
    return value ^ value >> np.uint64(29)


@kernel
def _fill(data, starts, sizes, slots):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    for row in range(len(starts)):
        slot = _hash(data, starts[row], sizes[row]) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = row


@kernel
def _find(data, starts, sizes, slots, asked, asked_starts, asked_sizes, out):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    for place in range(len(out)):
        begin, size = asked_starts[place], asked_sizes[place]
        slot = _hash(asked, begin, size) & mask
        out[place] = -1
        while slots[slot] >= 0 and out[place] < 0:
            row = slots[slot]
            if sizes[row] == size:
                same = True
                for at in range(size):
                    same = same and data[starts[row] + at] == asked[begin + at]
                if same:
                    out[place] = row
            slot = (slot + np.uint64(1)) & mask
