"""What is wrong with a source is told with its field, its value and its row; what is right is told once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from indexer.hashing import MAX_SHARDS, hashes, shards_of
from recsys.data.dataset import load_dataset
from recsys.errors import InvalidData, InvalidInput, NotFound
from recsys.model import Model
from tests.indexer.small import Tables, events, items, litter


def test_a_hash_is_what_it_always_was() -> None:
    ids = pl.Series(["", "a", "ada-1", "日本", "x" * 300])
    assert [f"{each:016x}" for each in hashes(ids).tolist()] == [f"{_plain(text):016x}" for text in ids]
    assert hashes(ids[2:4]).tolist() == hashes(ids).tolist()[2:4]


def _plain(text: str) -> int:
    value, mask = 0xCBF29CE484222325, 2**64 - 1
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 & mask
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & mask
    return value ^ value >> 33


def test_shards_are_even_ranges_of_hashes() -> None:
    hashed = hashes(pl.Series([f"{row}" for row in range(20_000)]))
    for number in (1, 3, 8, MAX_SHARDS):
        shard = shards_of(np.sort(hashed), number)
        assert (np.diff(shard) >= 0).all()
        sizes = np.bincount(shard, minlength=number)
        assert sizes.max() < 1.6 * 20_000 / number


def test_bad_rows_are_told_by_field_value_and_row(tmp_path: Path) -> None:
    told = events().with_columns(
        user_id=pl.when(pl.int_range(pl.len()) == 6).then(pl.lit("")).otherwise("user_id"),
        item_id=pl.when(pl.int_range(pl.len()) == 9).then(pl.lit("nowhere")).otherwise("item_id"),
        value=pl.when(pl.int_range(pl.len()) == 11).then(pl.lit(float("inf"))).otherwise("value"),
    )
    known = pl.concat([items(), items().head(1)])
    tables = Tables(tmp_path).write(told, known)
    with pytest.raises(InvalidData) as caught:
        tables.rebuild()
    found = {(each.field, each.value) for each in caught.value.violations}
    assert found == {
        ("events[7].user_id", "''"),
        ("events[10].item_id", "'nowhere'"),
        ("events[12].value", "inf"),
        ("items[41].item_id", "'i0'"),
    }
    assert litter(tables.out) != []  # shards that were finished wait for a lenient run, or for a mended table
    done = tables.rebuild(lenient=True)
    assert done.num_events == len(told) - 3
    assert "3 of" not in done.report
    assert litter(tables.out) == []


def test_the_same_as_loaded_whole(tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events(), items())
    tables.rebuild()
    model, whole = Model.load(tables.current), load_dataset(tmp_path)
    assert set(model.users.ids) == set(whole.users.ids)
    for row, user_id in enumerate(model.users.ids):
        ours, theirs = model.histories.of(row), whole.histories.of(whole.users.row(user_id))
        np.testing.assert_array_equal(ours.times, theirs.times)
        np.testing.assert_array_equal(ours.values, theirs.values)
        assert [model.items.catalogue.ids.ids[item] for item in ours.items] == [
            whole.catalogue.ids.ids[item] for item in theirs.items
        ]


def test_without_an_item_table_the_items_are_those_of_the_events(tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events())
    assert tables.rebuild(items=None).num_items == events()["item_id"].n_unique()


def test_a_clock_without_times(tmp_path: Path) -> None:
    told = events().rename({"timestamp": "position"})
    tables = Tables(tmp_path).write(told, items())
    tables.rebuild()
    assert Model.load(tables.current).histories.clock == "position"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"events": "nowhere.parquet"}, "--events"),
        ({"events": "sqlite:///nowhere.db"}, "source"),
        ({"shards": 0}, "shards"),
        ({"shards": MAX_SHARDS + 1}, "shards"),
        ({"events": None}, "--events"),
        ({"least_recall": 2.0}, "least_recall"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    tables = Tables(tmp_path).write(events(), items())
    with pytest.raises((InvalidInput, NotFound), match=field):
        tables.rebuild(**changes)
    assert litter(tables.out) == []


def test_files_of_different_columns_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    events().write_parquet(folder / "a.parquet")
    events().drop("value").write_parquet(folder / "b.parquet")
    with pytest.raises(InvalidInput, match=r"b\.parquet"):
        Tables(tmp_path).write(events(), items()).rebuild(events=str(folder))
