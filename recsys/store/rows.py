"""Values to rows and back; the last door where a value that no database can keep is named and refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Row

from recsys.errors import InvalidInput, Violation, shorten
from recsys.types import MAX_ID_BYTES, Event, Item

Values = dict[str, Any]


def check_events(events: Sequence[Event], max_events: int) -> None:
    """Raises InvalidInput with every wrong field of the batch."""
    violations = list(_too_many("events", len(events), max_events))
    for index, event in enumerate(events):
        violations += _event_violations(f"events[{index}]", event)
    if violations:
        raise InvalidInput(violations)


def check_items(items: Sequence[Item], max_items: int) -> None:
    """Raises InvalidInput with every wrong field of the batch."""
    violations = list(_too_many("items", len(items), max_items))
    for index, item in enumerate(items):
        violations += _item_violations(f"items[{index}]", item)
    if violations:
        raise InvalidInput(violations)


def check_id(field: str, value: str, *, required: bool = True) -> None:
    """Raises InvalidInput unless `value` is an id: UTF-8, no NUL, at most 256 bytes."""
    if violations := list(_id_violations(field, value, required=required)):
        raise InvalidInput(violations)


def event_values(event: Event, seq: int, now_s: float) -> Values:
    """An event without a time happened when it arrived."""
    return {
        "seq": seq,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "event_type": event.event_type,
        "timestamp": now_s if event.timestamp is None else event.timestamp,
        "value": event.value,
        "event_id": event.event_id or None,
        "session_id": event.session_id,
    }


def event_of(row: Row[Any]) -> Event:
    return Event(
        user_id=row.user_id,
        item_id=row.item_id,
        event_type=row.event_type,
        timestamp=row.timestamp,
        value=row.value,
        event_id=row.event_id or "",
        session_id=row.session_id,
    )


def item_values(item: Item, seq: int) -> Values:
    return {
        "seq": seq,
        "item_id": item.item_id,
        "title": item.title,
        "description": item.description,
        "categories": list(item.categories),
        "attributes": dict(item.attributes),
    }


def item_of(row: Row[Any]) -> Item:
    return Item(
        item_id=row.item_id,
        title=row.title,
        description=row.description,
        categories=tuple(row.categories),
        attributes=row.attributes,
    )


def _event_violations(path: str, event: Event) -> Iterator[Violation]:
    yield from _id_violations(f"{path}.user_id", event.user_id)
    yield from _id_violations(f"{path}.item_id", event.item_id)
    yield from _id_violations(f"{path}.event_type", event.event_type)
    yield from _id_violations(f"{path}.event_id", event.event_id, required=False)
    yield from _id_violations(f"{path}.session_id", event.session_id, required=False)
    for name, number in (("timestamp", event.timestamp), ("value", event.value)):
        if number is not None and not math.isfinite(number):
            yield Violation(f"{path}.{name}", shorten(number), "must be finite")


def _item_violations(path: str, item: Item) -> Iterator[Violation]:
    yield from _id_violations(f"{path}.item_id", item.item_id)
    yield from _text_violations(f"{path}.title", item.title)
    yield from _text_violations(f"{path}.description", item.description)
    for index, category in enumerate(item.categories):
        yield from _text_violations(f"{path}.categories[{index}]", category)
    for name, value in item.attributes.items():
        yield from _text_violations(f"{path}.attributes", name)
        yield from _text_violations(f"{path}.attributes[{shorten(name)}]", value)


def _id_violations(path: str, value: str, *, required: bool = True) -> Iterator[Violation]:
    if required and not value:
        yield Violation(path, "''", "must not be empty")
    if len(value) > MAX_ID_BYTES or len(value.encode(errors="surrogatepass")) > MAX_ID_BYTES:
        yield Violation(path, shorten(value), f"longer than {MAX_ID_BYTES} bytes")
    yield from _text_violations(path, value)


def _text_violations(path: str, value: str) -> Iterator[Violation]:
    if "\x00" in value:
        yield Violation(path, shorten(value), "holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        yield Violation(path, shorten(value), "holds half of a surrogate pair: not UTF-8")


def _too_many(path: str, count: int, limit: int) -> Iterator[Violation]:
    if count > limit:
        yield Violation(path, f"{count} rows", f"at most {limit} in one write")
