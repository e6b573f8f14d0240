"""The power goes while four writers write: nothing acknowledged is lost. And the same test sees a loss where the store
does not wait for the disk, so that it would see one here."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from recsys.store import EventStore
from tests.reliability.disk import disk, missing

REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

# Prints each batch's name once it is acknowledged; a batch is one user's, and its items say how large it is.
WRITER = """
import os, random, sys, threading
from recsys.store import EventStore
from recsys.types import Event
where, seed, level = sys.argv[1:]
store = EventStore.open(where)
raw = store._engines.writer.raw_connection()
raw.cursor().execute(f"PRAGMA synchronous={level}")
raw.close()
def write(writer):
    rng = random.Random(f"{seed}-{writer}")
    for batch in range(100_000):
        name, size = f"{seed}-{writer}-{batch}", rng.randint(1, 200)
        store.write_events([Event(user_id=name, item_id=str(size), event_id=str(row)) for row in range(size)])
        os.write(1, f"{name}\\n".encode())
for writer in range(4):
    threading.Thread(target=write, args=(writer,)).start()
"""


def cut(folder: Path, *, seed: int, level: str, tear: bool) -> tuple[set[str], Counter[str], dict[str, int]]:
    """After one cut at a random moment: (acknowledged, events kept by batch, events that each should have)."""
    print("seed", seed)
    after = random.Random(seed).randint(5, 120)
    with disk(folder, seed if tear else 0) as (point, durable):
        command = [sys.executable, "-c", WRITER, str(point / "events.db"), str(seed), level]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            names = [process.stdout.readline().strip() for _ in range(after)]
            process.send_signal(signal.SIGKILL)
            names += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert all(names)
    with EventStore.open(durable / "events.db") as store:
        kept = Counter(event.user_id for _, event in store.iter_events())
        sizes = {event.user_id: int(event.item_id) for _, event in store.iter_events()}
    return set(names), kept, sizes


def loses_nothing(folder: Path, seed: int, *, tear: bool) -> int:
    acknowledged, kept, sizes = cut(folder, seed=seed, level="FULL", tear=tear)
    assert not acknowledged - set(kept), f"seed {seed}: acknowledged and gone"
    assert kept == sizes, f"seed {seed}: parts of batches"
    return len(acknowledged)


@pytest.mark.parametrize("tear", [False, True], ids=["whole", "torn"])
def test_a_cut_loses_nothing_acknowledged(tmp_path: Path, tear: bool) -> None:
    loses_nothing(tmp_path, 1, tear=tear)


def test_without_waiting_for_the_disk_the_same_cut_loses(tmp_path: Path) -> None:
    acknowledged, kept, _ = cut(tmp_path, seed=1, level="NORMAL", tear=False)
    assert acknowledged - set(kept), "the disk kept what nobody synced, so this proves nothing"


@pytest.mark.full
def test_forty_cuts_lose_nothing(tmp_path: Path) -> None:
    first = random.SystemRandom().randrange(2**31)
    batches = sum(loses_nothing(tmp_path / str(row), first + row, tear=bool(row % 2)) for row in range(40))
    print(f"40 cuts, {batches} batches acknowledged, none lost")
