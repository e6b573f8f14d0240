"""An answer's rows written as protobuf at once: five hundred messages made one by one cost as much as ranking them.

The wire format is that of `RankedItem`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys._kernel import kernel
from recsys.data.packed import PackedIds
from recsys.types import RankedColumns, RankedItem
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.wire import values

_MOST_BYTES = 48
"""Of a row beside its id and its fallbacks, whatever the numbers."""


@dataclass(frozen=True, slots=True)
class RankAnswer:
    """A response without its rows, and the rows; they meet where it is written."""

    fields: ranking_pb.RankItemsResponse
    rows: Sequence[RankedItem]

    @property
    def fallbacks(self) -> Sequence[int]:
        return self.fields.fallbacks

    def to_bytes(self) -> bytes:
        """The wire format; a message is the fields of its parts one after the other."""
        if isinstance(self.rows, RankedColumns) and not self.rows.parts:
            return self.fields.SerializeToString() + _encoded(self.rows)
        whole = ranking_pb.RankItemsResponse(items=map(values.to_ranked, self.rows))
        whole.MergeFrom(self.fields)
        return whole.SerializeToString()


def warm_up() -> None:
    """Has what `to_bytes` needs compiled before the first answer waits for it."""
    rows = RankedColumns(item_ids=PackedIds.of(["a"]), scores=[1.0], indices=[0])
    RankAnswer(ranking_pb.RankItemsResponse(), rows).to_bytes()


def _encoded(rows: RankedColumns) -> bytes:
    """`rows` as field 1 of a message, one after the other."""
    ids = PackedIds.of(rows.item_ids)
    codes: list[int] = []
    code_counts = np.zeros(len(ids), np.int64)
    for place in sorted(rows.fallbacks):
        numbers = values.to_fallbacks(rows.fallbacks[place])
        codes += map(int, numbers)
        code_counts[place] = len(numbers)
    out = np.empty(int(ids.sizes.sum()) + len(codes) + _MOST_BYTES * len(ids), np.uint8)
    size = _write(
        ids.data,
        ids.starts,
        ids.sizes,
        np.array(rows.scores, np.float32).view(np.uint32),
        np.array(rows.indices, np.int64),
        np.array(codes, np.uint8),
        code_counts,
        out,
    )
    return out[:size].tobytes()


@kernel
def _varint(value, out, at):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    value = np.uint64(value)
    while value > np.uint64(127):
        out[at] = np.uint8(value & np.uint64(127) | np.uint64(128))
        value >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@kernel
def _write(ids, id_starts, id_sizes, scores, indices, codes, code_counts, out):  # type: ignore[no-untyped-def]
    at, code_at = 0, 0
    row = np.empty(len(out), np.uint8)
    for place in range(len(scores)):
        size = 0
        length = id_sizes[place]
        if length:
            row[size] = 1 << 3 | 2  # item_id: bytes
            size = _varint(length, row, size + 1)
            for byte in range(length):
                row[size + byte] = ids[id_starts[place] + byte]
            size += length
        if scores[place]:
            row[size] = 2 << 3 | 5  # score: four bytes, the lowest first
            for byte in range(4):
                row[size + 1 + byte] = np.uint8(scores[place] >> np.uint32(8 * byte) & np.uint32(255))
            size += 5
        row[size] = 3 << 3  # rank: a number
        size = _varint(place + 1, row, size + 1)
        length = code_counts[place]
        if length:
            row[size] = 5 << 3 | 2  # fallbacks: numbers below 128 in a row
            size = _varint(length, row, size + 1)
            for byte in range(length):
                row[size + byte] = codes[code_at + byte]
            size += length
            code_at += length
        if indices[place]:
            row[size] = 6 << 3  # index: a number
            size = _varint(indices[place], row, size + 1)
        out[at] = 1 << 3 | 2  # RankItemsResponse.items
        at = _varint(size, out, at + 1)
        for byte in range(size):
            out[at + byte] = row[byte]
        at += size
    return at
