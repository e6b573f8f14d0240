"""activate and rollback, of a folder and of a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from recsys.serve import Server, ServerConfig
from recsys.snapshot import current_id
from tests.cli.conftest import Run, World
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore


def test_a_folder_names_the_one_to_start_with(run: Run, world: World, tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    shutil.copytree(world.snapshots, root)
    snapshot_id = current_id(root)
    (root / "CURRENT").unlink()
    assert run("activate", snapshot_id, "--snapshots", root).code == 0
    assert current_id(root) == snapshot_id
    assert run("activate", "0" * 16, "--snapshots", root).code == 2
    (root / "snapshots" / snapshot_id / "ranker.txt").write_text("damaged")
    (root / "CURRENT").unlink()
    assert run("activate", snapshot_id, "--snapshots", root).code == 1
    assert not (root / "CURRENT").exists()


def test_a_server_changes_over_and_back(run: Run, tmp_path: Path) -> None:
    shelf = FakeShelf(FakeEngine("s1"), FakeEngine("s2"))
    with Server(ServerConfig(port=0, lame_duck_s=0.0), shelf=shelf, store=FakeStore()) as server:
        target = f"127.0.0.1:{server.port}"
        done = run("activate", "s2", "--target", target, "--json", tmp_path / "done.json")
        assert done.code == 0, done.err
        found = json.loads((tmp_path / "done.json").read_text())
        assert (found["serving"]["snapshot_id"], found["previous"]["snapshot_id"]) == ("s2", "s1")
        assert run("rollback", "--target", target).code == 0
        assert server.snapshot_id == shelf.now == "s1"
        assert run("activate", "s9", "--target", target).code == 2
