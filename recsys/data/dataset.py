"""A data set in one value, and the loader: read a batch, make it normal, check it, turn its ids into rows."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Int16, Int32

from recsys.data.catalogue import Catalogue
from recsys.data.columns import EventColumns
from recsys.data.histories import Histories, histories_from_events
from recsys.data.ids import IdMap
from recsys.data.items import ItemRows, read_items
from recsys.data.readers import Source, open_tables, readable
from recsys.data.report import Findings, ValidationReport
from recsys.data.validate import bad_rows, event_rules, note, repeated
from recsys.errors import InvalidInput

BATCH_EVENTS = 1_000_000
"""Large enough that the fixed cost of a batch vanishes, small enough that its strings take some 100 MB."""

_MAX_EVENT_TYPES = 2**15 - 1


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Items, users and what the users did; users are rows of `histories`, in order of first appearance."""

    catalogue: Catalogue
    users: IdMap
    histories: Histories
    report: ValidationReport

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids, texts and events: equal for equal data, whatever file it came from."""
        digest = hashlib.sha256()
        for texts in (self.catalogue.ids, self.catalogue.texts, self.users, self.histories.event_types):
            digest.update("\0".join(texts).encode("utf-8", "surrogatepass") + b"\1")
        h = self.histories
        for array in (h.indptr, h.items, h.times, h.types, h.values, h.baskets):
            digest.update(np.ascontiguousarray(array).data)
        digest.update(h.clock.encode())
        return digest.hexdigest()


def load_dataset(source: Source, *, strict: bool = True, now: float | None = None) -> Dataset:
    """Events and items from files, a folder, a SQL URL or frames (see `recsys.data.readers`).

    `strict` raises InvalidData where a row is bad, its message the report of all bad rows of both tables;
    otherwise bad rows are dropped or mended and `report` says so. `now` (seconds since the epoch, by default
    the clock's) bounds the events' times. Raises InvalidInput where the source cannot be read or nothing is good.
    """
    tables = open_tables(source)
    with readable(tables.name):
        items = None if tables.items is None else read_items(tables.items)
        events = _EventReader(tables.events, items, time.time() if now is None else now)
        events.read()
    report = events.report(tables.name)
    if strict:
        report.raise_problems()
    if not events.num_kept:
        raise InvalidInput.of("source", tables.name, f"has no good event\n{report}")
    return events.dataset(report)


class _Coder:
    """Strings to rows in order of first appearance, a batch at a time; null becomes -1."""

    def __init__(self) -> None:
        self._batches: list[pa.DictionaryArray] = []

    def add(self, column: pl.Series) -> None:
        self._batches.append(column.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode())

    def finish(self) -> tuple[Int32[np.ndarray, " E"], list[str]]:
        """The row of each string, and the strings by row. Empties the coder."""
        whole = pa.chunked_array(self._batches).unify_dictionaries()
        self._batches.clear()
        names = whole.chunk(0).dictionary.to_pylist()
        return _joined([_rows(chunk) for chunk in whole.chunks]), names


def _rows(chunk: pa.DictionaryArray) -> np.ndarray:
    indices = chunk.indices
    return np.asarray((indices.fill_null(-1) if indices.null_count else indices).to_numpy())


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One array of all parts; empties the list on the way, so that memory holds the data once."""
    out = np.empty(sum(map(len, parts)), parts[0].dtype)
    parts.reverse()
    end = 0
    while parts:
        part = parts.pop()
        out[end : end + len(part)] = part
        end += len(part)
    return out


class _EventReader:
    """Reads one event table once; afterwards makes the report and the data set."""

    def __init__(self, table: pl.LazyFrame, items: ItemRows | None, now: float) -> None:
        self._schema = table.collect_schema()
        self._columns = EventColumns.of(self._schema)
        self._table = table.select(self._columns.used)
        self._items = items
        ids = None if items is None else [item.item_id for item in items.items]
        self._rules = event_rules(self._columns, now, ids)
        self._findings = Findings("events")
        self._coders = {name: _Coder() for name in ("user_id", "item_id", "event_type", self._columns.basket) if name}
        numbers = (self._columns.time, self._columns.value, self._columns.ties)
        self._numbers: dict[str, list[np.ndarray]] = {name: [] for name in numbers if name}
        self.num_read = self.num_kept = 0

    def read(self) -> None:
        again = repeated(self._table, self._columns.event_id) if self._columns.event_id else None
        normal_columns = self._columns.normal(self._schema)
        for raw in self._table.collect_batches(chunk_size=BATCH_EVENTS, maintain_order=True):
            normal = raw.select(normal_columns)
            bad = bad_rows(self._rules, normal)
            if again is not None:
                bad = pl.concat([bad, self._repeats(again.slice(self.num_read, len(raw)))])
            if len(bad):
                note(self._findings, bad, raw, self.num_read)
                keep = np.ones(len(raw), bool)
                keep[bad["at"].to_numpy()] = False
                normal = normal.filter(keep)
            self._add(normal)
            self.num_read += len(raw)

    def _repeats(self, again: pl.Series) -> pl.DataFrame:
        at = again.arg_true().cast(pl.Int64)
        return pl.select(field=pl.lit(self._columns.event_id), kind=pl.lit("duplicate"), at=at)

    def _add(self, normal: pl.DataFrame) -> None:
        # The hashing holds no GIL: the two id columns, nearly all of the work, go side by side.
        with ThreadPoolExecutor(2) as threads:
            for encoding in [threads.submit(coder.add, normal[name]) for name, coder in self._coders.items()]:
                encoding.result()
        for name, parts in self._numbers.items():
            parts.append(normal[name].fill_null(float("nan")).to_numpy())
        self.num_kept += len(normal)

    def report(self, source: str) -> ValidationReport:
        items = self._items
        return ValidationReport(
            source=source,
            events_read=self.num_read,
            events_kept=self.num_kept,
            items_read=items.num_read if items else 0,
            items_kept=len(items.items) if items else 0,
            problems=(*(items.problems if items else ()), *self._findings.problems),
            ignored=(*(items.ignored if items else ()), *(f"events.{name}" for name in self._columns.ignored)),
        )

    def dataset(self, report: ValidationReport) -> Dataset:
        """Groups what was read; frees it column by column on the way."""
        users, user_ids = self._coders["user_id"].finish()
        items, item_ids = self._coders["item_id"].finish()
        types, event_types = self._event_types()
        catalogue = Catalogue.of_ids(item_ids) if self._items is None else Catalogue(self._items.items)
        basket = self._columns.basket
        histories = histories_from_events(
            users,
            items if self._items is None else catalogue.ids.rows(item_ids)[items],
            self._number(self._columns.time),
            num_users=len(user_ids),
            event_types=event_types,
            clock=self._columns.clock,
            types=types,
            values=self._number(self._columns.value) if self._columns.value else None,
            baskets=self._coders[basket].finish()[0] if basket else None,
            ties=self._number(self._columns.ties) if self._columns.ties else None,
        )
        return Dataset(catalogue=catalogue, users=IdMap(user_ids, name="user_id"), histories=histories, report=report)

    def _event_types(self) -> tuple[Int16[np.ndarray, " E"], tuple[str, ...]]:
        rows, names = self._coders["event_type"].finish()
        if len(names) > _MAX_EVENT_TYPES:
            raise InvalidInput.of("event_type", len(names), f"more than {_MAX_EVENT_TYPES} event types")
        return rows.astype(np.int16), tuple(names)

    def _number(self, name: str) -> np.ndarray:
        return _joined(self._numbers[name])
