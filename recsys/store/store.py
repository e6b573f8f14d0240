"""The event store: what was acknowledged is on disk, is there once, and is seen by the next read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl
from sqlalchemy import Connection, Row, Select, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from recsys.errors import StoreError
from recsys.store import rows
from recsys.store.commit import MAX_WAITING, Committer, Moment, Work
from recsys.store.engine import Engines, cause, settle
from recsys.store.once import Key, WriteReceipt, recall, remember
from recsys.store.schema import events as event_table
from recsys.store.schema import insert_new_events, state
from recsys.store.schema import items as item_table
from recsys.types import MAX_EVENTS_PER_WRITE, MAX_ITEMS_PER_WRITE, Event, Item

_PAGE_ROWS = 20_000

_FRAME = {
    "seq": pl.Int64,
    "user_id": pl.String,
    "item_id": pl.String,
    "event_type": pl.String,
    "timestamp": pl.Float64,
    "value": pl.Float64,
    "event_id": pl.String,
    "session_id": pl.String,
}


class EventStore:
    """Events, items and request ids. Every method may be called from any thread; writes block until they are durable.

    `seq` numbers all that was ever written; it only grows. Reads take `after_seq` and give what came later.
    """

    def __init__(self, engines: Engines, *, clock: Callable[[], float], max_waiting: int) -> None:
        self._engines = engines
        self._committer = Committer(engines, clock, max_waiting=max_waiting)

    @classmethod
    def open(
        cls, where: str | Path, *, clock: Callable[[], float] = time.time, max_waiting: int = MAX_WAITING
    ) -> EventStore:
        """The store at a path, `sqlite:///path` or `postgresql://user@host/database`; made where there is none.

        At most `max_waiting` writes wait for their commit. Raises InvalidInput, MissingExtra or StoreError.
        """
        return cls(Engines.open(where), clock=clock, max_waiting=max_waiting)

    def write_events(self, events: Sequence[Event], *, request_id: str = "", digest: bytes = b"") -> WriteReceipt:
        """All of a batch or none of it, at most 1,000 events; an event id that its user has already is a duplicate.

        With a `request_id`, the same call again within 24 hours gives the first receipt and writes nothing; `digest`
        stands for the body (default: a hash of `events`). Raises InvalidInput, Conflict (same id, another body),
        Overloaded, StoreError.
        """
        rows.check_events(events, MAX_EVENTS_PER_WRITE)
        batch = tuple(events)
        return self._write("events", batch, request_id, digest, lambda at, now: _add_events(at, now, batch))

    def write_items(self, items: Sequence[Item], *, request_id: str = "", digest: bytes = b"") -> WriteReceipt:
        """Adds or replaces at most 1,000 items, all or none; one stored already, word for word, is a duplicate.

        `request_id`, `digest` and errors as in `write_events`.
        """
        rows.check_items(items, MAX_ITEMS_PER_WRITE)
        batch = tuple(items)
        return self._write("items", batch, request_id, digest, lambda at, now: _put_items(at, now, batch))

    def delete_user(self, user_id: str) -> int:
        """Erases a user's events and returns how many there were; their bytes are gone from the files, too.

        On SQLite a reader at work can keep the log from being emptied: StoreError then, and asking again finishes it.
        PostgreSQL frees the bytes at its next vacuum.
        """
        rows.check_id("user_id", user_id)
        receipt = self._committer.submit(lambda at, now: _drop_user(at, now, user_id), 1)
        with self._failing("delete a user"):
            if not settle(self._engines.readers):
                raise StoreError("the user's events are deleted, but readers keep their bytes in the log: try again")
        return receipt.accepted

    def user_events(self, user_id: str, *, after_seq: int = 0) -> list[Event]:
        """A user's events in time order; events of the same time in order of arrival."""
        rows.check_id("user_id", user_id, required=False)
        wanted = (event_table.c.user_id == user_id) & (event_table.c.seq > after_seq)
        query = select(event_table).where(wanted).order_by(event_table.c.timestamp, event_table.c.seq)
        return [rows.event_of(row) for row in self._read(query)]

    def items(self, *, after_seq: int = 0) -> list[Item]:
        """The latest version of each item written after `after_seq`, in order of arrival."""
        query = select(item_table).where(item_table.c.seq > after_seq).order_by(item_table.c.seq)
        return [rows.item_of(row) for row in self._read(query)]

    def iter_events(self, *, after_seq: int = 0) -> Iterator[tuple[int, Event]]:
        """(seq, event) in order of arrival, up to what is there at the start; holds 20,000 rows at a time."""
        for page in self._pages(after_seq):
            for row in page:
                yield row.seq, rows.event_of(row)

    def events_frame(self, *, after_seq: int = 0) -> pl.DataFrame:
        """Events in order of arrival, one column a field, with `seq`; an absent id is null."""
        pages = [pl.DataFrame(page, schema=_FRAME, orient="row") for page in self._pages(after_seq)]
        return pl.concat([pl.DataFrame(schema=_FRAME), *pages])

    @property
    def seq(self) -> int:
        """The number of the last row written; 0 for an empty store."""
        return int(self._read(select(state.c.seq))[0].seq)

    @property
    def watermark(self) -> float:
        """When the newest acknowledged write became visible, in seconds since the epoch; 0 for an empty store."""
        return float(self._read(select(state.c.time_s))[0].time_s)

    def close(self) -> None:
        """Commits what waits and closes; a second call does nothing."""
        self._committer.close()
        self._engines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(
        self, kind: str, batch: Sequence[Event | Item], request_id: str, digest: bytes, work: Work
    ) -> WriteReceipt:
        rows.check_id("request_id", request_id, required=False)
        if request_id:
            body = digest or hashlib.sha256(repr(batch).encode()).digest()
            work = _once(Key(request_id=request_id, kind=kind, digest=body), work)
        return self._committer.submit(work, len(batch))

    def _pages(self, after_seq: int) -> Iterator[Sequence[Row[Any]]]:
        last = self.seq
        while after_seq < last:
            wanted = (event_table.c.seq > after_seq) & (event_table.c.seq <= last)
            page = self._read(select(event_table).where(wanted).order_by(event_table.c.seq).limit(_PAGE_ROWS))
            if not page:
                return
            yield page
            after_seq = page[-1].seq

    def _read(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self._failing("read"), self._engines.readers.connect() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise StoreError(f"the event store could not {doing}: {cause(error)}") from error


def _once(key: Key, work: Work) -> Work:
    def run(connection: Connection, now: Moment) -> WriteReceipt:
        if given := recall(connection, key):
            return given
        receipt = work(connection, now)
        remember(connection, key, receipt)
        return receipt

    return run


def _add_events(connection: Connection, now: Moment, batch: Sequence[Event]) -> WriteReceipt:
    values = [rows.event_values(event, now.seq + place, now.time_s) for place, event in enumerate(batch, start=1)]
    accepted = connection.execute(insert_new_events(connection.dialect.name), values).rowcount if values else 0
    seq = now.seq + (len(batch) if accepted else 0)  # duplicates leave gaps
    return WriteReceipt(accepted=accepted, duplicates=len(batch) - accepted, watermark=now.time_s, seq=seq)


def _put_items(connection: Connection, now: Moment, batch: Sequence[Item]) -> WriteReceipt:
    latest = {item.item_id: item for item in batch}  # the last word of a batch counts
    query = select(item_table).where(item_table.c.item_id.in_(list(latest)))
    stored = {row.item_id: rows.item_of(row) for row in connection.execute(query)}
    changed = [item for item in latest.values() if stored.get(item.item_id) != item]
    if changed:
        gone = [item.item_id for item in changed if item.item_id in stored]
        connection.execute(delete(item_table).where(item_table.c.item_id.in_(gone)))
        fresh = [rows.item_values(item, now.seq + place) for place, item in enumerate(changed, start=1)]
        connection.execute(insert(item_table), fresh)
    return WriteReceipt(
        accepted=len(changed),
        duplicates=len(batch) - len(changed),
        watermark=now.time_s,
        seq=now.seq + len(changed),
    )


def _drop_user(connection: Connection, now: Moment, user_id: str) -> WriteReceipt:
    gone = connection.execute(delete(event_table).where(event_table.c.user_id == user_id)).rowcount
    return WriteReceipt(accepted=gone, duplicates=0, watermark=now.time_s, seq=now.seq)
