"""What is kept of a name that must not be kept: a digest under the database's own key, to compare and not to read."""

from __future__ import annotations

import hashlib

SECRET_BYTES = 32
_DIGEST_BYTES = 16


def sealed(secret: bytes, name: str) -> str:
    """32 hexadecimal digits that stand for `name` in this database alone (keyed BLAKE2b)."""
    return sealed_bytes(secret, name.encode()).hex()


def sealed_bytes(secret: bytes, data: bytes) -> bytes:
    """16 bytes that stand for `data` in this database alone."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES, key=secret).digest()
