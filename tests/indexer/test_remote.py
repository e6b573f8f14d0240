"""Object storage, and the command line over it."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from indexer.cli import main
from indexer.remote import RemoteRoot
from recsys.errors import DamagedSnapshot, NotFound
from recsys.snapshot import current_id, open_snapshot
from tests.indexer.small import Tables, Words, events, files, items, litter

URL = "memory://bucket/shop"


@pytest.fixture
def remote() -> RemoteRoot:
    memory = fsspec.filesystem("memory")
    if memory.exists("/bucket"):
        memory.rm("/bucket", recursive=True)
    return RemoteRoot(URL)


def uploaded(remote: RemoteRoot, tables: Tables, num_users: int) -> str:
    tables.write(events(num_users), items())
    snapshot_id = tables.rebuild().snapshot_id
    remote.upload(tables.out, snapshot_id)
    return snapshot_id


def test_there_and_back(remote: RemoteRoot, tmp_path: Path) -> None:
    tables = Tables(tmp_path / "here")
    with pytest.raises(NotFound, match="no snapshot is current"):
        remote.fetch(tmp_path / "there")
    first = uploaded(remote, tables, 20)
    assert remote.fetch(tmp_path / "there") == first
    assert files(open_snapshot(tmp_path / "there").path) == files(tables.current)

    ids = [first, *(uploaded(remote, tables, number) for number in (21, 22, 23))]
    assert [each.snapshot_id for each in remote.manifests()] == ids[:0:-1]
    assert remote.current_id() == ids[3]
    assert remote.rollback() == ids[2]
    assert remote.fetch(tmp_path / "there") == ids[2]
    remote.upload(tables.out, ids[2])  # once more is no second copy
    assert len(remote.manifests()) == 3


def test_what_was_damaged_on_the_way_is_not_published(remote: RemoteRoot, tmp_path: Path) -> None:
    tables = Tables(tmp_path / "here")
    first = uploaded(remote, tables, 20)
    remote.fetch(tmp_path / "there")
    second = uploaded(remote, tables, 21)
    memory = fsspec.filesystem("memory")
    path = f"/bucket/shop/snapshots/{second}/vectors.npy"
    memory.pipe_file(path, bytes([memory.cat_file(path)[0] ^ 1]) + memory.cat_file(path)[1:])
    with pytest.raises(DamagedSnapshot, match=r"vectors\.npy"):
        remote.fetch(tmp_path / "there")
    memory.rm(path)
    with pytest.raises(DamagedSnapshot, match="missing"):
        remote.fetch(tmp_path / "there")
    assert current_id(tmp_path / "there") == first
    assert litter(tmp_path / "there") == []


def test_an_upload_that_died_is_cleared_by_the_next(remote: RemoteRoot, tmp_path: Path) -> None:
    tables = Tables(tmp_path / "here")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/shop/snapshots/0123456789abcdef/vectors.npy", b"half")
    uploaded(remote, tables, 20)
    assert len(memory.ls("/bucket/shop/snapshots")) == 1


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([str(each) for each in arguments])
    said = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, said.out, said.err


def test_commands(
    remote: RemoteRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tables = Tables(tmp_path)
    first, second = uploaded(remote, tables, 20), uploaded(remote, tables, 21)
    for out in (URL, tables.out):
        code, said, _ = run(capsys, "status", "--out", out, "--json", "-")
        assert code == 0
        assert [each["snapshot_id"] for each in json.loads(said)["snapshots"]] == [second, first]
        assert json.loads(said)["current"] == second
        assert run(capsys, "rollback", "--out", out)[:2] == (0, f"snapshot {first} is current in {out}\n")
    assert run(capsys, "fetch", URL, tmp_path / "there")[0] == 0
    assert current_id(tmp_path / "there") == first
    code, _, error = run(capsys, "rebuild", "--out", tmp_path / "new")
    assert code == 2
    assert "--events=None: there is no snapshot" in error
    assert run(capsys, "rebuild", "--out", "nothing://at/all")[0] == 2
    secret = run(capsys, "rebuild", "--out", tmp_path / "new", "--events", "postgresql://me:secret@host/shop")
    assert secret[0] == 2
    assert "secret" not in secret[2]


def test_a_rebuild_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, remote: RemoteRoot
) -> None:
    monkeypatch.setattr("indexer.rebuild.NamedEncoder", lambda **named: Words())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tables = Tables(tmp_path).write(events(), items())
    sources = ("--events", tmp_path / "events.parquet", "--items", tmp_path / "items.parquet")
    code, said, error = run(capsys, "rebuild", *sources, "--out", tables.out)
    assert (code, "721 of 721 events" in said, "shards of texts: 8 of 8" in error) == (0, True, True)
    for carried in (0, 40):  # the second goes on from what the first put there
        code, said, _ = run(capsys, "rebuild", *sources, "--out", URL, "--json", "-")
        assert code == 0
        assert json.loads(said)["texts_carried"] == carried
        assert remote.current_id() == json.loads(said)["snapshot_id"] == tables.current.name
