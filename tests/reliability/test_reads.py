"""Whatever is written, deleted, swapped and restarted, a ranking is that of the events acknowledged so far, no more and
no less: the trained engine behind gRPC, which keeps summaries of lives, against one that reads a dict from scratch."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from recsys.client import RecsysClient, Written
from recsys.model import Model
from recsys.recommend import Recommender
from recsys.serve import LaneConfig, Server
from recsys.serve.ops.config import ReplayConfig
from recsys.store import EventStore
from recsys.types import Candidate, Event, User
from tests.reliability.small import NUM_ITEMS, publish_all, shelf_of
from tests.serve.conftest import QUICK
from tests.world import ENCODER

CANDIDATES = [f"i{row}" for row in range(0, NUM_ITEMS, 3)]
LATER_S = 1.65e9
ROWS = st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=5)
USERS = st.sampled_from(["u1", "u2", "ann", "bob"])  # two that the snapshots know, and two strangers


class Shop(RuleBasedStateMachine):
    """`told` is the dict: events by user, as acknowledged."""

    model: Model

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._root = Path(self._folder.name)
        self.told: dict[str, list[Event]] = {}
        self.sent: list[tuple[str, list[Event], Written]] = []
        self.gone: set[str] = set()
        self.clock = itertools.count(1)

    @initialize()
    def open(self) -> None:
        self.ids = publish_all(self.model, self._root / "snapshots", 2)
        self.oracle = Recommender.open(self._root / "snapshots", self.ids[0], encoder=ENCODER)
        self._start()

    @rule(user=USERS, rows=ROWS)
    def write(self, user: str, rows: list[int]) -> None:
        now = next(self.clock)
        events = [
            Event(user_id=user, item_id=f"i{row}", timestamp=LATER_S + 100.0 * now + place, event_id=f"{now}-{place}")
            for place, row in enumerate(rows)
        ]
        written = self.client.write_events(events, request_id=f"r{now}")
        assert written.accepted == len(events)
        self.sent.append((f"r{now}", events, written))
        self.told.setdefault(user, []).extend(events)
        self.read(user)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def write_again(self, data: st.DataObject) -> None:
        request_id, events, written = data.draw(st.sampled_from(self.sent))
        assert self.client.write_events(events, request_id=request_id) == written
        self.read(events[0].user_id)

    @rule(user=USERS)
    def read(self, user: str) -> None:
        events = tuple(self.told.get(user, ()))
        page = self.client.rank_items(User(user_id=user, now=LATER_S + 1e6), CANDIDATES)
        known = User(user_id="" if user in self.gone else user, events=events, now=LATER_S + 1e6)
        wanted = self.oracle.rank(known, [Candidate(item_id=each) for each in CANDIDATES])
        assert [row.item_id for row in page.items] == [row.item_id for row in wanted.items]
        assert [row.score for row in page.items] == pytest.approx([row.score for row in wanted.items], abs=1e-5)
        held = len(self.oracle.history(known))
        assert self.client.list_memories(user).total == held

    @rule(user=USERS)
    def delete(self, user: str) -> None:
        self.client.delete_user(user)
        self.told.pop(user, None)
        self.gone.add(user)
        self.read(user)

    @rule(which=st.integers(0, 1))
    def swap(self, which: int) -> None:
        self.client.activate_snapshot(self.ids[which], force=True)

    @rule()
    def restart(self) -> None:
        self._stop()
        self._start()

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self._stop()
        self._folder.cleanup()

    def _start(self) -> None:
        store = EventStore.open(self._root / "events.db")
        self.server = Server(QUICK, shelf=shelf_of(self._root / "snapshots"), store=store)
        self.server.start()
        self.server.load()
        self.client = RecsysClient(f"127.0.0.1:{self.server.port}", timeout_s=30)

    def _stop(self) -> None:
        self.client.close()
        self.server.stop()


def _run(model: Model, examples: int, steps: int) -> None:
    Shop.model = model
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Shop,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=checks,
            derandomize=examples < 10,
        ),
    )


def test_every_read_sees_every_acknowledged_write(model: Model) -> None:
    _run(model, examples=3, steps=15)


@pytest.mark.full
def test_every_read_sees_every_acknowledged_write_at_length(model: Model) -> None:
    _run(model, examples=60, steps=50)


@pytest.fixture
def served(model: Model, tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    ids = publish_all(model, tmp_path / "snapshots", 2)
    # Sixteen callers at once are no overload here: whoever comes may wait.
    patient = LaneConfig(workers=2, queue=64, default_timeout_s=60.0, max_timeout_s=60.0, max_wait_s=60.0)
    config = replace(QUICK, replay=ReplayConfig(keep_previous_s=0.0), work=patient, write=patient)
    store = EventStore.open(tmp_path / "events.db")
    with Server(config, shelf=shelf_of(tmp_path / "snapshots"), store=store) as server:
        yield f"127.0.0.1:{server.port}", ids


@pytest.mark.parametrize("turns", [8, pytest.param(100, marks=pytest.mark.full)])
def test_sixteen_callers_see_their_own_writes_through_swaps(served: tuple[str, list[str]], turns: int) -> None:
    """Each writes and counts its own; meanwhile the snapshot changes over again and again."""
    target, ids = served
    done = threading.Event()

    def swap() -> int:
        with RecsysClient(target, timeout_s=30) as client:
            count = 0
            while not done.is_set():
                client.activate_snapshot(ids[count % 2], force=True)
                count += 1
            return count

    def live(caller: int) -> int:
        user = f"caller-{caller}"
        with RecsysClient(target, timeout_s=60) as client:
            for turn in range(turns):
                event = Event(user_id=user, item_id=f"i{turn % NUM_ITEMS}", timestamp=LATER_S + turn)
                client.write_events([event])
                page = client.list_memories(user)
                assert page.total == turn + 1
                assert page.memories[0].event.item_id == event.item_id
        return turns

    with ThreadPoolExecutor(17) as pool:
        swapping = pool.submit(swap)
        try:
            assert sum(pool.map(live, range(16))) == 16 * turns
        finally:
            done.set()
        assert swapping.result(60) > 0
