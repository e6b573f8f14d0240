"""However a rebuild is cut, run and fed, the snapshot is the same, byte for byte, and so is every answer."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import fsspec
import numpy as np
import polars as pl
import pytest

from indexer.run import LocalRunner
from recsys.recommend import Recommender
from recsys.types import Candidate, User
from tests.indexer.small import Tables, events, files, items
from tests.world import ENCODER


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """One shard, one process, and a ranker."""
    tables = Tables(tmp_path_factory.mktemp("reference")).write(events(), items())
    assert tables.rebuild(shards=1, train=True).has_ranker
    return tables


def same(reference: Tables, other: Tables) -> None:
    assert files(reference.current) == files(other.current)
    assert reference.current.name == other.current.name  # the id is a digest of all of it
    ours, theirs = (Recommender.open(each.out, encoder=ENCODER) for each in (reference, other))
    candidates = [Candidate(item_id=f"i{row}") for row in range(40)] + [Candidate(text="a kind3 thing")]
    for user in ("ada-0", "ada-17", "nobody"):
        asked = User(user_id=user)
        assert ours.rank(asked, candidates, parts=True).items == theirs.rank(asked, candidates, parts=True).items
        assert ours.recommend(asked, k=10).items == theirs.recommend(asked, k=10).items


@pytest.mark.parametrize(("shards", "workers"), [(3, 1), (8, 1), (3, 2)])
def test_neither_shards_nor_workers_show(reference: Tables, tmp_path: Path, shards: int, workers: int) -> None:
    other = Tables(tmp_path).write(events(), items())
    with LocalRunner(workers) as runner:
        other.rebuild(shards=shards, runner=runner, train=True)
    same(reference, other)


def test_the_order_of_rows_and_files_does_not_show(reference: Tables, tmp_path: Path) -> None:
    shuffled = events().sample(fraction=1.0, shuffle=True, seed=1)
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, part in enumerate(shuffled.iter_slices(150)):
        part.write_parquet(folder / f"part-{number}.parquet")
    other = Tables(tmp_path).write(events(), items()[::-1])
    other.rebuild(events=str(folder), train=True)
    same(reference, other)


def test_sql_and_object_storage_tell_the_same(reference: Tables, tmp_path: Path) -> None:
    database = tmp_path / "shop.sqlite"
    with sqlite3.connect(database) as connection:
        told, known = events(), items().with_columns(pl.col("categories").list.join("|"))
        for name, frame in (("events", told), ("items", known)):
            connection.execute(f"CREATE TABLE {name} ({', '.join(frame.columns)})")
            marks = ", ".join("?" * frame.width)
            connection.executemany(f"INSERT INTO {name} VALUES ({marks})", frame.rows())
    sql = Tables(tmp_path / "sql")
    sql.rebuild(events=f"sqlite:///{database}", items=f"sqlite:///{database}", train=True)
    same(reference, sql)

    memory = fsspec.filesystem("memory")
    for name, frame in (("events", events()), ("items", items())):
        with memory.open(f"/shop/{name}/all.parquet", "wb") as file:
            frame.write_parquet(file)
    remote = Tables(tmp_path / "remote")
    remote.rebuild(events="memory://shop/events", items="memory://shop/items/all.parquet", train=True)
    same(reference, remote)


def test_an_index_with_lists_is_the_same_too(tmp_path: Path) -> None:
    told = events(200)  # enough moments for k-means
    one, many = (Tables(tmp_path / name).write(told, items()) for name in ("one", "many"))
    one.rebuild(shards=1, kind="ivf_sq8")
    many.rebuild(shards=8, kind="ivf_sq8")
    same(one, many)
    index = Recommender.open(one.out, encoder=ENCODER).model.flow.matchers[0].memory.index  # type: ignore[attr-defined]
    assert index.kind == "ivf_sq8"


def test_rows_stand_by_hash_and_events_by_time(reference: Tables) -> None:
    model = Recommender.open(reference.out, encoder=ENCODER).model
    told = events().sort("user_id", "timestamp")
    assert set(model.users.ids) == set(told["user_id"])
    assert model.histories.num_events == len(told)
    for row, user_id in enumerate(model.users.ids):
        mine = told.filter(user_id=user_id)
        life = model.histories.of(row)
        assert [model.items.catalogue.ids.ids[item] for item in life.items] == mine["item_id"].to_list()
        np.testing.assert_array_equal(life.times, mine["timestamp"])
        assert [life.event_types[code] for code in life.types] == mine["event_type"].to_list()
        sessions = mine["session_id"].to_list()
        alike = [[a >= 0 and a == b for b in life.baskets] for a in life.baskets]
        assert alike == [[a is not None and a == b for b in sessions] for a in sessions]
