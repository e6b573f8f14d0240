"""Events, items and idempotency keys, durable: SQLite by default, PostgreSQL by URL, one Core code for both."""

from recsys.store.erasure import Erasure
from recsys.store.once import WriteReceipt
from recsys.store.store import EventStore

__all__ = ["Erasure", "EventStore", "WriteReceipt"]
