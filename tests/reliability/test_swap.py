"""Fifty swaps between trained snapshots under load: every answer is of the one it names, none fails, and what served
before is let go."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.client import RecsysClient
from recsys.model import Model
from recsys.recommend import Recommender
from recsys.serve import LaneConfig, Server
from recsys.serve.ops.config import ReplayConfig
from recsys.store import EventStore
from recsys.train.publish import publish
from recsys.types import Candidate, User
from tests.reliability.small import shelf_of
from tests.serve.conftest import QUICK
from tests.world import ENCODER

CANDIDATES = [f"i{row}" for row in range(30)]
NOW_S = 1.7e9


@pytest.mark.parametrize("swaps", [10, pytest.param(50, marks=pytest.mark.full)])
def test_answers_are_of_one_snapshot_and_old_ones_are_let_go(model: Model, tmp_path: Path, swaps: int) -> None:
    root = tmp_path / "snapshots"
    # One of them has no ranker, so their scores differ in every row.
    ids = [publish(each, root) for each in (model, replace(model, ranker=None))]
    wanted = {}
    for each in ids:
        oracle = Recommender.open(root, each, encoder=ENCODER)
        rows = oracle.rank(User(user_id="u1", now=NOW_S), [Candidate(item_id=name) for name in CANDIDATES]).items
        wanted[each] = {row.item_id: row.score for row in rows}
    assert all(abs(wanted[ids[0]][name] - wanted[ids[1]][name]) > 1e-9 for name in CANDIDATES)
    # Three callers at once are no overload here: whoever comes may wait.
    patient = LaneConfig(workers=2, queue=64, default_timeout_s=60.0, max_timeout_s=60.0, max_wait_s=60.0)
    config = replace(QUICK, replay=ReplayConfig(keep_previous_s=0.05), work=patient)
    done = threading.Event()

    def ask(target: str) -> int:
        with RecsysClient(target, timeout_s=60) as client:
            count = 0
            while not done.is_set():
                page = client.rank_items(User(user_id="u1", now=NOW_S), CANDIDATES)
                scores = {row.item_id: row.score for row in page.items}
                assert scores == pytest.approx(wanted[page.serving.snapshot_id], abs=1e-6)
                count += 1
            return count

    del oracle
    before = _open()
    with Server(config, shelf=shelf_of(root), store=EventStore.open(tmp_path / "events.db")) as server:
        target = f"127.0.0.1:{server.port}"
        with RecsysClient(target, timeout_s=60) as client, ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask, target) for _ in range(3)]
            try:
                for turn in range(swaps):
                    client.activate_snapshot(ids[turn % 2], force=True)
            finally:
                done.set()
            assert all(each.result(60) > 0 for each in asking)
        threading.Event().wait(0.5)  # the snapshot before is kept for 0.05 s
        assert _open() - before <= 1 + 1  # what serves, and one that a kept ranking may still name


def _open() -> int:
    """Models in memory, by the array that only they hold."""
    gc.collect()
    return len({id(each.model.histories) for each in gc.get_objects() if type(each) is Recommender})
