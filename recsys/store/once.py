"""Exactly once: the receipt of a write is kept beside it, in the same transaction, and given to whoever asks again.

Of the request id and the body only digests are kept (`sealed`), for either may speak of a user. They outlive the
erasure of one: a late retry of a write shall not bring back what was erased.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from recsys.errors import Conflict
from recsys.store.schema import requests
from recsys.store.sealed import sealed, sealed_bytes

KEEP_S = 24 * 3600.0
"""How long a request id is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReceipt:
    """What a write did: it is on disk and every read sees it.

    `accepted` were new, `duplicates` were there already and changed nothing. `seq` is the store's sequence after the
    write, `watermark` the time (seconds) at which it became visible.
    """

    accepted: int
    duplicates: int
    watermark: float
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An idempotency key: `digest` tells whether the same id came with the same body."""

    request_id: str
    kind: str
    digest: bytes


def recall(connection: Connection, secret: bytes, key: Key) -> WriteReceipt | None:
    """The receipt given for this key, or None; raises Conflict where the id came with another body."""
    name = sealed(secret, key.request_id)
    row = connection.execute(select(requests).where(requests.c.request_id == name)).one_or_none()
    if row is None:
        return None
    if (row.kind, row.digest) != (key.kind, sealed_bytes(secret, key.digest)):
        raise Conflict(f"request_id {key.request_id!r} was used for another write in the last 24 hours")
    return WriteReceipt(accepted=row.accepted, duplicates=row.duplicates, watermark=row.watermark, seq=row.seq)


def remember(connection: Connection, secret: bytes, key: Key, receipt: WriteReceipt) -> None:
    """Keeps the receipt from the time of its watermark on."""
    connection.execute(
        insert(requests).values(
            request_id=sealed(secret, key.request_id),
            kind=key.kind,
            digest=sealed_bytes(secret, key.digest),
            created_s=receipt.watermark,
            accepted=receipt.accepted,
            duplicates=receipt.duplicates,
            watermark=receipt.watermark,
            seq=receipt.seq,
        )
    )


def forget_expired(connection: Connection, now_s: float) -> None:
    """Drops keys older than 24 hours: an index probe where there are none."""
    connection.execute(delete(requests).where(requests.c.created_s < now_s - KEEP_S))
