"""Kill the writer, fill its disk, fail its fsync: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from recsys.errors import StoreError
from recsys.store import EventStore
from recsys.types import Event

# Four writers; each batch's number is printed once it is acknowledged. Batches have 1 to 60 events of one user.
WRITER = """
import os, random, sys, threading
from recsys.store import EventStore
from recsys.types import Event
store = EventStore.open(sys.argv[1])
def write(writer):
    rng = random.Random(f"{sys.argv[2]}-{writer}")
    for batch in range(100_000):
        name = f"{sys.argv[2]}-{writer}-{batch}"
        size = rng.randint(1, 60)
        events = [Event(user_id=name, item_id=str(size), event_id=str(row)) for row in range(size)]
        store.write_events(events, request_id=name)
        os.write(1, f"{name}\\n".encode())
for writer in range(4):
    threading.Thread(target=write, args=(writer,)).start()
"""


def test_kill_nine_loses_nothing_acknowledged_and_leaves_no_half_batch(where: str) -> None:
    acknowledged: list[str] = []
    for life in range(3):
        acknowledged += _write_until_killed(where, life, num_batches=random.Random(life).randint(5, 200))
    with EventStore.open(where) as store:
        kept = Counter(event.user_id for _, event in store.iter_events())
        promised = {event.user_id: int(event.item_id) for _, event in store.iter_events()}
        assert set(acknowledged) <= set(kept)
        assert kept == promised  # whole batches, each event once
        for name in acknowledged[:20]:  # a client that heard nothing asks again
            batch = [Event(user_id=name, item_id=str(kept[name]), event_id=str(row)) for row in range(kept[name])]
            assert store.write_events(batch, request_id=name).accepted == kept[name]
        assert Counter(event.user_id for _, event in store.iter_events()) == kept


def _write_until_killed(where: str, life: int, num_batches: int) -> list[str]:
    """The names of the batches acknowledged until a SIGKILL after at least `num_batches` of them."""
    command = [sys.executable, "-c", WRITER, where, str(life)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        names = [process.stdout.readline().strip() for _ in range(num_batches)]
        process.send_signal(signal.SIGKILL)
        names += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert process.returncode == -signal.SIGKILL
    assert all(names)
    return names


# A limit on file size is a full disk to whoever writes: SQLite's log cannot grow past it.
FULL_DISK = """
import resource, sys
from recsys.errors import StoreError
from recsys.store import EventStore
from recsys.types import Event
def limit(size_bytes): resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))
with EventStore.open(sys.argv[1]) as store:
    written, refused = 0, 0
    limit(400_000)
    while refused < 3:
        try:
            written += store.write_events([Event(user_id="u", item_id=str(written), timestamp=0.0)] * 100).accepted
        except StoreError as error:
            assert "not acknowledged" in str(error), error
            refused += 1
        assert len(store.user_events("u")) == written
    limit(resource.RLIM_INFINITY)
    written += store.write_events([Event(user_id="u", item_id="after")] * 100).accepted
print(written)
"""


def test_a_full_disk_refuses_writes_serves_reads_and_heals(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "events.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with EventStore.open(tmp_path / "events.db") as store:
        assert len(store.user_events("u")) == int(done.stdout) > 200


FAILED_FSYNC = """
import sys
from recsys.errors import StoreError
from recsys.store import EventStore
from recsys.types import Event
with EventStore.open(sys.argv[1]) as store:
    for batch in range(40):
        try:
            store.write_events([Event(user_id="u", item_id=str(batch))])
            print("acknowledged", batch)
        except StoreError:
            print("refused", batch)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to make an fsync fail")
def test_a_failed_fsync_is_never_acknowledged(tmp_path: Path) -> None:
    EventStore.open(tmp_path / "events.db").close()  # making the tables syncs, too
    inject = "inject=fdatasync,fsync:error=EIO:when=12+9"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", inject]
    command += [sys.executable, "-c", FAILED_FSYNC, str(tmp_path / "events.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    outcomes = [line.split() for line in done.stdout.splitlines()]
    acknowledged = {number for outcome, number in outcomes if outcome == "acknowledged"}
    assert len(outcomes) == 40
    assert 0 < len(acknowledged) < 40
    with EventStore.open(tmp_path / "events.db") as store:
        kept = Counter(event.item_id for event in store.user_events("u"))
        assert acknowledged <= set(kept)
        assert set(kept.values()) == {1}


def test_after_a_failed_commit_the_next_write_works(where: str) -> None:
    with EventStore.open(where) as store:
        store.write_events([Event(user_id="u", item_id="before")])
        with store._engines.writer.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE longrec_state RENAME TO elsewhere")
        with pytest.raises(StoreError, match=r"not acknowledged: .*longrec_state"):
            store.write_events([Event(user_id="u", item_id="lost")])
        with store._engines.writer.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO longrec_state")
        store.write_events([Event(user_id="u", item_id="after")])
        assert [event.item_id for event in store.user_events("u")] == ["before", "after"]
