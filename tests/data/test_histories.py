"""Grouping events into CSR, against a plain Python twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.histories import Histories, histories_from_events

NUM_USERS = 4
events = st.lists(st.tuples(st.integers(0, NUM_USERS - 1), st.integers(0, 3), st.integers(0, 2)), max_size=25)


def build(rows: list[tuple[int, int, int]], *, with_ties: bool = False) -> Histories:
    """Events (user, time, tie); the item is the event's place in the input, so that order can be seen."""
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return histories_from_events(
        columns[:, 0].astype(np.int32),
        np.arange(len(rows), dtype=np.int32),
        columns[:, 1].astype(np.float64),
        num_users=NUM_USERS,
        ties=columns[:, 2].astype(np.float64) if with_ties else None,
    )


def plain(rows: list[tuple[int, int, int]], *, with_ties: bool) -> list[list[int]]:
    places = range(len(rows))
    return [
        sorted(
            (i for i in places if rows[i][0] == user),
            key=lambda i: (rows[i][1], rows[i][2] if with_ties else 0, i),
        )
        for user in range(NUM_USERS)
    ]


def lists(histories: Histories) -> list[list[int]]:
    return [histories.items[histories.slice(user)].tolist() for user in range(len(histories))]


@given(events, st.booleans())
def test_grouping_equals_the_plain_twin(rows: list[tuple[int, int, int]], with_ties: bool) -> None:
    assert lists(build(rows, with_ties=with_ties)) == plain(rows, with_ties=with_ties)


@given(events)
def test_sorted_logs_take_the_short_ways_to_the_same_place(rows: list[tuple[int, int, int]]) -> None:
    for order in (sorted(rows, key=lambda row: row[1]), sorted(rows)):
        assert lists(build(order)) == plain(order, with_ties=False)


def test_columns_move_together_and_have_defaults() -> None:
    users, items = np.array([1, 0, 1], np.int32), np.array([5, 6, 7], np.int32)
    times = np.array([9.0, 1.0, 3.0])
    full = histories_from_events(
        users,
        items,
        times,
        num_users=3,
        event_types=("view", "buy"),
        types=np.array([0, 1, 1], np.int16),
        values=np.array([0.5, 1.5, 2.5], np.float32),
        baskets=np.array([-1, 4, 2], np.int32),
    )
    assert full.indptr.tolist() == [0, 1, 3, 3]
    assert full.items.tolist() == [6, 7, 5]
    assert full.times.tolist() == [1, 3, 9]
    assert full.types.tolist() == [1, 1, 0]
    assert full.values.tolist() == [1.5, 2.5, 0.5]
    assert full.baskets.tolist() == [4, 2, -1]
    bare = histories_from_events(users, items, times, num_users=3)
    assert np.isnan(bare.values).all()
    assert (bare.baskets == -1).all()
    assert (bare.types == 0).all()
    assert bare.event_types == ("view",)


def test_prefixes_are_the_first_events() -> None:
    histories = build([(0, 0, 0), (0, 1, 0), (0, 2, 0), (2, 0, 0)])
    some = histories.prefixes(np.array([0, 2, 0, 1]), np.array([2, 1, 0, 0]))
    assert lists(some) == [[0, 1], [3], [], []]
    assert lists(histories.take(np.array([2, 0]))) == [[3], [0, 1, 2]]


def test_one_history_is_a_view_of_all() -> None:
    histories = build([(0, 0, 0), (0, 1, 0), (2, 0, 0)])
    assert [lists(histories.of(user)) for user in range(3)] == [[[0, 1]], [[]], [[2]]]
    assert np.shares_memory(histories.of(0).items, histories.items)


@pytest.mark.parametrize("k", [0, 1, 2, 9])
def test_last_are_the_events_of_least_age(k: int) -> None:
    histories = build([(0, 0, 0), (0, 1, 0), (0, 2, 0), (2, 0, 0)])
    assert lists(histories.last(k)) == lists(histories.keep(histories.ages < k))
