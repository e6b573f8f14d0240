"""Tables spread over files, one a shard, in one pass. A row is judged here, where its number in the source is known."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from indexer.hashing import hashes, shards_of
from indexer.source import DELETED, Table
from recsys.data.columns import ITEM_COLUMNS, EventColumns, id_column, require
from recsys.data.histories import Clock
from recsys.data.report import Findings, Problem
from recsys.data.validate import bad_rows, event_rules, note
from recsys.errors import InvalidInput

EVENT_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "row": pl.Int64,
    "user_id": pl.String,
    "item_id": pl.String,
    "time": pl.Float64,
    "ties": pl.Float64,
    "value": pl.Float32,
    "basket": pl.String,
    "event_type": pl.String,
    "event_id": pl.String,
}
"""`row`: the place in the source, counted over all tables. `event_id` null: none was given."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A table of events, those of some users who were erased and are not in it, and where its items' ids are noted."""

    table: Table
    erased: Callable[[Iterable[str]], Collection[str]] = lambda users: ()
    item_ids: set[str] | None = None


@dataclass(frozen=True, slots=True)
class Spilled:
    """A file a shard and the digest of each; what was read, and what was wrong with it."""

    files: tuple[Path, ...]
    digests: tuple[str, ...]
    rows_read: int
    rows_kept: int
    rows_erased: int = 0
    clock: Clock = "timestamp"
    problems: tuple[Problem, ...] = ()
    ignored: tuple[str, ...] = ()


class Spill:
    """Shard files open for writing. Memory holds one batch."""

    def __init__(self, folder: Path, num_shards: int) -> None:
        folder.mkdir(parents=True)
        self._paths = [folder / f"{shard:02d}.arrows" for shard in range(num_shards)]
        self._stack = ExitStack()
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}

    def add(self, frame: pl.DataFrame, by: str) -> None:
        """Append rows to the shards of their `by` column."""
        shard = shards_of(hashes(frame[by]), len(self._paths))
        order = np.argsort(shard, kind="stable")
        ends = np.searchsorted(shard[order], np.arange(len(self._paths) + 1))
        ordered = frame[order]
        for number in range(len(self._paths)):
            if ends[number] < ends[number + 1]:
                self._write(number, ordered[ends[number] : ends[number + 1]])

    def _write(self, shard: int, frame: pl.DataFrame) -> None:
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if shard not in self._writers:
            file = self._stack.enter_context(self._paths[shard].open("wb"))
            self._writers[shard] = self._stack.enter_context(pa.ipc.new_stream(file, table.schema))
        self._writers[shard].write_table(table)

    def close(self) -> tuple[tuple[Path, ...], tuple[str, ...]]:
        """The files and their digests; an empty shard has no file."""
        self._stack.close()
        return tuple(self._paths), tuple(_digest(path) for path in self._paths)

    def abandon(self) -> None:
        self._stack.close()


def read_shard(path: Path) -> pl.DataFrame | None:
    """What was spilled into one shard; None for nothing."""
    return pl.read_ipc_stream(path) if path.exists() else None


