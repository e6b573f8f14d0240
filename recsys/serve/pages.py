"""Page sizes and page tokens. A token is opaque: it binds a place to the arguments it was made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import struct

from google.protobuf.message import Message

from recsys.errors import InvalidInput

_PLACE = struct.Struct(">Q")
_CURSOR = struct.Struct(">dq")

Cursor = tuple[float, int]
"""A time in seconds, and a number that orders what is of one time."""

DIGEST_BYTES = 16


def page_size(asked: int, *, default: int, most: int) -> int:
    """0 is the default, more than the most is the most."""
    return min(asked or default, most)


def digest(request: Message) -> bytes:
    """Stands for all arguments of a request but those that differ from page to page."""
    return _hash(request, ("page_size", "page_token"), type(request))


def body_digest(request: Message, kind: type[Message] | None = None) -> bytes:
    """Stands for all of a write but its request id; taken for one of `kind`, where that has the same fields."""
    return _hash(request, ("request_id",), kind or type(request))


def to_token(key: bytes, place: int) -> str:
    return base64.urlsafe_b64encode(_PLACE.pack(place) + key).decode()


def from_token(token: str) -> tuple[bytes, int]:
    """(key, place); raises InvalidInput for what `to_token` never made."""
    try:
        data = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        return data[_PLACE.size :], _PLACE.unpack_from(data)[0]
    except (binascii.Error, struct.error) as error:
        raise bad_token(token, "is not a page token") from error


def bad_token(token: str, reason: str) -> InvalidInput:
    return InvalidInput.of("page_token", token, reason)


def place_in(token: str, key: bytes) -> int | None:
    """The place of a token made for the arguments that `key` stands for; None without a token."""
    if not token:
        return None
    found, place = from_token(token)
    if found != key:
        raise bad_token(token, "was made for other arguments")
    return place


def to_cursor(key: bytes, cursor: Cursor) -> str:
    """A token for a list that is ordered by `Cursor`: what is written between two pages shifts nothing."""
    return base64.urlsafe_b64encode(_CURSOR.pack(*cursor) + key).decode()


def cursor_in(token: str, key: bytes) -> Cursor | None:
    """The cursor of a token made for the arguments that `key` stands for; None without a token."""
    if not token:
        return None
    try:
        data = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        time_s, number = _CURSOR.unpack_from(data)
    except (binascii.Error, struct.error) as error:
        raise bad_token(token, "is not a page token") from error
    if data[_CURSOR.size :] != key or math.isnan(time_s):
        raise bad_token(token, "was made for other arguments")
    return time_s, number


def _hash(request: Message, without: tuple[str, ...], kind: type[Message]) -> bytes:
    copy = type(request)()
    copy.CopyFrom(request)
    for name in without:
        copy.ClearField(name)
    body = copy.SerializeToString(deterministic=True)
    return hashlib.sha256(f"{kind.DESCRIPTOR.full_name}\0".encode() + body).digest()[:DIGEST_BYTES]
