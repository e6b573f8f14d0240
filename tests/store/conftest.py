"""Every contract test runs on both databases, each test in a place of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from recsys.store import EventStore

_SERVER = os.environ.get("LONGREC_TEST_PG", "postgresql://127.0.0.1:5432/test")
_REQUIRED = "LONGREC_TEST_PG_REQUIRED" in os.environ


@pytest.fixture(scope="session")
def server() -> Iterator[sa.Engine]:
    """A PostgreSQL to make schemas in; skips where there is none, unless LONGREC_TEST_PG_REQUIRED is set."""
    url = sa.make_url(_SERVER).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    try:
        engine.connect().close()
    except sa.exc.OperationalError as error:
        reason = f"no PostgreSQL at {url.host}:{url.port}: set LONGREC_TEST_PG to a server's URL ({error.orig})"
        (pytest.fail if _REQUIRED else pytest.skip)(reason)
    yield engine
    engine.dispose()


@pytest.fixture
def schema(server: sa.Engine) -> Iterator[str]:
    """The URL of an empty schema, dropped afterwards."""
    name = f"longrec_{uuid.uuid4().hex}"
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    yield server.url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to open an empty store."""
    if request.param == "sqlite":
        return str(tmp_path / "new" / "events.db")
    return str(request.getfixturevalue("schema"))


@pytest.fixture
def store(where: str) -> Iterator[EventStore]:
    with EventStore.open(where) as opened:
        yield opened
