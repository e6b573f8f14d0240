"""Counts that fade with time, against plain loops; and never a look ahead."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.histories import Clock
from recsys.match import Corpus, States
from recsys.match.popularity import HALF_LIVES_S, MAX_BINS, Popularity
from tests.world import DAY_S, START_S, histories_of, item_of, table_of

ITEMS = table_of([item_of(row) for row in range(4)])
NOBODY = histories_of([[]], [[]], clock="timestamp")


def fit(lives: list[list[int]], days: list[list[float]], *, clock: Clock = "timestamp") -> Popularity:
    times = [[START_S + day * DAY_S for day in life] for life in days]
    return Popularity.fit(Corpus(histories=histories_of(lives, times, clock=clock), items=ITEMS))


def scores(popularity: Popularity, *days: float) -> np.ndarray:
    """[day, item, signal]"""
    states = States(
        histories=NOBODY.take(np.zeros(len(days), np.int64)),
        now=START_S + np.array(days) * DAY_S,
        items=ITEMS,
    )
    return popularity.read(states).score(np.tile(np.arange(4, dtype=np.int32), (len(days), 1)))


def test_counts_ever_and_fading_by_hand() -> None:
    """Item 0 on days 0 and 0.5, item 1 on day 7; asked on day 8, at whose start bins 0 to 7 have ended."""
    found = scores(fit([[0, 0, 1]], [[0.0, 0.5, 7.0]]), 8.0)[0]
    season, week = (2.0 ** (-7 * DAY_S / half_life_s) for half_life_s in HALF_LIVES_S)
    np.testing.assert_allclose(found[0], [np.log(3), 2 * season, 2 * week], rtol=1e-5)
    np.testing.assert_allclose(found[1], [np.log(2), 1, 1], rtol=1e-5)
    assert week == 0.5
    assert not found[2:].any()


def test_the_present_bin_and_later_ones_are_not_seen() -> None:
    popularity = fit([[0, 1, 2]], [[0.0, 3.0, 9.0]])
    found = scores(popularity, 0.0, 0.9, 1.0, 3.9, 4.0, 9.99, 10.0, 500.0)[..., 0] > 0
    assert found[:, :3].tolist() == [
        [False, False, False], [False, False, False], [True, False, False], [True, False, False],
        [True, True, False], [True, True, False], [True, True, True], [True, True, True],
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_events_at_or_after_now_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    days = np.sort(rng.uniform(0, 400, 300))
    items = rng.integers(0, 4, 300)
    full = fit([items.tolist()], [days.tolist()])
    for now in (days[20], days[100], 200.0, 399.0):
        before = days < now
        part = fit([items[before].tolist()], [days[before].tolist()])
        mine, theirs = scores(full, now)[0], scores(part, now)[0]
        np.testing.assert_allclose(mine[:, 0], theirs[:, 0], rtol=1e-5)
        # The fading forms are seen as shares of the best: a common factor of all items says nothing.
        np.testing.assert_allclose(mine / mine.max(axis=0), theirs / theirs.max(axis=0), rtol=1e-5)


def test_years_after_the_last_event_its_week_still_stands() -> None:
    week = scores(fit([[0, 1, 1]], [[0.0, 8.0, 8.5]]), 9_000.0)[0, :, 2]
    assert week[1] > week[0] > 0


def test_many_years_fit_into_a_bounded_number_of_bins() -> None:
    rng = np.random.default_rng(0)
    days = np.sort(rng.uniform(0, 3 * MAX_BINS, 2_000))
    popularity = fit([rng.integers(0, 4, 2_000).tolist()], [days.tolist()])
    assert popularity.counts.shape[0] <= MAX_BINS + 1
    assert popularity.counts.sum() == 2_000
    now = 2.0 * MAX_BINS
    seen = np.expm1(scores(popularity, now)[0, :, 0]).sum()
    assert (days < now - 3.1).sum() <= round(float(seen)) <= (days < now).sum()


def test_without_a_clock_all_forms_are_the_count() -> None:
    found = scores(fit([[0, 0, 1]], [[0.0, 1.0, 2.0]], clock="position"), 0.0)[0]
    np.testing.assert_allclose(found[:2], [[np.log(3), 2, 2], [np.log(2), 1, 1]], rtol=1e-5)


def test_before_the_beginning_nothing_is_popular() -> None:
    popularity = fit([[0, 1]], [[0.0, 1.0]])
    assert not scores(popularity, -5.0).any()
    forever_ago = States(histories=NOBODY, now=np.array([-np.inf]), items=ITEMS)
    assert not popularity.read(forever_ago).score(np.arange(4, dtype=np.int32)[None]).any()
