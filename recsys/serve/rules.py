"""What requests must be, beyond what their descriptors say: limits by field, and rules over more than one field.

Names are `Message.field`, without the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from recsys.types import (
    MAX_CANDIDATES,
    MAX_EVENTS_PER_WRITE,
    MAX_ID_BYTES,
    MAX_INLINE_EVENTS,
    MAX_ITEMS_PER_WRITE,
    MAX_TEXT_BYTES,
)
from recsys.v1 import ingest_service_pb2 as ingest_pb
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1 import types_pb2 as pb
from recsys.wire.values import from_item

Findings = Iterator[tuple[str, object, str]]
"""(path within the message, value, reason) of each violation."""

MAX_VALUE = 3.4e38
MAX_REQUEST_CHARS = 128 * 1024
"""Of all texts of one request: about two seconds of one core; the encoder is not interrupted once it runs."""

# A string that is not listed is an id.
MAX_BYTES: Mapping[str, int] = {
    "Item.title": MAX_TEXT_BYTES,
    "Item.description": MAX_TEXT_BYTES,
    "Item.AttributesEntry.value": MAX_TEXT_BYTES,
    "Event.event_type": 64,
    "Candidate.text": MAX_TEXT_BYTES,
    "EncodeTextsRequest.texts": MAX_TEXT_BYTES,
    "ListMemoriesRequest.query_text": MAX_TEXT_BYTES,
    "WriteEventsRequest.request_id": 128,
    "StreamEventsRequest.request_id": 128,
    "WriteItemsRequest.request_id": 128,
}

# Every repeated field of a request is listed: nothing is unbounded.
MAX_COUNT: Mapping[str, int] = {
    "Item.categories": 64,
    "Item.attributes": 64,
    "UserContext.extra_history": MAX_INLINE_EVENTS,
    "RankItemsRequest.candidates": MAX_CANDIDATES,
    "RecommendItemsRequest.exclude_item_ids": 1_000,
    "RecommendItemsRequest.categories": 64,
    "ExplainRankingRequest.item_ids": 50,
    "EncodeTextsRequest.texts": 64,
    "WriteEventsRequest.events": MAX_EVENTS_PER_WRITE,
    "StreamEventsRequest.events": MAX_EVENTS_PER_WRITE,
    "WriteItemsRequest.items": MAX_ITEMS_PER_WRITE,
}


def _candidate(message: ranking_pb.Candidate) -> Findings:
    if not (message.item_id or message.text):
        yield "item_id", "", "a candidate needs an item_id or a text"


def _surely_good(messages: Sequence[ranking_pb.Candidate]) -> bool:
    """Most requests, in a tenth of the time; the others' candidates are checked one by one."""
    ids = [message.item_id for message in messages]
    texts = [message.text for message in messages]
    return (
        all(ids)
        and max(map(len, ids), default=0) <= MAX_ID_BYTES // 4
        and max(map(len, texts), default=0) <= MAX_TEXT_BYTES // 4
        and "\0" not in "".join(ids)
        and "\0" not in "".join(texts)
    )


def _user(message: ranking_pb.UserContext) -> Findings:
    for index, event in enumerate(message.extra_history):
        if event.user_id and event.user_id != message.user_id:
            yield f"extra_history[{index}].user_id", event.user_id, "is not the user_id of the context"


def _explain(message: ranking_pb.ExplainRankingRequest) -> Findings:
    if bool(message.ranking_id) == message.HasField("user"):
        yield "ranking_id", message.ranking_id, "exactly one of ranking_id and user is needed"
    elif not message.item_ids and not message.ranking_id:
        yield "item_ids", [], "is required with user: at least one"


def _events(message: ingest_pb.WriteEventsRequest | ingest_pb.StreamEventsRequest) -> Findings:
    for index, event in enumerate(message.events[:MAX_EVENTS_PER_WRITE]):
        if not event.user_id:
            yield f"events[{index}].user_id", "", "is required"


def _event(message: pb.Event) -> Findings:
    if math.isfinite(message.value) and abs(message.value) > MAX_VALUE:
        yield "value", message.value, "does not fit a float of 32 bits"


def _item(message: pb.Item) -> Findings:
    # The same rule that data files are held to: what is accepted here must not stop a rebuild.
    size_bytes = len(from_item(message).text.encode("utf-8", "replace"))
    parts = (message.title, message.description, *message.attributes.values())
    if size_bytes > MAX_TEXT_BYTES and max(map(len, parts)) <= MAX_TEXT_BYTES:
        yield (
            "description",
            message.description,
            f"makes a text of {size_bytes} bytes, at most {MAX_TEXT_BYTES} are read",
        )


def _rank(message: ranking_pb.RankItemsRequest) -> Findings:
    yield from _all_text("candidates", [candidate.text for candidate in message.candidates])


def _encode(message: ranking_pb.EncodeTextsRequest) -> Findings:
    yield from _all_text("texts", message.texts)


def _all_text(field: str, texts: Sequence[str]) -> Findings:
    size = sum(map(len, texts))
    if size > MAX_REQUEST_CHARS:
        yield field, f"{size} characters", f"of texts in one request; at most {MAX_REQUEST_CHARS} are encoded"


def _items(message: ingest_pb.WriteItemsRequest) -> Findings:
    seen: dict[str, int] = {}
    for index, item in enumerate(message.items[:MAX_ITEMS_PER_WRITE]):
        first = seen.setdefault(item.item_id, index)
        if item.item_id and first != index:
            yield f"items[{index}].item_id", item.item_id, f"is the item_id of items[{first}] too"


SURELY_GOOD: Mapping[str, Callable[[Any], bool]] = {"RankItemsRequest.candidates": _surely_good}

RULES: Mapping[str, Callable[[Any], Findings]] = {
    "Candidate": _candidate,
    "Event": _event,
    "Item": _item,
    "RankItemsRequest": _rank,
    "EncodeTextsRequest": _encode,
    "UserContext": _user,
    "ExplainRankingRequest": _explain,
    "WriteEventsRequest": _events,
    "StreamEventsRequest": _events,
    "WriteItemsRequest": _items,
}
