"""From a path or URL to two engines: one connection that writes, a pool that only reads.

What a dialect needs to be durable stands here; nothing outside this file asks which dialect it is on.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from recsys.errors import InvalidInput, MissingExtra, StoreError
from recsys.store.migrate import migrate

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process's lock before it fails."""
NUM_READERS = 16

# Any number will do; it only has to be the same for all who create these tables at the same time.
_CREATE_LOCK = 0x10462EC

SWEEP_PATIENCE_S = 0.5
"""How long emptying the log of deleted bytes waits for readers, and writers for that; then it is for the next sweep."""

# Of 4 KiB each, in one transaction: writers wait for it.
_FREED_PAGES = 1_000

_Dbapi = Any
"""A DBAPI connection: SQLAlchemy's events do not type it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """`where` names the store in messages, without its password."""

    writer: Engine
    readers: Engine
    where: str

    @classmethod
    def open(cls, where: str | Path) -> Engines:
        """Connects, makes the tables where there are none and brings older ones up to date.

        Raises InvalidInput for a URL that is not SQLite or PostgreSQL, MissingExtra without psycopg, StoreError when
        there is no store to be had at `where`.
        """
        url = parse(where)
        shown = url.database or "" if _is_sqlite(url) else url.render_as_string(hide_password=True)
        with ExitStack() as undo:
            try:
                opened = cls(writer=_writer(url), readers=_readers(url), where=shown)
                undo.callback(opened.close)
                opened._prepare()
                settle(opened.writer)
            except (SQLAlchemyError, OSError) as error:
                raise StoreError(f"cannot open the event store at {shown}: {cause(error)}") from error
            undo.pop_all()
            return opened

    def close(self) -> None:
        """Closes all idle connections."""
        self.readers.dispose()
        self.writer.dispose()

    def _prepare(self) -> None:
        with self.writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATE_LOCK})
            migrate(connection, self.where)


def parse(where: str | Path) -> URL:
    """A plain path is a SQLite file. Errors never show the URL: it may hold a password."""
    if isinstance(where, Path) or "://" not in where:
        return _file(str(where))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise InvalidInput.of("url", where.split("://")[0] + "://…", "not a database URL") from None
    if _is_sqlite(url):
        return _file(url.database or "")
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    raise InvalidInput.of("url", url.drivername, "expected a path, sqlite:///path or postgresql://host/database")


def settle(engine: Engine, *, patience_s: float = BUSY_TIMEOUT_S) -> bool:
    """Moves all that was committed to where no failed fsync can tear it off; False where readers kept it from ending.

    After a failed fsync the kernel may call pages clean that never reached the disk; appending to a log with such a
    hole would lose later commits at the next power cut. Emptying the log rewrites and syncs the database file instead.
    PostgreSQL does the same by itself: it stops and recovers. Writers wait while this waits for readers. Raises
    StoreError where the disk refuses.
    """
    if engine.dialect.name != "sqlite":
        return True
    raw = engine.raw_connection()
    try:
        raw.cursor().execute(f"PRAGMA busy_timeout = {int(patience_s * 1000)}")
        busy, _, _ = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"what was committed could not be settled: {error}") from error
    finally:
        raw.cursor().execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
        raw.close()
    return not busy


def reclaim(engines: Engines) -> bool:
    """Drives the bytes of what was deleted out of the live files; False where readers kept the log from being emptied.

    SQLite: the log is emptied into a file whose deleted cells are zeros, then up to 1,000 free pages are cut off.
    PostgreSQL: VACUUM; its own log keeps older bytes until it is recycled.
    """
    if engines.writer.dialect.name != "sqlite":
        with engines.readers.connect() as connection:
            for table in ("longrec_events", "longrec_requests"):
                connection.execute(text(f"VACUUM {table}"))
        return True
    with engines.writer.begin() as connection:
        # The driver makes one step of a statement without rows, and a step frees one page.
        free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
        for _ in range(min(free, _FREED_PAGES)):
            connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
    return settle(engines.readers, patience_s=SWEEP_PATIENCE_S)


def cause(error: BaseException) -> str:
    """The driver's own words, one line: SQLAlchemy's message adds the statement and its values, users' data."""
    origin = getattr(error, "orig", None) or error
    return str(origin).strip().split("\n")[0] or type(origin).__name__


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _file(path: str) -> URL:
    if path in ("", ":memory:") or path.startswith("file:"):
        raise InvalidInput.of("url", path, "an event store is a file: memory forgets")
    return URL.create("sqlite", database=str(Path(path).absolute()))


def _writer(url: URL) -> Engine:
    if not _is_sqlite(url):
        return _postgres(url, isolation_level="READ COMMITTED", pool_size=1, max_overflow=0)
    _make_private(Path(url.database or ""))
    engine = create_engine(url, pool_size=1, max_overflow=0, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver begins nothing behind our back
        # The first counts for a new file only. Deleted bytes are overwritten, and their pages given back by `reclaim`.
        for pragma in (
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        # The lock comes first: a transaction that reads and then writes cannot wait for it, only fail.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _readers(url: URL) -> Engine:
    if not _is_sqlite(url):
        return _postgres(url, isolation_level="AUTOCOMMIT", pool_size=NUM_READERS, max_overflow=0)
    timeout = {"timeout": BUSY_TIMEOUT_S}
    engine = create_engine(
        url, isolation_level="AUTOCOMMIT", pool_size=NUM_READERS, max_overflow=0, connect_args=timeout
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.execute("PRAGMA query_only=ON")

    return engine


def _postgres(url: URL, **options: Any) -> Engine:
    try:
        arguments = {"connect_timeout": int(BUSY_TIMEOUT_S)}
        engine = create_engine(url, pool_pre_ping=True, connect_args=arguments, **options)
    except ModuleNotFoundError as error:
        raise MissingExtra("psycopg", "pg") from error

    @event.listens_for(engine, "connect")
    def prepare(connection: _Dbapi, _: ConnectionPoolEntry) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = on")
            # A statement first planned on empty tables would keep scanning them whole.
            cursor.execute("SET plan_cache_mode = force_custom_plan")
            cursor.execute(f"SET lock_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
        connection.commit()

    return engine


def _make_private(path: Path) -> None:
    """Histories are personal: only the owner reads the file, and SQLite gives its log the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
