"""Where a rebuild reads from: tables in batches, never whole.

a folder or a file                        its *.parquet, in order of their names; one file of another known format
s3://, gs://, memory://, ... (fsspec)     the same, parquet alone
sqlite:///..., postgresql://...           table (or view) `events` or `items`, in order of time
the event store                           what the service collected
a snapshot                                what it holds
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pyarrow.parquet as pq
import sqlalchemy as sa

from recsys.data.columns import BASKETS, CLOCKS, ITEM_COLUMNS
from recsys.data.dataset import Dataset
from recsys.data.readers import SCANNERS, open_database, open_tables, readable
from recsys.errors import InvalidInput
from recsys.store import EventStore

BATCH_ROWS = 250_000
STORE_ROWS = 20_000

DELETED = "deleted"
"""A column of the item table: true says that the item is gone, and what was done with it, too."""

_EVENT_COLUMNS = ("user_id", "item_id", "event_type", *CLOCKS, "value", *BASKETS, "event_id")
KNOWN = {"events": _EVENT_COLUMNS, "items": (*ITEM_COLUMNS, DELETED)}
_ORDER = (*CLOCKS, "user_id", "item_id", "event_type", "event_id")


@dataclass(frozen=True, slots=True)
class Table:
    """`name` is fit for a message; `batches` reads the raw rows from the beginning; `ignored`: columns nobody reads."""

    name: str
    batches: Callable[[], Iterator[pl.DataFrame]]
    ignored: tuple[str, ...] = ()


def open_table(url: str, kind: str) -> Table:
    """The table of `kind` "events" or "items" at `url`. Raises InvalidInput where nothing of that kind is there."""
    scheme = url.partition("://")[0] if "://" in url else "file"
    if scheme in fsspec.available_protocols():
        return _files(url, kind)
    return _sql(url, kind)


def of_store(store: EventStore, upto_seq: int, after_seq: int = 0) -> Table:
    """The store's events above `after_seq` and up to `upto_seq`, in order of arrival."""

    def batches() -> Iterator[pl.DataFrame]:
        events = (event for seq, event in store.iter_events(after_seq=after_seq) if seq <= upto_seq)
        while page := list(islice(events, STORE_ROWS)):
            yield pl.DataFrame(
                {
                    "user_id": [each.user_id for each in page],
                    "item_id": [each.item_id for each in page],
                    "event_type": [each.event_type for each in page],
                    "timestamp": [each.timestamp for each in page],
                    "value": pl.Series([each.value for each in page], dtype=pl.Float64),
                    "event_id": [each.event_id or None for each in page],
                    "session_id": [each.session_id or None for each in page],
                },
                schema_overrides={"event_id": pl.String, "session_id": pl.String},
            )

    return Table("the event store", batches)


def of_dataset(name: str, known: Dataset) -> Table:
    """The events that a snapshot holds, to the last bit of their times."""

    def batches() -> Iterator[pl.DataFrame]:
        life = known.histories
        users, ids = (pl.Series(list(each), dtype=pl.String) for each in (known.users.ids, known.catalogue.ids.ids))
        types = pl.Series(life.event_types, dtype=pl.String)
        clock = next(column for column, clock in CLOCKS.items() if clock == life.clock)
        owners = life.users
        for at in range(0, life.num_events, BATCH_ROWS):
            part = slice(at, at + BATCH_ROWS)
            yield pl.DataFrame(
                {
                    "user_id": users.gather(owners[part]),
                    "item_id": ids.gather(life.items[part]),
                    "event_type": types.gather(life.types[part]),
                    clock: life.times[part],
                    "value": pl.Series(life.values[part]).fill_nan(None),
                    "basket_id": pl.Series(life.baskets[part]).replace(-1, None).cast(pl.String),
                }
            )

    return Table(name, batches)


def of_frame(name: str, frame: pl.DataFrame) -> Table:
    """A table that is in memory already."""
    return Table(name, lambda: iter([frame]))


def _files(url: str, kind: str) -> Table:
    with readable(url):
        files, path = fsspec.core.url_to_fs(url)
        if not files.exists(path):
            raise InvalidInput.of(f"--{kind}", url, "no such file or folder")
        if files.isfile(path):
            paths = [path]
        else:
            paths = sorted(each for each in files.find(path) if str(each).endswith(".parquet"))
    if not paths:
        raise InvalidInput.of(f"--{kind}", url, "holds no *.parquet")
    if len(paths) == 1 and not str(paths[0]).endswith(".parquet"):
        return _other_file(url, paths[0], kind)
    with readable(url):
        columns = _columns(files, paths, url, kind)

    def batches() -> Iterator[pl.DataFrame]:
        for each in paths:
            with readable(each), files.open(each, "rb") as file:
                for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=columns[0]):
                    frame = pl.from_arrow(batch)
                    assert isinstance(frame, pl.DataFrame)
                    yield frame

    return Table(url, batches, columns[1])


def _columns(files: Any, paths: Sequence[str], url: str, kind: str) -> tuple[list[str], tuple[str, ...]]:
    """The columns to read and those to leave; every file must have the same."""
    found: list[str] = []
    for each in paths:
        with files.open(each, "rb") as file:
            names = list(pq.read_schema(file).names)
        if found and set(names) != set(found):
            raise InvalidInput.of(
                f"--{kind}", each, f"has columns {sorted(names)}, other files of {url} {sorted(found)}"
            )
        found = names
    used = [name for name in found if name in KNOWN[kind]]
    # A table that lacks what it needs is refused by whoever makes it normal, with all that it has.
    return used or found, tuple(f"{kind}.{name}" for name in found if name not in KNOWN[kind])


def _other_file(url: str, path: str, kind: str) -> Table:
    if "://" in url and not url.startswith("file://"):
        raise InvalidInput.of(
            f"--{kind}", url, f"unknown format; a remote table is *.parquet, local ones {list(SCANNERS)}"
        )
    table = open_tables((Path(path), None)).events

    def batches() -> Iterator[pl.DataFrame]:
        with readable(url):
            yield from table.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True)

    return Table(url, batches)


def _sql(url: str, kind: str) -> Table:
    engine, name = open_database(url)
    with readable(name):
        inspector = sa.inspect(engine)
        if kind not in inspector.get_table_names() + inspector.get_view_names():
            raise InvalidInput.of(f"--{kind}", name, f"holds no table `{kind}`")
        present = [column["name"] for column in inspector.get_columns(kind)]
    used = [column for column in present if column in KNOWN[kind]] or present
    ordered = [column for column in _ORDER if column in used] if kind == "events" else used[:1]
    query: Any = sa.select(*(sa.column(column) for column in used)).select_from(sa.table(kind))
    query = query.order_by(*(sa.column(column) for column in ordered))

    def batches() -> Iterator[pl.DataFrame]:
        with readable(name), engine.connect() as connection:
            streamed = connection.execution_options(stream_results=True, yield_per=BATCH_ROWS)
            yield from pl.read_database(
                query, streamed, iter_batches=True, batch_size=BATCH_ROWS, infer_schema_length=None
            )

    return Table(name, batches, tuple(f"{kind}.{column}" for column in present if column not in KNOWN[kind]))
