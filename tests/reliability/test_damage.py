"""Every file of a real snapshot, harmed in every way: seen before anything is parsed, and the one before it serves.

A child does the opening, so that a crash of a native parser would be seen as what it is.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.errors import SnapshotError
from recsys.model import Model
from recsys.serve import Server
from recsys.store import EventStore
from recsys.types import User
from tests.reliability.small import publish_all, shelf_of
from tests.serve.conftest import QUICK

ROOT = Path(__file__).parents[2]


def flip(path: Path, rng: random.Random) -> None:
    """One bit."""
    raw = bytearray(path.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def truncate(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def append(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 5_000)))


def zero(path: Path, rng: random.Random) -> None:
    """4 KiB, from a multiple of 4 KiB on that holds something else."""
    raw = bytearray(path.read_bytes())
    starts = [start for start in range(0, len(raw), 4_096) if any(raw[start : start + 4_096])]
    start = rng.choice(starts)
    end = min(start + 4_096, len(raw))
    raw[start:end] = bytes(end - start)
    path.write_bytes(raw)


def replace_by_link(path: Path, rng: random.Random) -> None:
    """The same bytes, out of the snapshot's hands."""
    snapshot = next(each for each in path.parents if each.parent.name == "snapshots")
    outside = snapshot.parents[1] / f"outside-{rng.randrange(2**32)}"
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def swap(path: Path, rng: random.Random) -> None:
    """With another file of other content."""
    snapshot = next(each for each in path.parents if each.parent.name == "snapshots")
    files = sorted(each for each in snapshot.rglob("*") if each.is_file())
    other = rng.choice([each for each in files if each.read_bytes() != path.read_bytes()])
    mine, its = path.read_bytes(), other.read_bytes()
    path.write_bytes(its)
    other.write_bytes(mine)


HARMS: tuple[Callable[[Path, random.Random], None], ...] = (
    flip,
    truncate,
    append,
    zero,
    replace_by_link,
    remove,
    swap,
)


def harm_all(root: Path, snapshot_id: str, seed: int, rounds: int) -> None:
    """In the child: each file, each harm, `rounds` times; says what was not seen and how many were."""
    rng, shelf = random.Random(seed), shelf_of(root)
    folder, sound = root / "snapshots" / snapshot_id, root / "sound"
    shutil.copytree(folder, sound)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    tried = 0
    for name in names:
        for harm in HARMS:
            for number in range(rounds):
                if not (folder / name).stat().st_size:
                    continue
                harm(folder / name, rng)
                tried += 1
                try:
                    shelf.open(snapshot_id)
                    print("unseen", harm.__name__, name, number, flush=True)
                except SnapshotError:
                    pass
                shutil.rmtree(folder)
                shutil.copytree(sound, folder)
    assert shelf.open(snapshot_id).num_items
    print("tried", tried, len(names), flush=True)


def harmed(model: Model, root: Path, *, seed: int, rounds: int) -> str:
    """What the child said at its end."""
    print("seed", seed)
    publish_all(model, root, 1)
    (snapshot,) = (root / "snapshots").iterdir()
    call = f"harm_all(Path({str(root)!r}), {snapshot.name!r}, {seed}, {rounds})"
    script = f"from pathlib import Path; from tests.reliability.test_damage import harm_all; {call}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.returncode}\n{done.stdout}\n{done.stderr[-3_000:]}"
    *unseen, last = done.stdout.splitlines()
    assert not unseen, f"seed {seed}: {unseen}"
    return last


def test_any_harm_to_any_file_of_a_model_is_seen(model: Model, tmp_path: Path) -> None:
    tried, files = map(int, harmed(model, tmp_path, seed=1, rounds=1).split()[1:])
    assert files > 15
    assert tried > 6 * files


@pytest.mark.full
def test_twenty_harms_of_each_kind_to_every_file_are_seen(model: Model, tmp_path: Path) -> None:
    print(harmed(model, tmp_path, seed=random.SystemRandom().randrange(2**32), rounds=20))


def test_older_files_under_newer_names_are_seen_and_the_one_before_serves(model: Model, tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    older, newer = publish_all(model, root, 2)
    folder = root / "snapshots"
    for path in (folder / older).rglob("*"):  # files that differ, manifest and all
        if path.is_file():
            shutil.copy(path, folder / newer / path.relative_to(folder / older))
    with pytest.raises(SnapshotError):
        shelf_of(root).open(newer)
    with Server(QUICK, shelf=shelf_of(root), store=EventStore.open(tmp_path / "events.db")) as server:
        assert server.snapshot_id == older
        (tenant,) = server.tenants.values()
        assert tenant.backend.live.engine.recommend(User(user_id="u1"), k=3).items
