"""RankItems read from the bytes of its message at once: five hundred candidates made one by one cost as much as ranking
them.

The usual request, whose candidates are plain ids, is read by a kernel that also sees that they are as they must be.
Whatever else it meets, an id that is too long or not ASCII, a text, a field that it does not know, makes it leave the
whole message to protobuf and to `validate`: they say what is wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys._kernel import kernel
from recsys.data.packed import PackedIds
from recsys.serve.validate import validate
from recsys.types import MAX_CANDIDATES, MAX_ID_BYTES, CandidateColumns
from recsys.v1 import ranking_service_pb2 as ranking_pb

_LENGTH, _FIXED64, _FIXED32, _VARINT = 2, 1, 5, 0
_CANDIDATES = ranking_pb.RankItemsRequest.CANDIDATES_FIELD_NUMBER << 3 | _LENGTH
_ITEM_ID = ranking_pb.Candidate.ITEM_ID_FIELD_NUMBER << 3 | _LENGTH


@dataclass(frozen=True, slots=True)
class RankQuestion:
    """A message, and its candidates as columns. `fields` holds all but the candidates, of which only the first is
    there where `data` holds all of them."""

    fields: ranking_pb.RankItemsRequest
    ids: PackedIds | None = None
    data: bytes = b""

    @property
    def message(self) -> ranking_pb.RankItemsRequest:
        """The whole message."""
        return self.fields if self.ids is None else ranking_pb.RankItemsRequest.FromString(self.data)

    @property
    def num_candidates(self) -> int:
        return len(self.fields.candidates) if self.ids is None else len(self.ids)

    def checked(self) -> CandidateColumns:
        """The candidates. Raises InvalidInput where anything in the message is not as it must be."""
        validate(self.fields)
        if self.ids is not None:
            return CandidateColumns(self.ids, [""] * len(self.ids))
        asked = self.fields.candidates
        return CandidateColumns([each.item_id for each in asked], [each.text for each in asked])


def read_question(data: bytes) -> RankQuestion:
    """The question in a RankItemsRequest. Raises DecodeError for what is none."""
    starts, sizes = np.empty((2, MAX_CANDIDATES), np.int64)
    buffer = np.frombuffer(data or b"\0", np.uint8)
    others = np.empty(len(buffer), np.uint8)
    count, size = _read(buffer, len(data), starts, sizes, others)
    if count < 1:
        return RankQuestion(ranking_pb.RankItemsRequest.FromString(data))
    ids = PackedIds(buffer, starts[:count], sizes[:count])
    return RankQuestion(ranking_pb.RankItemsRequest.FromString(others[:size].tobytes()), ids, data)


@kernel
def _number(data, at, end):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    """(a varint, where it ends); -1 for one that does not end in five bytes."""
    value, shift = np.int64(0), np.int64(0)
    while at < end and shift < 35:
        byte = np.int64(data[at])
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    return np.int64(-1), at


@kernel
def _read(data, end, starts, sizes, others):  # type: ignore[no-untyped-def]
    """(candidates, bytes of the other fields and of the first candidate); (-1, 0) for what is left to protobuf."""
    at, count, kept = np.int64(0), 0, 0
    while at < end:
        begin = at
        tag, at = _number(data, at, end)
        kind = tag & 7
        if tag < 8:
            return -1, 0
        if kind == _VARINT:
            value, at = _number(data, at, end)
            if value < 0:
                return -1, 0
        elif kind == _LENGTH:
            length, at = _number(data, at, end)
            if length < 0 or length > end - at:
                return -1, 0
            if tag == _CANDIDATES:
                inner, id_at = _number(data, at, at + length)
                size, id_at = _number(data, id_at, at + length)
                whole = inner == _ITEM_ID and id_at + size == at + length
                if not whole or size < 1 or size > MAX_ID_BYTES or count == len(starts):
                    return -1, 0
                for place in range(id_at, id_at + size):
                    if data[place] < 1 or data[place] > 127:
                        return -1, 0
                starts[count], sizes[count] = id_at, size
                count += 1
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            return -1, 0
        if at > end:
            return -1, 0
        if tag != _CANDIDATES or count == 1:
            for place in range(begin, at):
                others[kept] = data[place]
                kept += 1
    return count, kept
