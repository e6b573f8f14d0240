"""import and export: nothing lost, nothing doubled."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from recsys.data.dataset import load_dataset
from recsys.store import EventStore
from tests.cli.conftest import STEPS, USERS, Run, World

STORE = ("--store", "events.sqlite")
ROW = {"user_id": "u", "item_id": "i", "timestamp": 1_600_000_000.0}


def write(path: Path, *rows: dict[str, object]) -> Path:
    pl.DataFrame(rows).write_ndjson(path)
    return path


def test_a_second_import_doubles_nothing(run: Run, world: World) -> None:
    first = json.loads(run("import", world.shop, *STORE, "--json", "-").out)
    again = json.loads(run("import", world.shop, *STORE, "--json", "-").out)
    assert first == {"events": USERS * STEPS, "new_events": USERS * STEPS, "items": 40, "new_items": 40}
    assert (again["new_events"], again["new_items"]) == (0, 0)


def test_equal_rows_are_as_many_as_they_are(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "events.jsonl", ROW, ROW, ROW)
    for _ in range(2):
        assert run("import", source, *STORE).code == 0
    with EventStore.open("events.sqlite") as store:
        assert len(store.user_events("u")) == 3


def test_ids_of_the_source_are_kept(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "events.jsonl", ROW | {"event_id": "mine", "value": 2.5, "session_id": "s"})
    run("import", source, *STORE)
    with EventStore.open("events.sqlite") as store:
        (event,) = store.user_events("u")
    assert (event.event_id, event.value, event.session_id, event.timestamp) == ("mine", 2.5, "s", ROW["timestamp"])


def test_a_bad_row_stops_all_or_is_left_out(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "events.jsonl", ROW, ROW | {"user_id": ""}, ROW | {"timestamp": None})
    found = run("import", source, *STORE)
    assert found.code == 2
    assert "user_id" in found.err
    assert "row 2" in found.err
    assert not Path("events.sqlite").exists()
    assert run("import", source, *STORE, "--lenient").code == 0
    with EventStore.open("events.sqlite") as store:
        assert store.events_frame().height == 1


def test_an_order_is_no_time(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "events.jsonl", {"user_id": "u", "item_id": "i", "position": 1})
    found = run("import", source, *STORE)
    assert found.code == 2
    assert "clock='position'" in found.err


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_snapshot_comes_out_as_it_went_in(run: Run, world: World, form: str) -> None:
    assert run("export", "out", "--format", form, "--snapshots", world.snapshots).code == 0
    assert load_dataset("out").fingerprint == load_dataset(world.shop).fingerprint


def test_a_store_comes_out_as_it_went_in(run: Run, world: World) -> None:
    run("import", world.shop, *STORE)
    assert run("export", "out", "--from-store", *STORE).code == 0
    first, second = load_dataset(world.shop), load_dataset("out")
    assert second.histories.items.tolist() == first.histories.items.tolist()
    assert second.histories.times.tolist() == first.histories.times.tolist()
    assert list(second.catalogue.items) == list(first.catalogue.items)
