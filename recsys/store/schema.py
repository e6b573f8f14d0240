"""The tables. Everything written gets the next number of one sequence, so one `seq` orders events and items alike.

The state row is the sequence: a writer locks it first and moves it last, so the order of `seq` is the order of commits
and a reader that remembers `seq` never misses what committed later. Two writers never see each other half done, which
lets the rest be plain statements, the same on every dialect.

How a database comes to have these tables stands in `migrations/`; a test holds the two together.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    Index,
    Insert,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

FORMAT = 2
"""The number of the last migration; an older program refuses a newer database by it."""

# SQLite clusters a table by its INTEGER primary key: appends stay at the end, exports scan in order.
_Seq = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

state = Table(
    "longrec_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("time_s", Double, nullable=False),
    # Random, one a database: what is kept of a request or an erased user is a digest under this key.
    Column("secret", LargeBinary, nullable=False, server_default=text("''")),
)

events = Table(
    "longrec_events",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=False),
    Column("user_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("timestamp", Double, nullable=False),
    Column("value", Double),
    Column("event_id", Text),
    Column("session_id", Text, nullable=False),
    Index("longrec_events_user", "user_id", "seq"),
)
# An event id is its user's own; events without one stay out of the index.
_named = events.c.event_id.is_not(None)
Index(
    "longrec_events_event",
    events.c.user_id,
    events.c.event_id,
    unique=True,
    sqlite_where=_named,
    postgresql_where=_named,
)

items = Table(
    "longrec_items",
    metadata,
    Column("item_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("categories", JSON, nullable=False),
    Column("attributes", JSON, nullable=False),
)

requests = Table(
    "longrec_requests",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_s", Double, nullable=False, index=True),
    Column("accepted", Integer, nullable=False),
    Column("duplicates", Integer, nullable=False),
    Column("watermark", Double, nullable=False),
    Column("seq", BigInteger, nullable=False),
)

# Who was erased, under which number: what a snapshot holds of them up to there is gone. The key is no id: it can only
# be compared with that of an id somebody names.
erased = Table(
    "longrec_erased",
    metadata,
    Column("user_key", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False, index=True),
    Column("time_s", Double, nullable=False),
    Column("num_events", Integer, nullable=False),
)


def insert_new_events(dialect: str) -> Insert:
    """An insert that leaves out events whose (user_id, event_id) is there already.

    The unique index answers, not a planner: a SELECT over a batch's ids made PostgreSQL scan the whole table.
    """
    target = ["user_id", "event_id"]
    make = sqlite.insert if dialect == "sqlite" else postgresql.insert
    fresh = make(events).on_conflict_do_nothing(index_elements=target, index_where=_named)
    return fresh.execution_options(preserve_rowcount=True)
