"""The service's store: what it collected is folded in once, and who was erased from it does not come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from recsys.errors import InvalidInput
from recsys.model import Model
from recsys.store import EventStore
from recsys.types import Event, Item
from tests.indexer.small import Tables, events, items
from tests.world import DAY_S, START_S


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    with EventStore.open(tmp_path / "events.sqlite") as opened:
        yield opened


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path).write(events(), items())


def later(user_id: str, item_id: str, event_id: str) -> Event:
    return Event(user_id=user_id, item_id=item_id, event_id=event_id, timestamp=START_S + 710 * DAY_S)


def life_of(tables: Tables, user_id: str) -> list[str]:
    model = Model.load(tables.current)
    row = model.users.get(user_id)
    return [] if row is None else [model.items.catalogue.ids.ids[item] for item in model.histories.of(row).items]


def test_what_the_service_collected_is_folded_in_once(tables: Tables, store: EventStore, tmp_path: Path) -> None:
    url = str(tmp_path / "events.sqlite")
    before = life_of_table("ada-1")
    store.write_events([later("ada-1", "i3", "w1"), later("ada-1", "unheard-of", "w2")])
    store.write_items([Item(item_id="i3", title="a better title"), Item(item_id="written", title="written thing")])
    done = tables.rebuild(store=url, train=True)
    assert done.store_seq == store.seq
    assert life_of(tables, "ada-1") == [*before, "i3", "unheard-of"]
    catalogue = Model.load(tables.current).items.catalogue
    assert catalogue.get("written") == Item(item_id="written", title="written thing")
    assert (catalogue.get("i3") or Item(item_id="")).title == "a better title"

    store.write_events([later("ada-2", "i4", "w3")])
    for changes in ({}, {"events": None, "items": None}):  # with the tables again, and without
        assert tables.rebuild(store=url, **changes).store_seq == store.seq
        assert life_of(tables, "ada-1") == [*before, "i3", "unheard-of"]
        assert life_of(tables, "ada-2") == [*life_of_table("ada-2"), "i4"]


def test_an_event_that_the_table_has_too_counts_once(tables: Tables, store: EventStore, tmp_path: Path) -> None:
    row = events().filter(user_id="ada-1").row(0, named=True)
    twin = Event(user_id="ada-1", item_id=row["item_id"], event_id=row["event_id"], timestamp=row["timestamp"])
    store.write_events([twin])
    assert tables.rebuild(store=str(tmp_path / "events.sqlite")).duplicates == 1
    assert life_of(tables, "ada-1") == life_of_table("ada-1")


@pytest.mark.parametrize("changes", [{}, {"events": None, "items": None}, {"fresh": True}])
def test_the_erased_do_not_come_back(
    tables: Tables, store: EventStore, tmp_path: Path, changes: dict[str, None]
) -> None:
    url = str(tmp_path / "events.sqlite")
    tables.rebuild(store=url)
    store.delete_user("ada-1")
    store.delete_user("ada-2")
    store.write_events([later("ada-2", "i7", "w1")])  # a new life
    done = tables.rebuild(store=url, **changes)
    assert done.events_erased == len(life_of_table("ada-1")) + len(life_of_table("ada-2"))
    assert life_of(tables, "ada-1") == []
    assert life_of(tables, "ada-2") == ["i7"]
    assert b"ada-1" not in b"".join(path.read_bytes() for path in tables.current.rglob("users.parquet"))
    again = tables.rebuild(store=url)  # from the old table once more
    assert again.snapshot_id == done.snapshot_id


def test_a_deleted_item_goes_with_what_was_done_with_it(tables: Tables) -> None:
    tables.rebuild()
    gone = items().with_columns(deleted=pl.col("item_id").is_in(["i3", "i5"]))
    tables.write(events(), gone)
    done = tables.rebuild()
    model = Model.load(tables.current)
    assert done.events_of_deleted == len(events().filter(pl.col("item_id").is_in(["i3", "i5"])))
    assert model.items.catalogue.get("i3") is None
    assert len(model.items) == 38
    tables.write(events(), items().with_columns(deleted=pl.lit("perhaps")))
    with pytest.raises(InvalidInput, match=r"items\[\d+\]\.deleted='perhaps'"):
        tables.rebuild()


def life_of_table(user_id: str) -> list[str]:
    return list(events().filter(user_id=user_id).sort("timestamp")["item_id"])
