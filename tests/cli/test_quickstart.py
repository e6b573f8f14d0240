"""The quickstart on a small shop: the whole way, and again from what was kept."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from recsys.cli.quickstart import _compared, stages_for
from recsys.cli.tour import long_lived, next_commands
from recsys.config import Settings
from recsys.data.histories import Histories, histories_from_events
from recsys.store import EventStore
from tests.cli.conftest import Run, World


def histories(lengths: list[int], spans: list[float]) -> Histories:
    times = [np.linspace(0.0, span, length) for length, span in zip(lengths, spans, strict=True)]
    return histories_from_events(
        np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        np.zeros(sum(lengths), np.int32),
        np.concatenate(times),
        num_users=len(lengths),
        clock="timestamp",
    )


def test_the_whole_way_and_again(run: Run, world: World) -> None:
    first = json.loads(run("quickstart", "--data", world.shop, "--config", world.config, "--json", "-").out)
    assert not first["reused"]
    assert first["written"] == first["recommended"][0]
    with EventStore.open(Path(".longrec/quickstart/events.sqlite")) as store:
        assert [event.item_id for event in store.user_events(first["user_id"])] == [first["written"]]

    found = run("quickstart", "--data", world.shop, "--config", world.config)
    assert found.code == 0
    with EventStore.open(Path(".longrec/quickstart/events.sqlite")) as store:  # the first run's event is forgotten
        assert [event.item_id for event in store.user_events(first["user_id"])] == [first["written"]]
    assert f"snapshot {first['snapshot_id']} used again" in found.out
    assert "most popular ever" in found.out
    assert "is no longer proposed" in found.out
    (status,) = (line for line in found.out.splitlines() if " status " in line)
    arguments = shlex.split(status)
    assert run(*arguments[arguments.index("status") :]).code == 0


def report(ours: float, popular: float, best: float) -> dict[str, Any]:
    return {"test": {"ndcg@10": ours}, "baselines": {"popularity": {"ndcg@10": popular}, "ease": {"ndcg@10": best}}}


def test_nothing_is_a_multiple_of_nothing() -> None:
    assert _compared(report(0.2, 0.0, 0.1)) == ""
    assert "2.0 times" in _compared(report(0.2, 0.1, 0.1))


def test_a_better_baseline_is_named() -> None:
    said = _compared(report(0.2, 0.1, 0.3))
    assert "below the best baseline, EASE (0.2000 to 0.3000)" in said


def test_the_shown_user_has_lived_long() -> None:
    assert long_lived(histories([99, 150, 200, 501], [9e9, 1e6, 5e6, 8e9])) == 2
    assert long_lived(histories([3, 5, 4], [10.0, 20.0, 30.0])) == 2


def test_stages_are_a_twentieth_of_the_time_within_bounds() -> None:
    day_s = 86_400.0
    for days, length in ((7_950, 365), (2_000, 100), (700, 56), (100, 20)):
        stages = stages_for(Settings(), histories([10], [days * day_s])).stages
        assert (stages.test_days, stages.validation_days) == (length, length)


def test_next_commands_are_three() -> None:
    commands = [shlex.split(command) for _, command in next_commands(Path("home"), "u", ["i", "j"])]
    assert [next(word for word in each if word in {"recommend", "status", "serve"}) for each in commands] == [
        "recommend",
        "status",
        "serve",
    ]
