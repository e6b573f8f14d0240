from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recsys.errors import DamagedSnapshot, InvalidInput, MixedSnapshot, NotFound, SnapshotError
from recsys.snapshot import (
    MANIFEST_NAME,
    SnapshotMeta,
    SnapshotWriter,
    activate,
    current_id,
    list_snapshots,
    newest_sound,
    open_snapshot,
    rollback,
)

META = SnapshotMeta(
    fingerprints={"encoder": "e1", "ranker": "r1"},
    features=("recency", "text"),
    metrics={"ndcg@10": 0.25},
    config={"window": 50, "kinds": ["a", "b"]},
)


def write(root: Path, text: str = "one", *, meta: SnapshotMeta = META, activate: bool = True) -> str:
    with SnapshotWriter(root) as writer:
        fill(writer.path, text)
        return writer.commit(meta, activate=activate)


def fill(folder: Path, text: str) -> None:
    (folder / "ranker.txt").write_text(f"tree of {text}")
    (folder / "vectors.npy").write_bytes(text.encode() * 10_000)
    (folder / "encoder").mkdir()
    (folder / "encoder" / "config.json").write_text(json.dumps({"name": text}))


def folder_of(root: Path, snapshot_id: str) -> Path:
    return root / "snapshots" / snapshot_id


def litter(root: Path) -> list[str]:
    """What lies below `root` and belongs to no snapshot."""
    names = {path.name for path in root.iterdir()} - {"CURRENT", "LOCK", "snapshots", "writing"}
    return sorted(names | {path.name for path in (root / "writing").iterdir()})


