"""The event store: what was acknowledged is on disk, is there once, and is seen by the next read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl
from sqlalchemy import Connection, Row, Select, delete, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from recsys.errors import StoreError
from recsys.store import rows
from recsys.store.commit import MAX_WAITING, Committer, Moment, Work
from recsys.store.engine import SWEEP_PATIENCE_S, Engines, cause, reclaim, settle
from recsys.store.erasure import Erasure, drop_user, erased_after, find
from recsys.store.once import Key, WriteReceipt, recall, remember
from recsys.store.schema import erased as erased_table
from recsys.store.schema import events as event_table
from recsys.store.schema import insert_new_events, state
from recsys.store.schema import items as item_table
from recsys.store.sealed import sealed
from recsys.types import MAX_EVENTS_PER_WRITE, MAX_ITEMS_PER_WRITE, Event, Item
from recsys.watch import staged

_PAGE_ROWS = 20_000
_SEQ = f"SELECT {state.c.seq.name} FROM {state.name}"

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
        self._secret = bytes(self._read(select(state.c.secret))[0].secret)
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
        return self.enqueue_events(events, request_id=request_id, digest=digest).result()

    def enqueue_events(
        self, events: Sequence[Event], *, request_id: str = "", digest: bytes = b""
    ) -> Future[WriteReceipt]:
        """As `write_events`, without waiting for the disk: the future ends with the receipt, Conflict or StoreError.

        Batches are applied in the order in which they were enqueued. Raises InvalidInput, Overloaded, StoreError.
        """
        rows.check_events(events, MAX_EVENTS_PER_WRITE)
        batch = tuple(events)
        return self._enqueue("events", batch, request_id, digest, lambda at, now: _add_events(at, now, batch))

    @staged("commit")
    def write_items(self, items: Sequence[Item], *, request_id: str = "", digest: bytes = b"") -> WriteReceipt:
        """Adds or replaces at most 1,000 items, all or none; one stored already, word for word, is a duplicate.

        `request_id`, `digest` and errors as in `write_events`.
        """
        rows.check_items(items, MAX_ITEMS_PER_WRITE)
        batch = tuple(items)
        work = self._enqueue("items", batch, request_id, digest, lambda at, now: _put_items(at, now, batch))
        return work.result()

    def delete_user(self, user_id: str) -> Erasure:
        """Erases a user: their events go, and a tombstone says that what snapshots hold of them is gone, too.

        Asked again before anything new was written, it gives the first answer. Bytes are overwritten in the file at
        once where no reader is at work, else by the next `reclaim`. Raises InvalidInput, Overloaded, StoreError.
        """
        rows.check_id("user_id", user_id)
        key = sealed(self._secret, user_id)
        receipt = self._committer.submit(lambda at, now: drop_user(at, now, user_id, key), 1)
        with suppress(StoreError):  # it is committed; a disk that refuses now is met, and told, by the next sweep
            settle(self._engines.readers, patience_s=SWEEP_PATIENCE_S)
        return Erasure(num_events=receipt.accepted, seq=receipt.seq, time_s=receipt.watermark)

    def erasure(self, user_id: str) -> Erasure | None:
        """When the user was last erased; None for never."""
        found = self._read(find(sealed(self._secret, user_id)))
        return Erasure(num_events=found[0].num_events, seq=found[0].seq, time_s=found[0].time_s) if found else None

    def erased_among(self, user_ids: Iterable[str], *, after_seq: int) -> frozenset[str]:
        """Those of `user_ids` erased after `after_seq`: what a snapshot that reaches to there holds of them is gone.

        Costs a query where nobody was, else a digest an id.
        """
        keys = {row.user_key for row in self._read(erased_after(after_seq))}
        if not keys:
            return frozenset()
        return frozenset(user_id for user_id in user_ids if sealed(self._secret, user_id) in keys)

    @property
    def last_erased_seq(self) -> int:
        """The number of the last tombstone; 0 where nobody was erased. A snapshot that reaches it needs no mask."""
        return int(self._read(select(func.coalesce(func.max(erased_table.c.seq), 0)))[0][0])

    def reclaim(self) -> bool:
        """Drives the bytes of what was deleted out of the live files; False where readers at work kept some in the log.

        Meant to be called every few minutes. PostgreSQL needs the rights to VACUUM.
        """
        with self._failing("reclaim space"):
            return reclaim(self._engines)

    def user_events(self, user_id: str, *, after_seq: int = 0) -> list[Event]:
        """A user's events in time order; events of the same time in order of arrival."""
        return [event for _, event in self.numbered_events(user_id, after_seq=after_seq)]

    def numbered_events(self, user_id: str, *, after_seq: int = 0) -> list[tuple[int, Event]]:
        """(seq, event) of a user, in the order of `user_events`."""
        rows.check_id("user_id", user_id, required=False)
        wanted = (event_table.c.user_id == user_id) & (event_table.c.seq > after_seq)
        query = select(event_table).where(wanted).order_by(event_table.c.timestamp, event_table.c.seq)
        return [(row.seq, rows.event_of(row)) for row in self._read(query)]

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
        """Events in order of arrival, one column a field, with `seq`; an absent id is null.

        A user erased meanwhile may be there in part: a snapshot made of it is masked where it is loaded.
        """
        pages = [pl.DataFrame(page, schema=_FRAME, orient="row") for page in self._pages(after_seq)]
        return pl.concat([pl.DataFrame(schema=_FRAME), *pages])

    @property
    def seq(self) -> int:
        """The number of the last row written; 0 for an empty store."""
        # Every call of the service asks: by the driver alone it takes a quarter of the time.
        with self._failing("read"), closing(self._engines.readers.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute(_SEQ)
            [row] = cursor.fetchall()
            return int(row[0])

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

    def _enqueue(
        self, kind: str, batch: Sequence[Event | Item], request_id: str, digest: bytes, work: Work
    ) -> Future[WriteReceipt]:
        rows.check_id("request_id", request_id, required=False)
        if request_id:
            body = digest or hashlib.sha256(repr(batch).encode()).digest()
            work = _once(self._secret, Key(request_id=request_id, kind=kind, digest=body), work)
        return self._committer.enqueue(work, len(batch))

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
        except (SQLAlchemyError, self._engines.readers.dialect.loaded_dbapi.Error) as error:
            raise StoreError(f"the event store could not {doing}: {cause(error)}") from error


def _once(secret: bytes, key: Key, work: Work) -> Work:
    def run(connection: Connection, now: Moment) -> WriteReceipt:
        if given := recall(connection, secret, key):
            return given
        receipt = work(connection, now)
        remember(connection, secret, key, receipt)
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
