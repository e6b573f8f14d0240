"""protobuf <-> `recsys.types`: the only file that knows both.

`to_*` makes a message, `from_*` a value. Times are float seconds since the epoch on our side, Timestamps on the wire.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import numpy as np
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from recsys.errors import InvalidInput
from recsys.types import Candidate, Event, Explanation, Fallback, Item, RankedItem, Remembered, User
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1 import types_pb2 as pb

if TYPE_CHECKING:
    from jaxtyping import Float32

MIN_SECONDS = -62_135_596_800  # 0001-01-01, the least a Timestamp holds
MAX_SECONDS = 253_402_300_799  # 9999-12-31
MAX_TITLE_CHARS = 200

_FALLBACK_TO_PB = {f: cast("pb.FallbackReason", pb.FallbackReason.Value(f"FALLBACK_REASON_{f.name}")) for f in Fallback}
_FALLBACK_FROM_PB: dict[int, Fallback] = {number: fallback for fallback, number in _FALLBACK_TO_PB.items()}


@contextmanager
def building(field: str, value: object) -> Iterator[None]:
    """Turns what protobuf raises for a value that does not fit (surrogates, ranges, types) into InvalidInput."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput.of(field, value, str(error)) from error


def to_time(seconds: float) -> Timestamp:
    """Exact to the nanosecond; ValueError outside the years 1 to 9999."""
    if not (math.isfinite(seconds) and MIN_SECONDS <= seconds < MAX_SECONDS + 1):
        raise ValueError(f"time must lie in the years 1 to 9999, not {seconds!r} s")
    whole = math.floor(seconds)
    nanos = round((seconds - whole) * 1e9)
    return Timestamp(seconds=whole + nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def from_time(time: Timestamp) -> float:
    return time.seconds + time.nanos / 1e9


def optional_time(message: Message, field: str) -> float | None:
    """The time in `field`, None where it is unset."""
    return from_time(getattr(message, field)) if message.HasField(field) else None


def to_item(item: Item) -> pb.Item:
    return pb.Item(
        item_id=item.item_id,
        title=item.title,
        description=item.description,
        categories=item.categories,
        attributes=item.attributes,
    )


def from_item(item: pb.Item) -> Item:
    return Item(
        item_id=item.item_id,
        title=item.title,
        description=item.description,
        categories=tuple(item.categories),
        attributes=dict(sorted(item.attributes.items())),
    )


def to_event(event: Event) -> pb.Event:
    return pb.Event(
        event_id=event.event_id,
        user_id=event.user_id,
        item_id=event.item_id,
        event_type=event.event_type,
        event_time=None if event.timestamp is None else to_time(event.timestamp),
        value=event.value,
        session_id=event.session_id,
    )


def from_event(event: pb.Event, *, received: float | None = None, user_id: str = "") -> Event:
    """`received` (seconds) and `user_id` stand in where the event has none."""
    time = optional_time(event, "event_time")
    return Event(
        event_id=event.event_id,
        user_id=event.user_id or user_id,
        item_id=event.item_id,
        event_type=event.event_type,
        timestamp=received if time is None else time,
        value=event.value if event.HasField("value") else None,
        session_id=event.session_id,
    )


def to_user(user: User) -> ranking_pb.UserContext:
    out = ranking_pb.UserContext(user_id=user.user_id, replace_history=user.replace_history)
    if user.now is not None:
        out.request_time.CopyFrom(to_time(user.now))
    for index, event in enumerate(user.events):
        with building(f"user.extra_history[{index}]", event):
            out.extra_history.append(to_event(event))
    return out


def to_candidate(candidate: Candidate) -> ranking_pb.Candidate:
    return ranking_pb.Candidate(item_id=candidate.item_id, text=candidate.text)


def from_candidate(candidate: ranking_pb.Candidate) -> Candidate:
    return Candidate(item_id=candidate.item_id, text=candidate.text)


def to_fallbacks(fallbacks: Iterable[Fallback]) -> list[pb.FallbackReason]:
    return [_FALLBACK_TO_PB[fallback] for fallback in fallbacks]


def from_fallbacks(numbers: Iterable[int]) -> tuple[Fallback, ...]:
    """Reasons of a newer server that this version does not know are left out."""
    return tuple(_FALLBACK_FROM_PB[number] for number in numbers if number in _FALLBACK_FROM_PB)


def to_ranked(row: RankedItem) -> ranking_pb.RankedItem:
    return ranking_pb.RankedItem(
        item_id=row.item_id,
        score=row.score,
        rank=row.rank,
        parts=row.parts or None,  # passing an empty map costs as much as the rest
        fallbacks=to_fallbacks(row.fallbacks) if row.fallbacks else None,
        index=row.index,
    )


def from_ranked(row: ranking_pb.RankedItem) -> RankedItem:
    return RankedItem(
        item_id=row.item_id,
        score=row.score,
        rank=row.rank,
        index=row.index,
        parts=dict(row.parts),
        fallbacks=from_fallbacks(row.fallbacks),
    )


def to_memory(memory: Remembered) -> pb.Memory:
    # Titles may be 8 KiB long and an answer holds a thousand memories: the message limit is 4 MiB.
    return pb.Memory(
        event=to_event(memory.event),
        title=memory.title[:MAX_TITLE_CHARS],
        weight=memory.weight,
        source=memory.source,
        score_change=memory.score_change,
    )


def from_memory(memory: pb.Memory) -> Remembered:
    return Remembered(
        event=from_event(memory.event),
        title=memory.title,
        weight=memory.weight,
        source=memory.source,
        score_change=memory.score_change if memory.HasField("score_change") else None,
    )


def to_explanation(explanation: Explanation) -> ranking_pb.ItemExplanation:
    return ranking_pb.ItemExplanation(
        item_id=explanation.item_id,
        score=explanation.score,
        base=explanation.base,
        feature_contributions=explanation.contributions,
        memories=map(to_memory, explanation.memories),
    )


def from_explanation(explanation: ranking_pb.ItemExplanation) -> Explanation:
    return Explanation(
        item_id=explanation.item_id,
        score=explanation.score,
        base=explanation.base,
        contributions=dict(explanation.feature_contributions),
        memories=tuple(map(from_memory, explanation.memories)),
    )


def to_vectors(vectors: Float32[np.ndarray, "n D"]) -> pb.FloatVectors:
    return pb.FloatVectors(f32_le=np.ascontiguousarray(vectors, "<f4").tobytes(), dimension=vectors.shape[1])


def from_vectors(vectors: pb.FloatVectors) -> Float32[np.ndarray, "n D"]:
    """A read-only view of the message's bytes."""
    return np.frombuffer(vectors.f32_le, "<f4").reshape(-1, max(vectors.dimension, 1))
