"""Page sizes and page tokens. A token is opaque: it binds a place to the arguments it was made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct

from google.protobuf.message import Message

from recsys.errors import InvalidInput

_PLACE = struct.Struct(">Q")
DIGEST_BYTES = 16


def page_size(asked: int, *, default: int, most: int) -> int:
    """0 is the default, more than the most is the most."""
    return min(asked or default, most)


def digest(request: Message) -> bytes:
    """Stands for all arguments of a request but those that differ from page to page."""
    return _hash(request, ("page_size", "page_token"))


def body_digest(request: Message) -> bytes:
    """Stands for all of a write but its request id."""
    return _hash(request, ("request_id",))


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


def _hash(request: Message, without: tuple[str, ...]) -> bytes:
    copy = type(request)()
    copy.CopyFrom(request)
    for name in without:
        copy.ClearField(name)
    body = copy.SerializeToString(deterministic=True)
    return hashlib.sha256(f"{request.DESCRIPTOR.full_name}\0".encode() + body).digest()[:DIGEST_BYTES]
