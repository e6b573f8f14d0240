"""Re-consumption against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.match import Corpus, States
from recsys.match.repeat import HALF_LIFE_EVENTS, Repeat
from tests.world import DAY_S, histories_of, item_of, table_of

ITEMS = table_of([item_of(row) for row in range(6)])


def scores(lives: list[list[int]], times: list[list[float]], now: float) -> np.ndarray:
    histories = histories_of(lives, times, clock="timestamp")
    states = States(histories=histories, now=np.full(len(lives), now), items=ITEMS)
    everything = np.tile(np.arange(6, dtype=np.int32), (len(lives), 1))
    return Repeat.fit(Corpus(histories=histories, items=ITEMS)).read(states).score(everything)


def plain(life: list[int], times: list[float], now: float, item: int) -> list[float]:
    """(recent, count, last, due) of one item in one life."""
    places = [at for at, met in enumerate(life) if met == item]
    if not places:
        return [0.0, 0.0, 0.0, 0.0]
    moments = sorted({times[at] for at in places})
    recent = sum(0.5 ** ((len(life) - 1 - at) / HALF_LIFE_EVENTS) for at in places)
    elapsed_s = max(now - moments[-1], 0.0)
    gap_s = (moments[-1] - moments[0]) / max(len(moments) - 1, 1)
    due = min(elapsed_s / max(gap_s, 1.0), 8.0) if len(moments) > 1 else 0.0
    return [recent, math.log1p(len(moments)), 1 / (1 + elapsed_s / DAY_S), due]


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lives = [rng.integers(0, 6, n).tolist() for n in rng.integers(0, 30, 8)]
    times = [sorted((rng.integers(0, 40, len(life)) * DAY_S).tolist()) for life in lives]
    found = scores(lives, times, 45 * DAY_S)
    wanted = [
        [plain(life, time, 45 * DAY_S, item) for item in range(6)] for life, time in zip(lives, times, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_rhythm_is_due_when_its_gap_has_passed() -> None:
    """Bought every 10 days and last 10 days ago: due is 1. Twice in one basket is one meeting, which has no rhythm."""
    found = scores([[0, 0, 0], [1, 1]], [[0.0, 10 * DAY_S, 20 * DAY_S], [DAY_S, DAY_S]], 30 * DAY_S)
    assert found[0, 0, 3] == pytest.approx(1.0)
    assert found[0, 0, 1] == pytest.approx(math.log(4))
    assert found[1, 1, 1] == pytest.approx(math.log(2))
    assert found[1, 1, 3] == 0.0


def test_nobody_repeats_for_another() -> None:
    found = scores([[0], [1]], [[0.0], [0.0]], 1.0)
    assert np.argwhere(found[..., 1]).tolist() == [[0, 0], [1, 1]]