def spill_events(
    feeds: Iterable[Feed],
    folder: Path,
    num_shards: int,
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Spilled:
    """Each feed's good events, by user. Raises InvalidInput where two of them go by different clocks."""
    events = _Events(time.time())
    with _spilling(folder, num_shards) as spill:
        for feed in feeds:
            events.begin(feed.table)
            for raw in feed.table.batches():
                good = events.judged(raw)
                if gone := feed.erased(good["user_id"].unique()):
                    kept = good.filter(~pl.col("user_id").is_in(list(gone)))
                    events.erased += len(good) - len(kept)
                    good = kept
                if feed.item_ids is not None:
                    feed.item_ids.update(good["item_id"].unique())
                spill.add(good, "user_id")
                on_rows(events.read)
        files, digests = spill.close()
    kept_rows = events.read - events.bad - events.erased
    return Spilled(
        files, digests, events.read, kept_rows, events.erased, events.clock, events.findings.problems, events.ignored
    )


@dataclass(slots=True)
class _Events:
    """Makes raw rows normal and leaves the bad ones out, over several tables."""

    now: float
    findings: Findings = field(default_factory=lambda: Findings("events"))
    read: int = 0
    bad: int = 0
    erased: int = 0
    clock: Clock = "timestamp"
    ignored: tuple[str, ...] = ()
    _clock_of: str = ""
    _columns: EventColumns | None = None
    _name: str = ""
    _begun: int = 0

    def begin(self, table: Table) -> None:
        self._columns, self._name, self._begun = None, table.name, self.read
        self.ignored += table.ignored

    def judged(self, raw: pl.DataFrame) -> pl.DataFrame:
        columns = EventColumns.of(raw.schema)
        self._check(columns)
        normal = raw.select([*columns.normal(raw.schema), *self._event_id(columns)])
        bad = bad_rows(event_rules(columns, self.now, None), normal)
        good = self._shaped(normal, columns)
        if len(bad):
            note(self.findings, bad, raw, self.read - self._begun)
            keep = np.ones(len(raw), bool)
            keep[bad["at"].to_numpy()] = False
            self.bad += int((~keep).sum())
            good = good.filter(keep)
        self.read += len(raw)
        return good

    def _check(self, columns: EventColumns) -> None:
        if self._clock_of and columns.clock != self.clock:
            reason = f"goes by {columns.clock}, but {self._clock_of} by {self.clock}: their events have no common order"
            raise InvalidInput.of("clock", self._name, reason)
        if self._columns is not None and columns.time != self._columns.time:
            raise InvalidInput.of("events", self._name, f"{columns.time} in some files, {self._columns.time} in others")
        self.clock, self._clock_of, self._columns = columns.clock, self._name, columns

    def _event_id(self, columns: EventColumns) -> list[pl.Expr]:
        return [pl.col(columns.event_id).cast(pl.String).alias("event_id")] if columns.event_id else []

    def _shaped(self, normal: pl.DataFrame, columns: EventColumns) -> pl.DataFrame:
        def column(name: str, source: str) -> pl.Expr:
            return (pl.col(source) if source else pl.lit(None)).cast(EVENT_SCHEMA[name]).alias(name)

        return normal.select(
            pl.int_range(self.read, self.read + len(normal), dtype=pl.Int64).alias("row"),
            "user_id",
            "item_id",
            column("time", columns.time),
            column("ties", columns.ties).fill_null(0.0),
            column("value", columns.value),
            column("basket", columns.basket),
            "event_type",
            column("event_id", columns.event_id and "event_id"),
        )


def spill_items(table: Table, folder: Path, num_shards: int) -> Spilled:
    """Raw item rows by id, each with its `row`; a row without an id goes to the first shard, which tells of it."""
    read, schema = 0, dict[str, pl.DataType]()
    with _spilling(folder, num_shards) as spill:
        for raw in table.batches():
            require([] if "item_id" in raw.schema else ["item_id"], "items", raw.schema)
            used = [name for name in (*ITEM_COLUMNS, DELETED) if name in raw.columns]
            ids = id_column("item_id", raw.schema)
            rows = pl.int_range(read, read + len(raw), dtype=pl.Int64).alias("row")
            frame = raw.select(*used, rows, ids.fill_null("").alias("key"))
            if not schema:  # a column that begins with nothing but nulls holds texts, if anything
                schema = {name: pl.String() if kind == pl.Null else kind for name, kind in frame.schema.items()}
            spill.add(frame.cast(pl.Schema(schema)), "key")
            read += len(raw)
        files, digests = spill.close()
    return Spilled(files, digests, read, read, ignored=table.ignored)


@contextmanager
def _spilling(folder: Path, num_shards: int) -> Iterator[Spill]:
    spill = Spill(folder, num_shards)
    try:
        yield spill
    finally:
        spill.abandon()


def _digest(path: Path) -> str:
    if not path.exists():
        return "none"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
