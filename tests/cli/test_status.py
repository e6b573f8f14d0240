"""status and doctor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from recsys.cli.doctor import _package
from recsys.snapshot import current_id
from tests.cli.conftest import Run, World


def test_a_sound_snapshot(run: Run, world: World) -> None:
    found = json.loads(run("status", "--snapshots", world.snapshots, "--json", "-").out)
    (facts,) = found["snapshots"]
    assert facts["snapshot_id"] == found["current"] == current_id(world.snapshots)
    assert facts["problem"] is None
    assert facts["sizes_bytes"]["matchers/transitions"] > 0
    assert "test_ndcg@10" in facts["metrics"]


def test_a_damaged_snapshot_is_seen(run: Run, world: World, tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    shutil.copytree(world.snapshots, root)
    ranker = root / "snapshots" / current_id(root) / "ranker.txt"
    ranker.write_bytes(ranker.read_bytes()[:-1])
    found = run("status", "--snapshots", root)
    assert found.code == 1
    assert "NOT SOUND" in found.out
    assert "ranker.txt" in found.err


def test_only_the_current_one_is_shown_whole(run: Run, world: World) -> None:
    found = run("status", "--snapshots", world.snapshots).out
    assert found.count("matchers/transitions") == 1
    assert "test NDCG@10" in found


@pytest.mark.parametrize(("held", "code"), [(b"\xff\n", 1), (None, 2)])
def test_without_a_current_one_all_say_the_same(
    run: Run, world: World, tmp_path: Path, held: bytes | None, code: int
) -> None:
    root = tmp_path / "snapshots"
    shutil.copytree(world.snapshots, root)
    snapshot_id = current_id(root)
    (root / "CURRENT").unlink()
    if held is not None:
        (root / "CURRENT").write_bytes(held)
    status, asked = run("status", "--snapshots", root), run("recommend", "--snapshots", root)
    assert (status.code, asked.code) == (code, code)
    assert status.err == asked.err
    assert snapshot_id in status.out


def test_the_doctor_finds_this_place_sound(run: Run) -> None:
    found = run("doctor", "--port", 0, "--json", "-")
    checks = {each["name"]: each for each in json.loads(found.out)}
    assert found.code == 0
    assert checks["torch"]["state"] == "ok"
    assert "durable write" in checks["store is writable"]["found"]


def test_the_doctor_names_the_extra_that_is_missing() -> None:
    check = _package("no-such-distribution", "engine", "failed")
    assert (check.state, check.missing) == ("failed", "engine")
    assert "longrec[engine]" in check.found
