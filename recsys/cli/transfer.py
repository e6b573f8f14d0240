"""`recsys import` and `export`: events and items into the store, and out of a store or a snapshot."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from recsys.cli.output import Output
from recsys.cli.progress import progress
from recsys.cli.snapshots import current_snapshot, store_exists
from recsys.config import Settings
from recsys.data.catalogue import Catalogue
from recsys.data.columns import EventColumns, id_column
from recsys.data.dataset import Dataset, load_dataset
from recsys.data.export import WRITERS, event_frame, write_events, write_items
from recsys.data.ids import IdMap
from recsys.data.readers import open_tables, readable
from recsys.data.report import ValidationReport
from recsys.data.validate import bad_rows, event_rules
from recsys.errors import InvalidInput
from recsys.model import Model
from recsys.snapshot import open_snapshot
from recsys.store import EventStore, WriteReceipt
from recsys.train.fit import Progress
from recsys.types import MAX_EVENTS_PER_WRITE, MAX_ITEMS_PER_WRITE, Event, Item

T = TypeVar("T")


def import_source(settings: Settings, output: Output, *, source: str, lenient: bool) -> None:
    """Checks the whole source first, then writes it in batches; the same source again changes nothing."""
    dataset = load_dataset(source, strict=not lenient)
    output.show(str(dataset.report))
    if dataset.histories.clock != "timestamp":
        reason = "the store keeps times; this source has only an order: add a column `timestamp`"
        raise InvalidInput.of("clock", dataset.histories.clock, reason)
    events = _events(_good_events(source, dataset))
    items = [item for item in dataset.catalogue.items if item.text]
    with EventStore.open(settings.paths.store) as store, progress(silent=output.only_json) as report:
        new_items = _write(store.write_items, items, MAX_ITEMS_PER_WRITE, "items", report)
        new_events = _write(store.write_events, events, MAX_EVENTS_PER_WRITE, "events", report)
    output.show(
        f"{new_events:,} of {len(events):,} events and {new_items:,} of {len(items):,} items are new in "
        f"{settings.paths.store}"
    )
    output.result({"events": len(events), "new_events": new_events, "items": len(items), "new_items": new_items})


def export(settings: Settings, output: Output, *, folder: Path, form: str, from_store: bool) -> None:
    """Writes events.FORM and items.FORM into `folder`, as `recsys train` reads them."""
    if f".{form}" not in WRITERS:
        raise InvalidInput.of("format", form, f"known: {', '.join(each.removeprefix('.') for each in WRITERS)}")
    events, catalogue = _of_store(settings.paths.store) if from_store else _of_snapshot(settings)
    folder.mkdir(parents=True, exist_ok=True)
    write_events(events, folder / f"events.{form}")
    write_items(catalogue, folder / f"items.{form}")
    output.show(f"{len(events):,} events and {len(catalogue):,} items are in {folder}")
    output.result({"events": len(events), "items": len(catalogue), "folder": folder})


def _good_events(source: str, dataset: Dataset) -> pl.DataFrame:
    """The events of the source in normal form, the bad ones left out, with `event_id` where the source names it."""
    tables = open_tables(source)
    with readable(tables.name):
        schema = tables.events.collect_schema()
        columns = EventColumns.of(schema)
        given = [id_column(columns.event_id, schema)] if columns.event_id else []
        normal = tables.events.select([*columns.normal(schema), *given]).collect()
    known = dataset.catalogue.ids.ids if tables.items is not None else None
    bad = bad_rows(event_rules(columns, time.time(), known), normal)["at"].to_numpy()
    return normal.with_row_index("at").filter(~pl.col("at").is_in(bad)).drop("at").rename(_store_names(columns))


def _store_names(columns: EventColumns) -> dict[str, str]:
    names = {columns.basket: "session_id", columns.event_id: "event_id"}
    return {found: name for found, name in names.items() if found}


def _events(frame: pl.DataFrame) -> list[Event]:
    """Events with ids: their own, or a hash of what they say and of how many equal ones stand before them."""
    for name, dtype in (("value", pl.Float64), ("session_id", pl.String), ("event_id", pl.String)):
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, dtype).alias(name))
    said = ("user_id", "item_id", "event_type", "timestamp", "value", "session_id")
    rows = frame.with_columns(again=pl.int_range(pl.len()).over(said)).select(*said, "event_id", "again")
    return [
        Event(
            user_id=user_id,
            item_id=item_id,
            event_type=kind,
            timestamp=at,
            value=value,
            session_id=session_id or "",
            event_id=event_id or _event_id(user_id, item_id, kind, at, value, session_id, again),
        )
        for user_id, item_id, kind, at, value, session_id, event_id, again in rows.iter_rows()
    ]


def _event_id(*said: Any) -> str:
    return "import-" + hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _write(
    write: Callable[[Sequence[T]], WriteReceipt], rows: Sequence[T], size: int, what: str, report: Progress
) -> int:
    """How many rows were new."""
    accepted = 0
    for start in range(0, len(rows), size):
        report(what, start, len(rows))
        accepted += write(rows[start : start + size]).accepted
    report(what, len(rows), len(rows))
    return accepted


def _of_store(where: str) -> tuple[pl.DataFrame, Catalogue]:
    with EventStore.open(where) as store:
        frame = store.events_frame().drop("seq").rename({"session_id": "basket_id"})
        known: list[Item] = store.items()
    micros = (pl.col("timestamp") * 1e6).round().cast(pl.Int64)
    frame = frame.with_columns(pl.from_epoch(micros, time_unit="us").alias("timestamp"))
    named = {item.item_id for item in known}
    bare = [Item(item_id=id_) for id_ in frame["item_id"].unique(maintain_order=True) if id_ not in named]
    return frame, Catalogue([*known, *bare])


def _of_snapshot(settings: Settings) -> tuple[pl.DataFrame, Catalogue]:
    """Without the users that the store erased since."""
    root = settings.paths.snapshots
    model = Model.load(open_snapshot(root, current_snapshot(root)).path)
    erased = _erased(settings.paths.store, model)
    kept = [row for row, user_id in enumerate(model.users) if user_id not in erased]
    catalogue, histories = model.items.catalogue, model.histories.take(np.array(kept, np.int64))
    users = IdMap((model.users.ids[row] for row in kept), name="user_id")
    report = ValidationReport(
        source=str(root),
        events_read=histories.num_events,
        events_kept=histories.num_events,
        items_read=len(catalogue),
        items_kept=len(catalogue),
    )
    dataset = Dataset(catalogue=catalogue, users=users, histories=histories, report=report)
    return event_frame(dataset), catalogue


def _erased(where: str, model: Model) -> frozenset[str]:
    if not store_exists(where):
        return frozenset()
    with EventStore.open(where) as store:
        return store.erased_among(model.users.ids, after_seq=model.settings.store_seq)
