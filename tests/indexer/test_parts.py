"""Keys, runners and the gate, each by itself."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.gate import Refused, judge, recall
from indexer.moments import keys_of, moments_of
from indexer.progress import line
from indexer.run import ATTEMPTS, LocalRunner
from recsys.errors import InvalidInput
from recsys.index.flat import FlatIndex
from recsys.match.neighbours import Neighbours, NeighboursConfig
from recsys.memory.collective import CollectiveMemory
from recsys.memory.keys import recent_items, superpose
from recsys.model import Model
from tests.indexer.small import Tables, events, items
from tests.world import ENCODER, chains, model_of


def test_keys_are_those_that_are_served() -> None:
    life = chains(50).histories
    codes = np.random.default_rng(0).standard_normal((80, 16)).astype(np.float32)
    config = NeighboursConfig()
    moments = moments_of(life)
    wanted = superpose(recent_items(life, config.window), codes, config.decay)[moments]
    np.testing.assert_allclose(keys_of(life, moments, codes, config), wanted, atol=1e-5)


def test_recall_is_one_where_all_is_found_and_less_where_it_is_not() -> None:
    found = next(each for each in model_of(chains(), with_ranker=False).flow.matchers if isinstance(each, Neighbours))
    assert recall(found) == 1.0
    moments = moments_of(found.histories)
    keys = keys_of(found.histories, moments, found.codes, found.config)
    blind = replace(found, memory=CollectiveMemory(FlatIndex.build(keys[::-1].copy()), found.memory.following))
    assert recall(blind) < 0.5


def test_a_model_that_finds_too_little_or_holds_nan_is_refused(tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events(), items())
    tables.rebuild()
    model = Model.load(tables.current)
    assert judge(model, ENCODER, least_recall=1.0) == {"moments_recall@100": 1.0}
    with pytest.raises(Refused, match=r"recall=1\.0000"):
        judge(model, ENCODER, least_recall=1.1)
    model.items.base[3, 3] = np.nan
    with pytest.raises(Refused, match="vectors: NaN"):
        judge(model, ENCODER, least_recall=0.5)


def test_a_refused_rebuild_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = Tables(tmp_path).write(events(30), items())
    old = tables.rebuild().snapshot_id
    tables.write(events(), items())
    monkeypatch.setattr("indexer.gate.recall", lambda neighbours: 0.2)
    with pytest.raises(Refused, match=r"recall=0\.2000"):
        tables.rebuild()
    assert tables.current.name == old


def twice(number: int) -> int:
    return 2 * number


def fails_once(place: Path) -> str:
    if not place.exists():
        place.touch()
        raise OSError("a hiccup")
    return "done"


def always_fails(place: Path) -> str:
    with place.open("a") as file:
        file.write("x")
    raise OSError("no")


def wrong(place: Path) -> str:
    with place.open("a") as file:
        file.write("x")
    raise InvalidInput.of("field", "value", "wrong")


def dies_once(place: Path) -> str:
    if not place.exists():
        place.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_a_task_that_fails_is_tried_again(tmp_path: Path) -> None:
    runner = LocalRunner()
    assert list(runner.map(fails_once, [tmp_path / "a"])) == ["done"]
    with pytest.raises(OSError, match="no"):
        list(runner.map(always_fails, [tmp_path / "b"]))
    assert len((tmp_path / "b").read_text()) == ATTEMPTS
    with pytest.raises(InvalidInput):
        list(runner.map(wrong, [tmp_path / "c"]))
    assert len((tmp_path / "c").read_text()) == 1
    with pytest.raises(InvalidInput, match="workers=0"):
        LocalRunner(0)


def test_workers_that_die_are_replaced(tmp_path: Path) -> None:
    with LocalRunner(2) as runner:
        places = [tmp_path / name for name in "ab"]
        places[1].touch()
        assert list(runner.map(dies_once, places)) == ["done", "done"]


def test_progress_says_rate_and_time_left() -> None:
    assert line("texts", 0, 0, 10, 0.0) == "texts: 0 of 10"
    assert line("texts", 4, 6, 10, 2.0) == "texts: 6 of 10 (2.0/s, 2 s left)"
    assert line("events read", 500, 500, 0, 1.0) == "events read: 500 (500.0/s)"
