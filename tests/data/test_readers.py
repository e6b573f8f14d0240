"""Every format and frame gives the same data set; every unreadable source a clear error."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from recsys.data.dataset import Dataset, load_dataset
from recsys.data.readers import Source
from recsys.errors import InvalidInput
from recsys.types import Item

EVENTS = pl.DataFrame(
    {
        "user_id": ["007", "u2", "007", "u2"],
        "item_id": ["a", "b", "b", "é"],
        "event_type": ["view", "buy", None, "view"],
        "timestamp": [1_600_000_300, 1_600_000_100, 1_600_000_200, 1_600_000_100],
        "value": [None, 2.5, 1.0, None],
        "session_id": ["s", None, "s", "t"],
    }
)
ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "é"],
        "title": ["Ant", "Bee, or not", None],
        "description": ["", "two\nlines", "x"],
        "categories": ["x|y", None, "x"],
        "attributes": ['{"n": 1, "s": "t", "none": null}', None, ""],
    }
)


def check(dataset: Dataset) -> None:
    assert list(dataset.users) == ["007", "u2"]
    histories = dataset.histories
    assert histories.items.tolist() == [1, 0, 1, 2]
    assert histories.times.tolist() == [1_600_000_200, 1_600_000_300, 1_600_000_100, 1_600_000_100]
    assert [histories.event_types[type_] for type_ in histories.types] == ["view", "view", "buy", "view"]
    assert str(histories.values.tolist()) == "[1.0, nan, 2.5, nan]"
    assert histories.baskets.tolist() == [0, 0, -1, 1]
    assert list(dataset.catalogue.items) == [
        Item(item_id="a", title="Ant", categories=("x", "y"), attributes={"n": "1", "s": "t"}),
        Item(item_id="b", title="Bee, or not", description="two\nlines"),
        Item(item_id="é", description="x", categories=("x",)),
    ]
    assert dataset.report.ok


def to_csv(frame: pl.DataFrame, stem: Path) -> None:
    frame.write_csv(stem.with_suffix(".csv"))


def to_csv_gz(frame: pl.DataFrame, stem: Path) -> None:
    stem.with_suffix(".csv.gz").write_bytes(gzip.compress(frame.write_csv().encode()))


def to_parquet(frame: pl.DataFrame, stem: Path) -> None:
    frame.write_parquet(stem.with_suffix(".parquet"))


def to_jsonl(frame: pl.DataFrame, stem: Path) -> None:
    frame.write_ndjson(stem.with_suffix(".jsonl"))


def to_ndjson_gz(frame: pl.DataFrame, stem: Path) -> None:
    stem.with_suffix(".ndjson.gz").write_bytes(gzip.compress(frame.write_ndjson().encode()))


@pytest.mark.parametrize("write", [to_csv, to_csv_gz, to_parquet, to_jsonl, to_ndjson_gz])
def test_a_folder_in_each_format(tmp_path: Path, write: Callable[[pl.DataFrame, Path], None]) -> None:
    write(EVENTS, tmp_path / "events")
    write(ITEMS, tmp_path / "items")
    check(load_dataset(tmp_path))
    check(load_dataset(str(tmp_path)))


def test_nested_columns() -> None:
    items = ITEMS.with_columns(
        pl.Series("categories", [["x", "y"], None, ["x"]]),
        pl.Series("attributes", [{"n": 1, "s": "t"}, None, {"n": None, "s": None}]),
    )
    check(load_dataset((EVENTS, items)))


@pytest.mark.parametrize(
    "convert", [pl.DataFrame.lazy, pl.DataFrame.to_arrow, pl.DataFrame.to_pandas, lambda frame: frame]
)
def test_frames(convert: Callable[[pl.DataFrame], Any]) -> None:
    check(load_dataset((convert(EVENTS), convert(ITEMS))))


def test_frames_and_files_mix(tmp_path: Path) -> None:
    to_csv(ITEMS, tmp_path / "things")
    check(load_dataset((EVENTS, tmp_path / "things.csv")))


def test_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        for name, frame in (("events", EVENTS), ("items", ITEMS)):
            connection.execute(f"CREATE TABLE {name} ({', '.join(frame.columns)})")
            marks = ", ".join("?" * frame.width)
            connection.executemany(f"INSERT INTO {name} VALUES ({marks})", frame.rows())
    connection.close()
    check(load_dataset(f"sqlite:///{path}"))


def test_without_items_the_events_name_them() -> None:
    dataset = load_dataset(EVENTS)
    assert [item.item_id for item in dataset.catalogue.items] == ["a", "b", "é"]
    assert dataset.report.items_read == 0


def test_integers_and_gappy_pandas_integers_are_ids() -> None:
    events = pd.DataFrame({"user_id": [1, 2, None], "item_id": [7, 8, 9], "position": [0, 0, 1]})
    dataset = load_dataset(events, strict=False)
    assert list(dataset.users) == ["1", "2"]
    assert list(dataset.catalogue.ids) == ["7", "8"]
    assert dataset.histories.clock == "position"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("events.csv", b"", "empty CSV"),
        ("events.csv", b"user_id,item_id,position\na,b,1,4\n", "more fields"),
        ("events.csv", b"user_id,item_id,position\n", "no good event"),
        ("events.parquet", b"nope", "cannot be read"),
        ("events.jsonl", b'{"user_id": 1}\n{bad\n', "cannot be read"),
        ("events.csv.gz", b"not gzip", "required column"),
        ("events.xlsx", b"", "no events file"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=reason):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/no/such/file.csv", "no such file"),
        ("events.txt", "unknown format"),
        ("sqlite:////no/such.db", "no such file"),
        ("nosuchdb://user:secret@host/db", "nosuchdb"),
        (3, "expected a path"),
        ((EVENTS, ITEMS, ITEMS), r"\(events, items\)"),
        (pd.DataFrame({"user_id": [1, "a", object()]}), "cannot be read"),
    ],
)
def test_what_is_no_source_is_refused(source: Source, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        load_dataset(source)
    assert "secret" not in str(caught.value)


def test_two_event_files_are_one_too_many(tmp_path: Path) -> None:
    to_csv(EVENTS, tmp_path / "events")
    to_parquet(EVENTS, tmp_path / "events")
    with pytest.raises(InvalidInput, match="several events files"):
        load_dataset(tmp_path)


def test_a_database_without_events_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    sqlite3.connect(path).close()
    path.touch()
    with pytest.raises(InvalidInput, match="no table `events`"):
        load_dataset(f"sqlite:///{path}")
