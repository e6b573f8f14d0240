"""Erasing a user: the events go and a tombstone stays, in one transaction.

A tombstone has a number of the common sequence. What a snapshot holds of the user is gone where the snapshot knows the
store up to a lower number; what is written later has a higher one, and is a new life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, delete, insert, select

from recsys.store.once import WriteReceipt
from recsys.store.schema import erased, events

if TYPE_CHECKING:
    from recsys.store.commit import Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """Events of the store that went, and the tombstone: its number, and when it was set (seconds)."""

    num_events: int
    seq: int
    time_s: float


def drop_user(connection: Connection, now: Moment, user_id: str, key: str) -> WriteReceipt:
    """Leaves nothing of the user but the tombstone `key`; the standing one where nothing was written after it."""
    gone = connection.execute(delete(events).where(events.c.user_id == user_id)).rowcount
    stands = connection.execute(find(key)).one_or_none()
    if stands is not None and not gone:
        return WriteReceipt(accepted=stands.num_events, duplicates=0, watermark=stands.time_s, seq=stands.seq)
    connection.execute(delete(erased).where(erased.c.user_key == key))
    seq = now.seq + 1
    connection.execute(insert(erased).values(user_key=key, seq=seq, time_s=now.time_s, num_events=gone))
    return WriteReceipt(accepted=gone, duplicates=0, watermark=now.time_s, seq=seq)


def find(key: str) -> Select[Any]:
    """The tombstone of one user."""
    return select(erased).where(erased.c.user_key == key)


def erased_after(seq: int) -> Select[Any]:
    """The keys of the tombstones above `seq`."""
    return select(erased.c.user_key).where(erased.c.seq > seq)
