"""What a request must be, checked before any work: all that is wrong with it comes in one InvalidInput.

The rules come from the descriptors (REQUIRED, types) and from `rules`. What holds for every request: no string is
longer than its limit or holds a NUL, elements of a list are not empty, integers are counts and so not negative, floats
are finite, times are valid and at most a day ahead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from recsys.errors import InvalidInput, Violation, shorten
from recsys.serve.rules import MAX_BYTES, MAX_COUNT, RULES, SURELY_GOOD, Findings
from recsys.types import MAX_ID_BYTES
from recsys.wire.values import MAX_SECONDS, MIN_SECONDS

MAX_AHEAD_S = 86_400.0
MAX_VIOLATIONS = 100


def validate(request: Message) -> None:
    """Raises InvalidInput with up to `MAX_VIOLATIONS` violations."""
    found = _Found(latest=time.time() + MAX_AHEAD_S)
    _inspect(_plan(request.DESCRIPTOR), request, "", found)
    if found.violations:
        raise InvalidInput(found.violations)


@dataclass
class _Found:
    latest: float
    violations: list[Violation] = field(default_factory=list)

    def add(self, path: str, value: object, reason: str) -> None:
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(Violation(path, shorten(value), reason))


_Check = Callable[[Any, str, _Found], None]  # (value, its path, where violations go)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to check one kind of message: made once from its descriptor. Names are kept: asking a descriptor is slow."""

    required: Mapping[FieldDescriptor, str]
    checks: Mapping[FieldDescriptor, tuple[str, _Check]]
    rule: Callable[[Any], Findings] | None


@cache
def _plan(descriptor: Descriptor) -> _Plan:
    return _Plan(
        required={f: f.name for f in descriptor.fields if field_behavior_pb2.REQUIRED in _behaviours(f)},
        checks={f: (f.name, _list_check(f) if f.is_repeated else _value_check(f)) for f in descriptor.fields},
        rule=RULES.get(descriptor.name),
    )


def _inspect(plan: _Plan, message: Message, path: str, found: _Found) -> None:
    prefix = f"{path}." if path else ""
    present = message.ListFields()
    for each, value in present:
        name, check = plan.checks[each]
        check(value, prefix + name, found)
    if plan.required:
        for each in plan.required.keys() - {each for each, _ in present}:
            found.add(prefix + plan.required[each], _nothing(each), "is required")
    if plan.rule:
        for where, value, reason in plan.rule(message):
            found.add(prefix + where, value, reason)


def _nothing(each: FieldDescriptor) -> object:
    if each.is_repeated:
        return []
    return "" if each.type == FieldDescriptor.TYPE_STRING else None


def _list_check(each: FieldDescriptor) -> _Check:
    if each.message_type is not None and each.message_type.GetOptions().map_entry:
        return _map_check(each.message_type, MAX_COUNT[_key(each)])
    max_count, value_check = MAX_COUNT[_key(each)], _value_check(each)
    is_text = each.type == FieldDescriptor.TYPE_STRING
    surely_good = SURELY_GOOD.get(_key(each), lambda _: False)

    def check(values: Sequence[Any], path: str, found: _Found) -> None:
        if not _few(values, max_count, path, found):
            return
        if surely_good(values):
            return
        for index, value in enumerate(values):
            if is_text and not value:
                found.add(f"{path}[{index}]", value, "must not be empty")
            value_check(value, f"{path}[{index}]", found)

    return check


def _few(values: Sized, max_count: int, path: str, found: _Found) -> bool:
    """Too long a list is one violation: its elements are not looked at."""
    if len(values) <= max_count:
        return True
    found.add(path, f"{len(values)} elements", f"at most {max_count} are allowed")
    return False


def _value_check(each: FieldDescriptor) -> _Check:
    if each.message_type is not None:
        is_time = each.message_type.full_name == Timestamp.DESCRIPTOR.full_name
        return _time_check if is_time else partial(_inspect, _plan(each.message_type))
    if each.type == FieldDescriptor.TYPE_STRING:
        return _text_check(MAX_BYTES.get(_key(each), MAX_ID_BYTES))
    return _VALUE_CHECKS[each.type]


def _text_check(max_bytes: int) -> _Check:
    sure = max_bytes // 4  # no character takes more than four bytes

    def check(value: str, path: str, found: _Found) -> None:
        if len(value) > sure and len(value.encode()) > max_bytes:
            found.add(path, value, f"is {len(value.encode())} bytes long, at most {max_bytes} are allowed")
        if "\0" in value:
            found.add(path, value, "must not contain NUL")

    return check


def _map_check(entry: Descriptor, max_count: int) -> _Check:
    key_check, value_check = (_value_check(entry.fields_by_name[name]) for name in ("key", "value"))

    def check(values: Mapping[str, str], path: str, found: _Found) -> None:
        for key, value in values.items() if _few(values, max_count, path, found) else ():
            if not key:
                found.add(path, key, "names must not be empty")
            key_check(key, f"{path} (name)", found)
            value_check(value, f"{path}[{shorten(key)}]", found)

    return check


def _time_check(value: Timestamp, path: str, found: _Found) -> None:
    if not (MIN_SECONDS <= value.seconds <= MAX_SECONDS and 0 <= value.nanos < 1_000_000_000):
        found.add(path, f"{value.seconds} s, {value.nanos} ns", "is not a time of the years 1 to 9999")
    elif value.seconds > found.latest:
        found.add(path, value.ToJsonString(), "lies more than a day in the future")


def _count_check(value: int, path: str, found: _Found) -> None:
    if value < 0:
        found.add(path, value, "must not be negative")


def _float_check(value: float, path: str, found: _Found) -> None:
    if not math.isfinite(value):
        found.add(path, value, "must be finite")


def _no_check(value: object, path: str, found: _Found) -> None:
    """Any value will do."""


_VALUE_CHECKS: Mapping[int, _Check] = {
    FieldDescriptor.TYPE_INT32: _count_check,
    FieldDescriptor.TYPE_DOUBLE: _float_check,
    FieldDescriptor.TYPE_BOOL: _no_check,
}


def _key(each: FieldDescriptor) -> str:
    return each.full_name.removeprefix("recsys.v1.")


def _behaviours(each: FieldDescriptor) -> list[int]:
    return list(each.GetOptions().Extensions[field_behavior_pb2.field_behavior])
