"""What was met, against a plain loop; and lives that grow."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.memory.meetings import HALF_LIFE_EVENTS, Meetings
from tests.world import DAY_S, histories_of


def lives(seed: int, num_users: int = 8) -> tuple[list[list[int]], list[list[float]]]:
    rng = np.random.default_rng(seed)
    told = [rng.integers(0, 9, n).tolist() for n in rng.integers(0, 60, num_users)]
    return told, [np.sort(rng.integers(0, 30, len(life)) * DAY_S).tolist() for life in told]


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_loop(seed: int) -> None:
    told, times = lives(seed)
    met = Meetings.of(histories_of(told, times, clock="timestamp"))
    assert met.lengths.tolist() == [len(life) for life in told]
    assert met.last_times.tolist() == [time[-1] if time else -np.inf for time in times]
    for user, (life, time) in enumerate(zip(told, times, strict=True)):
        rows = slice(met.indptr[user], met.indptr[user + 1])
        assert met.items[rows].tolist() == list(dict.fromkeys(life))
        for row in range(rows.start, rows.stop):
            places = [at for at, item in enumerate(life) if item == met.items[row]]
            assert met.counts[row] == len(places)
            assert met.moments[row] == len({time[at] for at in places})
            assert met.last[row] == places[-1]
            assert (met.first_s[row], met.last_s[row]) == (time[places[0]], time[places[-1]])
            faded = sum(0.5 ** ((places[-1] - at) / HALF_LIFE_EVENTS) for at in places)
            assert met.decayed[row] == pytest.approx(faded, rel=1e-5)


@pytest.mark.parametrize("cuts", [[0], [1], [20], [5, 6, 40], [59], [60]])
def test_a_life_that_grows_is_the_life_read_whole(cuts: list[int]) -> None:
    rng = np.random.default_rng(len(cuts))
    items, times = rng.integers(0, 9, 60).astype(np.int32), np.sort(rng.integers(0, 30, 60) * DAY_S)
    met = Meetings.of(histories_of([[]], [[]], clock="timestamp"))
    for begin, end in zip([0, *cuts], [*cuts, 60], strict=True):
        met = met.then(items[begin:end], times[begin:end])
    whole = Meetings.of(histories_of([items.tolist()], [times.tolist()], clock="timestamp"))
    for name in Meetings.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(met, name), getattr(whole, name), name)


def test_growing_leaves_what_was_there_as_it_was() -> None:
    met = Meetings.of(histories_of([[3, 4, 3]]))
    before = met.counts.copy()
    met.then(np.array([3, 5], np.int32), np.array([3.0, 4.0]))
    np.testing.assert_array_equal(met.counts, before)


def test_what_was_met_beyond_all_half_lives_counts_as_nothing() -> None:
    met = Meetings.of(histories_of([[7, *[1] * 20_000, 7]]))
    assert met.decayed[met.items == 7].tolist() == [1.0]


def test_size_is_that_of_the_distinct() -> None:
    short, long = Meetings.of(histories_of([[1, 2, 3]])), Meetings.of(histories_of([[1, 2, 3] * 5_000]))
    assert short.size_bytes == long.size_bytes


def test_nobody_met_nothing() -> None:
    assert Meetings.of(histories_of([])).users.tolist() == []
    assert Meetings.of(histories_of([[], []])).indptr.tolist() == [0, 0, 0]
