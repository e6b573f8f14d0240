"""A rebuild may die anywhere: a snapshot serves, the next run takes up what was finished and leaves nothing."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest

from indexer.failpoints import VARIABLE
from indexer.work import working
from recsys.errors import Conflict, RecsysError
from recsys.model import Model
from recsys.snapshot import open_snapshot
from tests.indexer.small import Tables, events, files, items, litter

STEPS = ("spill", "items", "users", "texts", "train", "moments", "merge", "gate", "publish")
POINTS = (
    *(f"{kind}-shard-1" for kind in ("items", "users", "texts", "moments")),
    "before-spill",
    *(f"after-{step}" for step in STEPS),  # the place before a step is that after the one before
)
"""In the order in which each is passed still: what an earlier run finished is not built again."""


def die(home: Path, point: str) -> None:
    """In a process of its own: a rebuild that is killed at `point`."""
    os.environ[VARIABLE] = point
    Tables(home).rebuild()


@pytest.fixture(scope="module")
def children() -> multiprocessing.context.ForkServerContext:
    """Processes that have imported everything and run nothing: a fork of this one could hang."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tests.indexer.small"])
    return context


def test_killed_at_every_failpoint(children: multiprocessing.context.ForkServerContext, tmp_path: Path) -> None:
    whole = Tables(tmp_path / "whole").write(events(30), items())
    whole.rebuild()
    whole.write(events(60), items(42))
    wanted = whole.rebuild()

    tables = Tables(tmp_path / "dying").write(events(30), items())
    old = tables.rebuild().snapshot_id
    tables.write(events(60), items(42))
    for point in POINTS:
        child = children.Process(target=die, args=(tables.home, point))
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL, point
        assert Model.load(open_snapshot(tables.out).path)
        assert open_snapshot(tables.out).snapshot_id == (wanted.snapshot_id if point == "after-publish" else old)
    assert tables.rebuild().snapshot_id == wanted.snapshot_id
    assert litter(tables.out) == []


def test_finished_shards_are_not_built_again(
    children: multiprocessing.context.ForkServerContext, tmp_path: Path
) -> None:
    tables = Tables(tmp_path).write(events(), items())
    child = children.Process(target=die, args=(tables.home, "users-shard-2"))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert litter(tables.out)
    done = tables.rebuild()
    assert done.resumed == {"items": 3, "users": 2, "texts": 0, "moments": 0}
    assert done.built == {"items": 0, "users": 1, "texts": 3, "moments": 3}
    assert litter(tables.out) == []
    fresh = Tables(tmp_path / "fresh").write(events(), items())
    fresh.rebuild()
    assert files(tables.current) == files(fresh.current)


def test_two_at_once(tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events(), items())
    with working(tables.out / ".work", wait=False), pytest.raises(Conflict, match="another rebuild is at work"):
        tables.rebuild()
    assert tables.rebuild().snapshot_id


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events(30), items())
    old = tables.rebuild().snapshot_id
    tables.write(events(), items())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RecsysError, match="the disk is full"):
            tables.rebuild()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert open_snapshot(tables.out).snapshot_id == old
    assert litter(tables.out) == []


def test_a_full_disk_publishes_nothing_and_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events(30), items())
    out = small_disk / "out"
    old = tables.rebuild(out=out).snapshot_id
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - 300_000))
    tables.write(events(60), items())
    with pytest.raises(RecsysError, match="the disk is full"):
        tables.rebuild(out=out)
    assert open_snapshot(out).snapshot_id == old
    assert litter(out) == []
    filler.unlink()
    assert tables.rebuild(out=out).snapshot_id != old
