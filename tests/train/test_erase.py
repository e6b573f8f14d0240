"""Snapshots made anew without erased users: as if they had never been, in the old one's place, wherever it dies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import SnapshotError
from recsys.model import Model
from recsys.snapshot import SnapshotWriter, current_id, list_snapshots, open_snapshot, remove
from recsys.train.erase import holding_erased, rewrite_erased, without_users
from recsys.train.fit import fit_flow
from recsys.train.publish import publish
from recsys.types import Item
from tests.world import chains, dataset_of, model_of, table_of


class Tombstones:
    """Users erased, each under its number."""

    def __init__(self, **erased: int) -> None:
        self.erased = erased

    @property
    def last_erased_seq(self) -> int:
        return max(self.erased.values(), default=0)

    def erased_among(self, user_ids: Iterable[str], *, after_seq: int) -> frozenset[str]:
        return frozenset(each for each in user_ids if self.erased.get(each, 0) > after_seq)


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of(chains(num_users=60, num_items=30), with_ranker=False)


def published(model: Model, root: Path, number: int, store_seq: int = 0) -> str:
    settings = replace(model.settings, store_seq=store_seq, metrics={"number": float(number)}, encoder=f"{number}")
    return publish(replace(model, settings=settings), root)


def test_what_remains_is_what_the_others_alone_would_have_made(model: Model, tmp_path: Path) -> None:
    gone = ["u3", "u17", "never heard of"]
    left = without_users(model, gone)
    kept = [row for row in range(60) if row not in (3, 17)]
    assert list(left.users) == [f"u{row}" for row in kept]
    others = replace(model, users=left.users, histories=model.histories.take(np.array(kept)))
    others = replace(others, flow=fit_flow(others.histories, model.items))
    for made, folder in ((left, tmp_path / "left"), (others, tmp_path / "others")):
        folder.mkdir()
        made.save(folder)
    left_files = {p.relative_to(tmp_path / "left"): p.read_bytes() for p in (tmp_path / "left").rglob("*.npy")}
    assert left_files == {
        p.relative_to(tmp_path / "others"): p.read_bytes() for p in (tmp_path / "others").rglob("*.npy")
    }
    assert len(left_files) > 2


def test_a_bare_item_that_only_the_erased_met_loses_its_id() -> None:
    dataset = chains(num_users=20, num_items=10)
    life = dataset.histories
    rows = life.items.copy()
    rows[life.indptr[5] - 1] = 10
    rows[life.indptr[8] - 1] = 11
    items = [*dataset.catalogue.items, Item(item_id="only u4"), Item(item_id="only u7", title="but described")]
    told = replace(life, items=rows)
    whole = dataset_of(told, items)
    table = table_of(items)
    model = model_of(dataset, with_ranker=False)
    model = replace(model, items=table, users=whole.users, histories=told, flow=fit_flow(told, table))
    left = without_users(model, ["u4", "u7"])
    assert [each.item_id for each in left.items.catalogue.items][10:] == ["erased-10", "only u7"]
    assert left.items.catalogue.ids.get("only u4") is None


def test_each_is_replaced_in_its_place(model: Model, tmp_path: Path) -> None:
    ids = [published(model, tmp_path, number, store_seq) for number, store_seq in enumerate((0, 9, 3))]
    before = list_snapshots(tmp_path)
    tombs = Tombstones(u3=5, stranger=7)
    assert [each.manifest.snapshot_id for each in holding_erased(tmp_path, tombs)] == [ids[0], ids[2]]
    renamed = rewrite_erased(tmp_path, tombs)
    assert renamed.keys() == {ids[0], ids[2]}
    after = list_snapshots(tmp_path)
    assert [each.metrics["number"] for each in after] == [2.0, 1.0, 0.0]
    assert [each.created for each in after] == [each.created for each in before]
    assert current_id(tmp_path) == renamed[ids[2]]
    assert {each.snapshot_id for each in after} == {*renamed.values(), ids[1]}
    # The one that reaches beyond the tombstone holds a new life, which stays.
    assert "u3" in Model.load(open_snapshot(tmp_path, ids[1]).path).users
    assert "u3" not in Model.load(open_snapshot(tmp_path, renamed[ids[2]]).path).users
    assert rewrite_erased(tmp_path, tombs) == {}


def test_a_damaged_one_is_removed_unless_it_is_current(model: Model, tmp_path: Path) -> None:
    ids = [published(model, tmp_path, number) for number in range(2)]
    for id_ in ids:
        file = tmp_path / "snapshots" / id_ / "users.parquet"
        file.write_bytes(file.read_bytes()[:-1])
    assert rewrite_erased(tmp_path, Tombstones(u3=5)) == {}
    assert [each.snapshot_id for each in list_snapshots(tmp_path)] == [ids[1]]
    with pytest.raises(SnapshotError, match="is the current one"):
        remove(tmp_path, ids[1])


@pytest.mark.parametrize("step", ["measure", "sync_tree", "_point", "_prune"])
def test_it_may_die_at_any_step_and_be_called_again(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    published(model, tmp_path, 0)
    tombs = Tombstones(u3=5)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"recsys.snapshot.writer.{step}", die)
        with pytest.raises(KeyboardInterrupt):
            rewrite_erased(tmp_path, tombs)
    Model.load(open_snapshot(tmp_path).path)  # whatever is current is whole
    rewrite_erased(tmp_path, tombs)
    assert "u3" not in Model.load(open_snapshot(tmp_path).path).users
    assert list(holding_erased(tmp_path, tombs)) == []


def test_what_a_dead_writer_left_is_cleared(model: Model, tmp_path: Path) -> None:
    published(model, tmp_path, 0)
    litter = tmp_path / "writing" / "dead"
    litter.mkdir()
    (litter / "users.parquet").write_bytes(b"u3")
    with SnapshotWriter(tmp_path) as alive:
        (alive.path / "users.parquet").write_bytes(b"at work")
        litter.mkdir(exist_ok=True)
        rewrite_erased(tmp_path, Tombstones(u3=5))
        assert not litter.exists()
        assert alive.path.exists()
