"""Migrations: an old database comes along whole, a newer one is refused, and the steps end at the code's tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from recsys.errors import Conflict, StoreError
from recsys.store import EventStore
from recsys.store import engine as store_engine
from recsys.store.migrate import VERSION_TABLE
from recsys.store.schema import FORMAT, metadata
from recsys.types import Event, Item

EVENT = Event(user_id="ann", item_id="lamp", timestamp=1.5, value=2.5, event_id="e1", session_id="s")
LAMP = Item(item_id="lamp", title="Lamp", categories=("a",), attributes={"k": "v"})

# What the first version of the store made, word for word but for the types that the dialects call differently.
FIRST = """
CREATE TABLE longrec_state (id INTEGER NOT NULL PRIMARY KEY, format INTEGER NOT NULL, seq BIGINT NOT NULL,
    time_s {double} NOT NULL);
CREATE TABLE longrec_events (seq {seq} NOT NULL PRIMARY KEY, user_id TEXT NOT NULL, item_id TEXT NOT NULL,
    event_type TEXT NOT NULL, timestamp {double} NOT NULL, value {double}, event_id TEXT, session_id TEXT NOT NULL);
CREATE INDEX longrec_events_user ON longrec_events (user_id, seq);
CREATE UNIQUE INDEX longrec_events_event ON longrec_events (user_id, event_id) WHERE event_id IS NOT NULL;
CREATE TABLE longrec_items (item_id TEXT NOT NULL PRIMARY KEY, seq BIGINT NOT NULL UNIQUE, title TEXT NOT NULL,
    description TEXT NOT NULL, categories JSON NOT NULL, attributes JSON NOT NULL);
CREATE TABLE longrec_requests (request_id TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, digest {bytes} NOT NULL,
    created_s {double} NOT NULL, accepted INTEGER NOT NULL, duplicates INTEGER NOT NULL, watermark {double} NOT NULL,
    seq BIGINT NOT NULL);
CREATE INDEX ix_longrec_requests_created_s ON longrec_requests (created_s);
INSERT INTO longrec_state VALUES (1, 1, 2, 100.0);
INSERT INTO longrec_events VALUES (1, 'ann', 'lamp', 'view', 1.5, 2.5, 'e1', 's');
INSERT INTO longrec_items VALUES ('lamp', 2, 'Lamp', '', '["a"]', '{{"k": "v"}}');
INSERT INTO longrec_requests VALUES ('r1', 'events', {digest}, 99.0, 1, 0, 99.0, 1)
"""
TYPES = {
    "sqlite": {"double": "DOUBLE", "seq": "INTEGER", "bytes": "BLOB", "digest": "x'0102'"},
    "postgresql": {"double": "DOUBLE PRECISION", "seq": "BIGINT", "bytes": "BYTEA", "digest": r"'\x0102'"},
}


@pytest.fixture
def plain(where: str, tmp_path) -> Iterator[sa.Engine]:
    """The empty database itself."""
    (tmp_path / "new").mkdir()
    engine = sa.create_engine(store_engine.parse(where))
    yield engine
    engine.dispose()


def tables_of(plain: sa.Engine) -> list[object]:
    """How the database differs from the tables of the code."""
    with plain.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_server_default": False}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def version(plain: sa.Engine) -> str:
    with plain.connect() as connection:
        return str(connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar_one())


def make_first(plain: sa.Engine) -> None:
    with plain.begin() as connection:
        for statement in FIRST.format(**TYPES[plain.dialect.name]).split(";"):
            connection.exec_driver_sql(statement)


def test_a_new_database_gets_the_tables_of_the_code(where: str, plain: sa.Engine) -> None:
    EventStore.open(where).close()
    assert tables_of(plain) == []
    assert version(plain) == f"{FORMAT:04d}"
    EventStore.open(where).close()


def test_the_first_format_comes_along_without_loss(where: str, plain: sa.Engine) -> None:
    make_first(plain)
    with EventStore.open(where, clock=lambda: 200.0) as store:
        assert store.user_events("ann") == [EVENT]
        assert store.items() == [LAMP]
        assert (store.seq, store.watermark) == (2, 100.0)
        # A retry of a write made before is still answered, and writes nothing.
        assert store.write_events([EVENT], request_id="r1", digest=b"\x01\x02").watermark == 99.0
        with pytest.raises(Conflict):
            store.write_events([EVENT], request_id="r1", digest=b"\x03")
        assert store.write_events([EVENT]).duplicates == 1
        assert store.delete_user("ann").num_events == 1
    assert tables_of(plain) == []
    assert version(plain) == f"{FORMAT:04d}"


def test_a_step_that_fails_leaves_the_old_database(
    where: str, plain: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_first(plain)
    with plain.begin() as connection:  # in the way of the step's own table
        connection.exec_driver_sql("CREATE TABLE longrec_erased (id INTEGER)")
    with pytest.raises(StoreError, match=r"longrec_erased.* already exists"):
        EventStore.open(where)
    with plain.begin() as connection:
        assert connection.exec_driver_sql("SELECT format FROM longrec_state").scalar_one() == 1
        assert not sa.inspect(connection).has_table(VERSION_TABLE)
        assert connection.exec_driver_sql("SELECT request_id FROM longrec_requests").scalar_one() == "r1"
        connection.exec_driver_sql("DROP TABLE longrec_erased")
    with EventStore.open(where) as store:
        assert store.user_events("ann") == [EVENT]


def test_a_newer_format_is_refused_and_left_alone(where: str, plain: sa.Engine) -> None:
    EventStore.open(where).close()
    with plain.begin() as connection:
        connection.exec_driver_sql(f"UPDATE longrec_state SET format = {FORMAT + 1}")
    with pytest.raises(StoreError, match=f"format {FORMAT + 1}; this version reads up to {FORMAT}"):
        EventStore.open(where)
    assert version(plain) == f"{FORMAT:04d}"


def test_no_request_id_and_no_erased_id_is_kept(where: str, plain: sa.Engine) -> None:
    with EventStore.open(where) as store:
        store.write_events([Event(user_id="canary", item_id="i")], request_id="canary-request")
        store.delete_user("canary")
    with plain.connect() as connection:
        for table in ("longrec_requests", "longrec_erased", "longrec_events"):
            rows = connection.exec_driver_sql(f"SELECT * FROM {table}").all()
            assert "canary" not in repr([tuple(map(str, row)) for row in rows])