class TestRoundTrip:
    def test_what_was_written_is_opened(self, tmp_path: Path) -> None:
        snapshot_id = write(tmp_path)
        snapshot = open_snapshot(tmp_path)
        manifest = snapshot.manifest
        assert snapshot.snapshot_id == snapshot_id == current_id(tmp_path)
        assert snapshot.file("encoder/config.json").read_text() == '{"name": "one"}'
        assert sorted(manifest.files) == ["encoder/config.json", "ranker.txt", "vectors.npy"]
        assert manifest.files["vectors.npy"].size_bytes == 30_000
        assert (manifest.fingerprints, manifest.features) == (META.fingerprints, META.features)
        assert (manifest.metrics, manifest.config) == (META.metrics, META.config)

    def test_equal_content_has_an_equal_id_and_is_kept_once(self, tmp_path: Path) -> None:
        assert write(tmp_path) == write(tmp_path)
        assert len(list_snapshots(tmp_path)) == 1
        assert write(tmp_path / "elsewhere") == current_id(tmp_path)

    @pytest.mark.parametrize(
        "meta",
        [
            SnapshotMeta(fingerprints={"encoder": "e2", "ranker": "r1"}, features=META.features, config=META.config),
            SnapshotMeta(fingerprints=META.fingerprints, features=("text", "recency"), config=META.config),
            SnapshotMeta(fingerprints=META.fingerprints, features=META.features, config={"window": 51}),
        ],
    )
    def test_other_content_has_another_id(self, tmp_path: Path, meta: SnapshotMeta) -> None:
        assert write(tmp_path, meta=meta) != write(tmp_path)

    def test_without_a_commit_nothing_is_left(self, tmp_path: Path) -> None:
        with SnapshotWriter(tmp_path) as writer:
            fill(writer.path, "one")
        assert litter(tmp_path) == []
        with pytest.raises(NotFound):
            open_snapshot(tmp_path)

    def test_a_second_commit_is_refused(self, tmp_path: Path) -> None:
        with SnapshotWriter(tmp_path) as writer:
            fill(writer.path, "one")
            writer.commit(META)
            with pytest.raises(SnapshotError, match="already committed"):
                writer.commit(META)

    def test_two_writers_do_not_hurt_one_another(self, tmp_path: Path) -> None:
        with SnapshotWriter(tmp_path) as first:
            fill(first.path, "one")
            two = write(tmp_path, "two")
            one = first.commit(META)
        assert current_id(tmp_path) == one
        assert {manifest.snapshot_id for manifest in list_snapshots(tmp_path)} == {one, two}

    def test_many_writers_at_once_leave_sound_snapshots(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(6) as pool:
            ids = set(pool.map(lambda row: write(tmp_path, str(row)), range(12)))
        assert len(ids) == 12
        assert open_snapshot(tmp_path).snapshot_id in ids
        assert 3 <= len(list_snapshots(tmp_path)) <= 4  # the current one may be older than the newest three
        assert litter(tmp_path) == []

    @pytest.mark.parametrize("value", [float("nan"), object()])
    def test_meta_has_to_be_json(self, tmp_path: Path, value: object) -> None:
        with pytest.raises(InvalidInput, match="cannot be written as JSON"):
            write(tmp_path, meta=SnapshotMeta(config={"x": value}))

    @pytest.mark.parametrize("name", [".hidden", "a b", "ä"])
    def test_names_have_to_be_plain(self, tmp_path: Path, name: str) -> None:
        with SnapshotWriter(tmp_path) as writer:
            (writer.path / name).write_text("x")
            with pytest.raises(DamagedSnapshot, match="not a plain file name"):
                writer.commit(META)
        assert litter(tmp_path) == []


class TestLifeCycle:
    def test_the_last_three_are_kept(self, tmp_path: Path) -> None:
        ids = [write(tmp_path, str(row)) for row in range(5)]
        assert [manifest.snapshot_id for manifest in list_snapshots(tmp_path)] == ids[:1:-1]

    def test_the_current_one_is_kept_however_old(self, tmp_path: Path) -> None:
        first = write(tmp_path, "first")
        others = [write(tmp_path, str(row), activate=False) for row in range(4)]
        assert current_id(tmp_path) == first
        assert {manifest.snapshot_id for manifest in list_snapshots(tmp_path)} == {first, *others[1:]}

    def test_rollback_goes_one_back_at_a_time(self, tmp_path: Path) -> None:
        one, two, three = (write(tmp_path, text) for text in ("one", "two", "three"))
        assert current_id(tmp_path) == three
        assert rollback(tmp_path) == two == current_id(tmp_path)
        assert rollback(tmp_path) == one == current_id(tmp_path)
        with pytest.raises(NotFound):
            rollback(tmp_path)
        assert current_id(tmp_path) == one

    def test_rollback_passes_over_a_damaged_one(self, tmp_path: Path) -> None:
        one, two, _ = (write(tmp_path, text) for text in ("one", "two", "three"))
        (folder_of(tmp_path, two) / "ranker.txt").write_text("")
        assert rollback(tmp_path) == one

    def test_activate_verifies_first(self, tmp_path: Path) -> None:
        one, two = write(tmp_path, "one"), write(tmp_path, "two")
        activate(tmp_path, one)
        assert current_id(tmp_path) == one
        (folder_of(tmp_path, two) / "ranker.txt").write_text("")
        with pytest.raises(DamagedSnapshot):
            activate(tmp_path, two)
        assert current_id(tmp_path) == one

    def test_newest_sound_passes_over_damaged_ones(self, tmp_path: Path) -> None:
        one, two, three = (write(tmp_path, text) for text in ("one", "two", "three"))
        (folder_of(tmp_path, three) / MANIFEST_NAME).write_text("{}")
        (folder_of(tmp_path, two) / "vectors.npy").unlink()
        assert newest_sound(tmp_path).snapshot_id == one

    def test_writing_again_mends_a_damaged_one(self, tmp_path: Path) -> None:
        damaged = folder_of(tmp_path, write(tmp_path)) / "ranker.txt"
        damaged.write_text("tree of xxx")
        write(tmp_path)
        assert open_snapshot(tmp_path).file("ranker.txt").read_text() == "tree of one"
        assert litter(tmp_path) == []

    @pytest.mark.parametrize("bad", ["../../etc", "", "xyz", "0" * 17])
    def test_ids_are_ids(self, tmp_path: Path, bad: str) -> None:
        write(tmp_path)
        with pytest.raises(InvalidInput, match="snapshot_id="):
            activate(tmp_path, bad)

    def test_unknown_ids_are_not_found(self, tmp_path: Path) -> None:
        write(tmp_path)
        with pytest.raises(NotFound, match="0000000000000000"):
            open_snapshot(tmp_path, "0" * 16)

    @pytest.mark.parametrize("content", [b"", b"../../../etc\n", b"\xff\xfe"])
    def test_a_damaged_current_is_named(self, tmp_path: Path, content: bytes) -> None:
        write(tmp_path)
        (tmp_path / "CURRENT").write_bytes(content)
        with pytest.raises(SnapshotError, match="CURRENT"):
            open_snapshot(tmp_path)
        assert newest_sound(tmp_path).manifest.features == META.features


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def zero(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes((bytes(4_096) + path.read_bytes()[4_096:])[:size])


def replace_by_link(path: Path) -> None:
    shutil.copy(path, path.parents[3] / "outside")
    path.unlink()
    path.symlink_to(path.parents[3] / "outside")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


class TestDamage:
    @pytest.mark.parametrize("name", ["vectors.npy", "ranker.txt", MANIFEST_NAME])
    @pytest.mark.parametrize("harm", [flip, truncate, zero, replace_by_link, replace_by_folder, Path.unlink])
    def test_any_harm_to_any_file_is_seen(self, tmp_path: Path, harm: Callable[[Path], None], name: str) -> None:
        snapshot_id = write(tmp_path)
        harm(folder_of(tmp_path, snapshot_id) / name)
        with pytest.raises(DamagedSnapshot, match=name):
            open_snapshot(tmp_path)

    def test_every_flipped_bit_of_the_manifest_is_seen(self, tmp_path: Path) -> None:
        file = folder_of(tmp_path, write(tmp_path)) / MANIFEST_NAME
        raw = file.read_bytes()
        for bit in range(0, len(raw) * 8, 3):
            flipped = bytearray(raw)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            with pytest.raises(SnapshotError):
                open_snapshot(tmp_path)

    def test_swapped_files_are_seen(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path, write(tmp_path))
        (folder / "ranker.txt").rename(folder / "aside")
        (folder / "vectors.npy").rename(folder / "ranker.txt")
        (folder / "aside").rename(folder / "vectors.npy")
        with pytest.raises(DamagedSnapshot, match=r"vectors\.npy|ranker\.txt"):
            open_snapshot(tmp_path)

    def test_an_older_file_of_equal_size_is_seen(self, tmp_path: Path) -> None:
        old, new = (folder_of(tmp_path, write(tmp_path, text)) for text in ("one", "two"))
        shutil.copy(old / "vectors.npy", new / "vectors.npy")
        with pytest.raises(DamagedSnapshot, match=r"vectors\.npy has SHA-256"):
            open_snapshot(tmp_path)

    def test_an_older_manifest_is_seen(self, tmp_path: Path) -> None:
        old, new = (folder_of(tmp_path, write(tmp_path, text)) for text in ("one", "two"))
        shutil.copy(old / MANIFEST_NAME, new / MANIFEST_NAME)
        with pytest.raises(DamagedSnapshot, match=f"is that of snapshot {old.name}"):
            open_snapshot(tmp_path)

    def test_a_file_too_many_is_seen(self, tmp_path: Path) -> None:
        (folder_of(tmp_path, write(tmp_path)) / "extra.bin").write_bytes(b"x")
        with pytest.raises(DamagedSnapshot, match=r"extra\.bin is not in the manifest"):
            open_snapshot(tmp_path)

    def test_a_linked_folder_is_seen(self, tmp_path: Path) -> None:
        encoder = folder_of(tmp_path, write(tmp_path)) / "encoder"
        encoder.rename(tmp_path / "outside")
        encoder.symlink_to(tmp_path / "outside")
        with pytest.raises(DamagedSnapshot, match="encoder is not a regular file"):
            open_snapshot(tmp_path)

    def test_a_linked_snapshot_is_not_found(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path, write(tmp_path))
        folder.rename(tmp_path / "outside")
        folder.symlink_to(tmp_path / "outside")
        with pytest.raises(NotFound):
            open_snapshot(tmp_path)

    @pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"format_version":1}', "[" * 5_000])
    def test_what_is_no_manifest_is_damage(self, tmp_path: Path, text: str) -> None:
        (folder_of(tmp_path, write(tmp_path)) / MANIFEST_NAME).write_text(text)
        with pytest.raises(DamagedSnapshot, match="not a snapshot's manifest"):
            open_snapshot(tmp_path)

    def test_another_format_is_mixed(self, tmp_path: Path) -> None:
        file = folder_of(tmp_path, write(tmp_path)) / MANIFEST_NAME
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 99}))
        with pytest.raises(MixedSnapshot, match="format_version=99: this program reads version 1"):
            open_snapshot(tmp_path)


