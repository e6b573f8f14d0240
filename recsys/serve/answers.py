"""An answer's rows written as protobuf at once: five hundred messages made one by one cost as much as ranking them.

The wire format is that of `RankedItem`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys._kernel import kernel
from recsys.types import RankedColumns, RankedItem
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.wire import values

_MOST_BYTES = 48
"""Of a row beside its id and its fallbacks, whatever the numbers."""


def add_rows(response: ranking_pb.RankItemsResponse, rows: Sequence[RankedItem]) -> None:
    """Appends the rows of a ranking to `response.items`."""
    if isinstance(rows, RankedColumns) and not rows.parts:
        response.MergeFromString(_encoded(rows))
    else:
        response.items.extend(map(values.to_ranked, rows))


def warm_up() -> None:
    """Has what `add_rows` needs compiled before the first answer waits for it."""
    add_rows(ranking_pb.RankItemsResponse(), RankedColumns(item_ids=["a"], scores=[1.0], indices=[0]))


def _encoded(rows: RankedColumns) -> bytes:
    """`rows` as field 1 of a message, one after the other."""
    ids = [item_id.encode() for item_id in rows.item_ids]
    text = b"".join(ids)
    codes: list[int] = []
    code_counts = np.zeros(len(ids), np.int64)
    for place in sorted(rows.fallbacks):
        numbers = values.to_fallbacks(rows.fallbacks[place])
        codes += map(int, numbers)
        code_counts[place] = len(numbers)
    out = np.empty(len(text) + len(codes) + _MOST_BYTES * len(ids), np.uint8)
    size = _write(
        np.frombuffer(text or b"\0", np.uint8),
        np.array([len(each) for each in ids], np.int64),
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
def _write(ids, id_sizes, scores, indices, codes, code_counts, out):  # type: ignore[no-untyped-def]
    at, id_at, code_at = 0, 0, 0
    row = np.empty(len(out), np.uint8)
    for place in range(len(scores)):
        size = 0
        length = id_sizes[place]
        if length:
            row[size] = 1 << 3 | 2  # item_id: bytes
            size = _varint(length, row, size + 1)
            for byte in range(length):
                row[size + byte] = ids[id_at + byte]
            size += length
            id_at += length
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
