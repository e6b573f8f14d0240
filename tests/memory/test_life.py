"""The pyramid's parts: which events stand in which mean."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.memory.life import Life, LifeConfig
from tests.world import START_S, histories_of

ONE = np.array([0])
CODES = np.eye(64, dtype=np.float32)


def after(life: list[int], times: list[float] | None = None, **settings: float) -> Life:
    memory = Life.empty(1, CODES, LifeConfig(**settings))  # type: ignore[arg-type]
    if times is None:
        memory.write(ONE, histories_of([life]))
    else:
        memory.write(ONE, histories_of([life], [times], clock="timestamp"))
    return memory


def parts(memory: Life, level: int) -> list[list[int]]:
    """The items behind each finished mean of a level, the oldest first."""
    held, keep = memory._held, memory._config.keep
    made = int(held.made[0, level])
    at = [number % keep for number in range(max(0, made - keep), made)]
    return [np.flatnonzero(held.means[0, level, place]).tolist() for place in at]


def test_full_sessions_make_segments_and_segments_eras() -> None:
    memory = after(list(range(31)), session=3, fan=2, levels=3, keep=50)
    sessions = [list(range(start, start + 3)) for start in range(0, 30, 3)]
    assert parts(memory, 0) == sessions
    assert parts(memory, 1) == [one + other for one, other in zip(sessions[::2], sessions[1::2], strict=True)][:4]
    assert parts(memory, 2) == [list(range(12))]
    assert memory._held.weights[0, 1, :4].tolist() == [6] * 4
    assert memory._held.counts[0].tolist() == [1, 6, 12, 31]


def test_a_pause_ends_a_session() -> None:
    steps = [60.0, 60.0, 7_200.0, 60.0, 60.0, 60.0, 60.0, 9_000.0]
    memory = after(list(range(8)), list(START_S + np.cumsum(steps)), session=4, pause_s=1_800.0)
    assert parts(memory, 0) == [[0, 1], [2, 3, 4, 5], [6]]


@pytest.mark.parametrize("piece", [1, 2, 5])
def test_a_pause_between_two_writes_ends_a_session_too(piece: int) -> None:
    rng = np.random.default_rng(0)
    times = START_S + np.cumsum(rng.choice([60.0, 4_000.0], 60, p=[0.8, 0.2]))
    whole = after(list(range(60)), times.tolist(), session=5, fan=2, keep=40)
    pieces = Life.empty(1, CODES, whole._config)
    for start in range(0, 60, piece):
        span = slice(start, start + piece)
        pieces.write(ONE, histories_of([list(range(60))[span]], [times[span].tolist()], clock="timestamp"))
    for level in range(3):
        assert parts(pieces, level) == parts(whole, level)


def test_each_level_keeps_its_last_and_the_life_keeps_all() -> None:
    memory = after([1] + [2] * 4_000, session=4, fan=2, levels=3, keep=5)
    for level in range(3):
        assert len(parts(memory, level)) == 5
        assert all(part == [2] for part in parts(memory, level))
    found = memory.read(ONE, CODES[None, [1]])
    assert found.similarity[0, 0, 0] == pytest.approx(1 / 4_000, rel=0.01)
    assert found.weight[0, 0, 0] == 4_001


def test_the_recent_past_is_kept_event_by_event() -> None:
    memory = after(list(range(40)), recent=10)
    found = memory.read(ONE, CODES[None, 30:40])
    np.testing.assert_allclose(found.similarity, 1.0, atol=1e-6)
    np.testing.assert_array_equal(found.weight, 1.0)
    np.testing.assert_array_equal(found.age[0, :, 0], np.arange(10)[::-1])
    assert (memory.read(ONE, CODES[None, 20:30]).similarity < 0.5).all()


def test_ages_count_from_the_last_event_of_a_part() -> None:
    """Twelve events: sessions 0-4 and 5-9, and two events that grow; the segment has both sessions, unfinished."""
    memory = after(list(range(12)), recent=0, session=5, fan=2, levels=2)
    found = memory.entries(ONE, 20)
    some = found.age[0, 0] >= 0
    pairs = sorted(zip(found.weight[0, 0, some].tolist(), found.age[0, 0, some].tolist(), strict=True))
    assert pairs == [(2, 0), (5, 2), (5, 7), (10, 2), (12, 0)]