class TestExpect:
    @pytest.mark.parametrize(
        ("fingerprints", "features", "named"),
        [
            ({"encoder": "e2"}, None, "encoder e1, here is e2"),
            ({"index": "i1"}, None, "index None"),
            ({"encoder": "e1"}, ["recency", "text", "new"], r"\['new'\]"),
            ({"encoder": "e1"}, ["text", "recency"], "their order"),
        ],
    )
    def test_names_what_differs(
        self, tmp_path: Path, fingerprints: Mapping[str, str], features: list[str] | None, named: str
    ) -> None:
        write(tmp_path)
        with pytest.raises(MixedSnapshot, match=named):
            open_snapshot(tmp_path).expect(fingerprints, features)

    def test_passes_what_fits(self, tmp_path: Path) -> None:
        write(tmp_path)
        open_snapshot(tmp_path).expect({"encoder": "e1"}, ["recency", "text"])

    def test_a_file_not_held_is_damage(self, tmp_path: Path) -> None:
        write(tmp_path)
        with pytest.raises(DamagedSnapshot, match=r"holds no items\.faiss"):
            open_snapshot(tmp_path).file("items.faiss")


DIES_AT_CALL = """
import os, shutil, sys
from pathlib import Path
from recsys.snapshot import SnapshotMeta, SnapshotWriter

root, fatal, calls = Path(sys.argv[1]), int(sys.argv[2]), 0

def deadly(call):
    def run(*args, **named):
        global calls
        calls += 1
        if calls == fatal:
            os._exit(9)
        return call(*args, **named)
    return run

for owner, names in [(os, ("fsync", "unlink", "rmdir")), (Path, ("rename", "mkdir", "write_bytes"))]:
    for name in names:
        setattr(owner, name, deadly(getattr(owner, name)))
with SnapshotWriter(root) as writer:
    (writer.path / "ranker.txt").write_text("new tree")
    (writer.path / "vectors.npy").write_text("new vectors")
    writer.commit(SnapshotMeta())
print(calls)
"""


def test_a_writer_may_die_at_any_step(tmp_path: Path) -> None:
    """Before and after every fsync, rename, unlink: a sound current snapshot, and no litter after the next write."""
    old = tmp_path / "old"
    for text in ("one", "two", "three"):  # so that the next commit also prunes
        before = write(old, text)
    deaths, code = 0, 9
    while code == 9:
        root = shutil.copytree(old, tmp_path / f"at-{deaths + 1}")
        command = [sys.executable, "-c", DIES_AT_CALL, str(root), str(deaths + 1)]
        code = subprocess.run(command, check=False, capture_output=True).returncode
        deaths += code == 9
        held = open_snapshot(root)
        assert held.snapshot_id == before or held.file("ranker.txt").read_text() == "new tree"
        after = write(root, "four")
        assert current_id(root) == after
        assert litter(root) == []
        assert len(list((root / "snapshots").iterdir())) == 3
        assert all(open_snapshot(root, manifest.snapshot_id) for manifest in list_snapshots(root))
    assert code == 0
    assert deaths >= 12
