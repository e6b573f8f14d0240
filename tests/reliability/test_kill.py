"""kill -9 at random while four writers write, ask again and read: over gRPC, process after process, on one store.

Every acknowledged batch is there once and whole, whatever was sent twice; one that nobody was told of is there whole or
not at all; and nothing is there that nobody sent.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recsys.client import RecsysClient, Written
from recsys.errors import DeadlineExceeded, Overloaded, Unavailable
from recsys.store import EventStore
from recsys.types import Event, User
from tests.reliability.served import STEP, Served

MAYBE = (Unavailable, Overloaded, DeadlineExceeded)
"""What leaves a caller in doubt: it may ask again."""
ITEMS = 40


class Writer:
    """One client: batches of its own users, each until it is acknowledged or, now and then, given up in doubt."""

    def __init__(self, number: int, seed: int, served: Served, history: Path) -> None:
        self.name = f"w{number}"
        self.sent: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}
        self.retries = self.reads = 0
        self.stopping = threading.Event()
        self._random = random.Random(f"{seed}-{number}")
        self._served = served
        self._history = history / f"{self.name}.log"
        self._target = ""
        self._client: RecsysClient | None = None

    def run(self) -> None:
        with self._history.open("w") as history:
            while not self.stopping.is_set():
                user = f"{self.name}-{len(self.sent)}"
                size = self._random.randint(1, 200)
                self.sent[user] = size
                print("send", user, size, file=history, flush=True)
                if self._write(user, size):
                    self.acknowledged[user] = size
                    print("acknowledged", user, file=history, flush=True)
                    if self._random.random() < 0.3:
                        self._read(self._random.choice([user, *self.acknowledged]))
        if self._client is not None:
            self._client.close()

    def _write(self, user: str, size: int) -> bool:
        """False where it was given up. One in five is sent again after the answer, by two callers at once."""
        events = [Event(user_id=user, item_id=f"item-{row % ITEMS}", timestamp=1.7e9 + row) for row in range(size)]
        while True:
            try:
                first = self._now().write_events(events, request_id=user)
                break
            except MAYBE:
                self.retries += 1
                if self._random.random() < 0.1 or self.stopping.is_set():
                    return False
        assert first.accepted == size, (user, first)
        if self._random.random() < 0.2:
            with ThreadPoolExecutor(2) as pool:
                for again in pool.map(lambda _: self._again(events, user), range(2)):
                    assert again is None or again == first, (user, first, again)
        return True

    def _again(self, events: list[Event], user: str) -> Written | None:
        self.retries += 1
        try:
            return self._now().write_events(events, request_id=user)
        except MAYBE:
            return None

    def _read(self, user: str) -> None:
        """A ranking counts every event of an acknowledged batch, also one that another process acknowledged."""
        while not self.stopping.is_set():
            try:
                page = self._now().rank_items(User(user_id=user), ["item-0"])
            except MAYBE:
                continue
            wanted = -(-self.acknowledged[user] // ITEMS)
            assert page.items[0].score - STEP == wanted, (user, page.items[0].score, wanted)
            self.reads += 1
            return

    def _now(self) -> RecsysClient:
        while not (target := self._served.target):
            if self.stopping.is_set():
                raise Unavailable("over")
            time.sleep(0.01)
        if self._client is None or target != self._target:
            if self._client is not None:
                self._client.close()
            self._target, self._client = target, RecsysClient(target, timeout_s=5)
        return self._client


def drive(folder: Path, *, seed: int, lives: int) -> str:
    """One server after the other on one store, each but the last killed; what was found, for the record."""
    print("seed", seed)
    pauses = random.Random(seed)
    with Served(folder) as served, ThreadPoolExecutor(4) as pool:
        writers = [Writer(number, seed, served, folder) for number in range(4)]
        writing = []
        try:
            for _ in range(lives):
                served.start()
                writing = writing or [pool.submit(writer.run) for writer in writers]
                time.sleep(pauses.uniform(0.05, 1.5))
                served.kill()
            served.start()
            time.sleep(0.5)
        finally:
            for writer in writers:
                writer.stopping.set()
        for each in writing:
            each.result(60)
        served.terminate()
    sent = {user: size for writer in writers for user, size in writer.sent.items()}
    acknowledged = {user: size for writer in writers for user, size in writer.acknowledged.items()}
    with EventStore.open(folder / "events.db") as store:
        kept = Counter(event.user_id for _, event in store.iter_events())
    lost = {user: size for user, size in acknowledged.items() if kept[user] < size}
    assert not lost, f"seed {seed}: acknowledged and not there: {lost}"
    doubled = {user: (kept[user], size) for user, size in sent.items() if kept[user] > size}
    assert not doubled, f"seed {seed}: there more than once: {doubled}"
    torn = {user: (kept[user], size) for user, size in sent.items() if kept[user] not in (0, size)}
    assert not torn, f"seed {seed}: a part of a batch: {torn}"
    assert not set(kept) - set(sent), f"seed {seed}: nobody sent these"
    retries, reads = sum(writer.retries for writer in writers), sum(writer.reads for writer in writers)
    assert acknowledged
    assert retries
    assert reads
    return (
        f"{lives} kills, {len(acknowledged)} batches of {sum(acknowledged.values())} events acknowledged, "
        f"{len(sent) - len(acknowledged)} in doubt, {retries} retries, {reads} reads"
    )


def test_kill_nine_in_the_middle_of_everything(tmp_path: Path) -> None:
    print(drive(tmp_path, seed=1, lives=2))


@pytest.mark.full
def test_kill_nine_forty_times(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(drive(tmp_path, seed=seed, lives=40))
