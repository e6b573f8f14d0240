"""Windows of a life: what lies in them, what an encoder is told of times and values, and what it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.data.histories import Histories, histories_from_events
from recsys.encode.window import (
    GAP_BUCKETS,
    PADDING,
    VALUE_BUCKETS,
    Far,
    Window,
    gap_buckets,
    latest_windows,
    value_buckets,
    windows_at,
)
from tests.world import DAY_S, START_S, histories_of

MINUTE_S, HOUR_S, YEAR_S = 60.0, 3_600.0, 365 * DAY_S


def one_life(times: list[float], items: list[int] | None = None) -> Histories:
    rows = list(range(len(times))) if items is None else items
    return histories_of([rows], [times], clock="timestamp")


def test_the_latest_events_stand_on_the_left_and_padding_on_the_right() -> None:
    window = latest_windows(histories_of([[5, 6, 7, 8], [9], []]), 3, num_items=10)
    assert window.items.tolist() == [[6, 7, 8], [9, PADDING, PADDING], [PADDING] * 3]
    assert window.lengths.tolist() == [3, 1, 0]
    assert window.valid.tolist() == [[True] * 3, [True, False, False], [False] * 3]


def test_a_window_lies_where_it_is_asked_for() -> None:
    lives = histories_of([[0, 1, 2, 3, 4], [5, 6, 7]])
    window = windows_at(lives, np.array([1, 5]), np.array([2, 3]), num_items=10)
    assert window.items.tolist() == [[1, 2, PADDING], [5, 6, 7]]


def test_a_gap_is_the_time_since_the_event_before_also_before_the_window() -> None:
    gaps = [MINUTE_S, HOUR_S, DAY_S, YEAR_S]
    life = one_life([*(START_S + np.cumsum([0.0, *gaps]))])
    expected = gap_buckets(np.array([0.0, *gaps])).tolist()
    assert latest_windows(life, 9, num_items=5).gaps.tolist() == [expected]
    assert latest_windows(life, 2, num_items=5).gaps.tolist() == [expected[3:]]


def test_a_first_event_has_no_gap_whoever_came_before() -> None:
    lives = histories_of([[0, 1], [], [2, 3]], [[0.0, 9.0], [], [YEAR_S, YEAR_S + HOUR_S]], clock="timestamp")
    gaps = latest_windows(lives, 4, num_items=5).gaps
    assert gaps[:, 0].tolist() == [0, 0, 0]
    assert gaps[2, 1] == gap_buckets(np.array([HOUR_S]))[0]


def test_tied_times_have_no_gap_and_events_out_of_order_are_put_in_order() -> None:
    lives = histories_from_events(
        np.zeros(4, np.int32),
        np.array([3, 0, 1, 2], np.int32),
        START_S + np.array([DAY_S, 0.0, 0.0, HOUR_S]),
        num_users=1,
    )
    window = latest_windows(lives, 4, num_items=5)
    assert window.items.tolist() == [[0, 1, 2, 3]]
    assert window.gaps[0].tolist() == gap_buckets(np.array([0.0, 0.0, HOUR_S, DAY_S - HOUR_S])).tolist()
    assert window.times[0].tolist() == [START_S, START_S, START_S + HOUR_S, START_S + DAY_S]


def test_mere_order_has_no_gaps() -> None:
    lives = histories_of([[0, 1, 2]], [[0.0, 5.0, 9_000.0]], clock="position")
    assert latest_windows(lives, 3, num_items=5).gaps.tolist() == [[0, 0, 0]]


def test_minutes_hours_days_and_years_differ_and_none_is_too_long() -> None:
    spans = np.array([0.0, 1.0, MINUTE_S, HOUR_S, DAY_S, 7 * DAY_S, YEAR_S, 1e15, -5.0])
    buckets = gap_buckets(spans).astype(int).tolist()
    assert buckets == [*sorted(buckets[:-1]), 0]
    assert len(set(buckets[:-1])) == 8
    assert buckets[-2] == GAP_BUCKETS - 1


def test_ratings_differ_quantities_are_coarse_and_nothing_is_bucket_zero() -> None:
    assert len(set(value_buckets(np.array([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0])).tolist())) == 7
    assert value_buckets(np.array([np.nan])).tolist() == [0]
    some = value_buckets(np.array([-1e30, -5.0, 0.0, 5.0, 1e30]))
    assert some.tolist() == sorted(some.tolist())
    assert (some.min(), some.max()) == (1, VALUE_BUCKETS - 1)
    assert len(set(some.tolist())) == 5


def test_values_and_types_come_with_their_events() -> None:
    lives = histories_from_events(
        np.zeros(3, np.int32),
        np.arange(3, dtype=np.int32),
        np.arange(3, dtype=np.float64),
        num_users=1,
        event_types=("view", "buy"),
        types=np.array([0, 1, 0], np.int16),
        values=np.array([np.nan, 3.0, 1.0], np.float32),
    )
    window = latest_windows(lives, 2, num_items=5)
    assert window.types.tolist() == [[1, 0]]
    assert window.values[0].tolist() == value_buckets(np.array([3.0, 1.0])).tolist()


def test_events_of_items_the_encoder_does_not_know_are_left_out() -> None:
    """The window is filled with events that tell something, and the gap goes to the event before among them."""
    life = one_life([START_S, START_S + 60, START_S + 120, START_S + 180], [1, 2, 7, 3])
    window = latest_windows(life, 3, num_items=5)
    assert window.items.tolist() == [[1, 2, 3]]
    assert window.valid.all()
    assert window.lengths.tolist() == [3]
    assert window.gaps[0, 2] == latest_windows(one_life([START_S, START_S + 120], [2, 3]), 2, num_items=5).gaps[0, 1]


@pytest.mark.parametrize("lives", [[[], []], [[]], [[], [3], []]])
def test_empty_histories_are_windows_of_padding(lives: list[list[int]]) -> None:
    window = latest_windows(histories_of(lives), 4, num_items=5)
    assert window.items.shape == (len(lives), 1)
    assert window.valid.sum(dim=1).tolist() == window.lengths.tolist() == [len(life) for life in lives]
    assert {int(row) for row in window.items[~window.valid]} <= {PADDING}


def test_all_columns_go_to_another_device_together() -> None:
    window = latest_windows(histories_of([[0, 1], [2]]), 2, num_items=5)
    moved = window.to("meta")
    assert {getattr(moved, name).device.type for name in Window.__slots__} == {"meta"}
    far = Far(torch.zeros(2, 3, 4), torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3, 1, dtype=torch.int64)).to(
        "meta"
    )
    assert {getattr(far, name).device.type for name in Far.__slots__} == {"meta"}
