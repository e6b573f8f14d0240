"""What serve does where the folder of snapshots is not in order."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recsys.serve import Server, ServerConfig
from recsys.serve.log import configure_logging
from recsys.serve.shelf import SnapshotShelf
from recsys.snapshot import current_id
from recsys.store import EventStore
from tests.cli.conftest import World


def test_a_damaged_current_is_logged_and_the_newest_sound_one_serves(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging()
    root = tmp_path / "snapshots"
    shutil.copytree(world.snapshots, root)
    snapshot_id = current_id(root)
    (root / "CURRENT").write_bytes(b"nonsense")
    store = EventStore.open(tmp_path / "events.sqlite")
    with Server(ServerConfig(port=0, lame_duck_s=0.0), shelf=SnapshotShelf(root), store=store) as server:
        assert server.snapshot_id == snapshot_id
    said = capsys.readouterr()
    assert "CURRENT cannot be read" in said.out + said.err
