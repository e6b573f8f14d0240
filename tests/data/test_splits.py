from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.histories import Histories, histories_from_events
from recsys.data.splits import Queries, global_time_split, leave_one_out, shuffle_ties
from recsys.errors import InvalidInput

Row = tuple[int, int, float, int]  # user, item, time, basket


def build(rows: list[Row], num_users: int = 3) -> Histories:
    users, items, times, baskets = (
        (np.array(column) for column in zip(*rows, strict=True)) if rows else [np.empty(0)] * 4
    )
    return histories_from_events(
        users.astype(np.int32),
        items.astype(np.int32),
        times.astype(np.float64),
        num_users=num_users,
        baskets=baskets.astype(np.int32),
    )


def lists(histories: Histories) -> list[list[int]]:
    return [histories.items[histories.slice(user)].tolist() for user in range(len(histories))]


def test_leave_one_out_holds_out_one_event_and_the_rest() -> None:
    histories = build([(0, 1, 1, -1), (0, 2, 2, -1), (0, 3, 3, -1), (1, 4, 1, -1), (2, 5, 1, -1), (2, 6, 2, -1)])
    last = leave_one_out(histories)
    assert (last.users.tolist(), last.targets.tolist(), last.times.tolist()) == ([0, 2], [3, 6], [3, 2])
    assert lists(last.states) == [[1, 2], [5]]
    before = leave_one_out(histories, back=2)
    assert (before.users.tolist(), before.targets.tolist(), lists(before.states)) == ([0], [2], [[1]])
    with pytest.raises(InvalidInput, match="back=0"):
        leave_one_out(histories, back=0)


def test_shuffling_ties_moves_nothing_else() -> None:
    rows = [(user, item, float(item // 10), -1) for user in range(3) for item in range(40)]
    histories = build(rows)
    shuffled = shuffle_ties(histories, seed=1)
    assert shuffled.times.tolist() == histories.times.tolist()
    assert shuffled.items.tolist() != histories.items.tolist()
    assert [sorted(user) for user in lists(shuffled)] == lists(histories)
    assert shuffle_ties(histories, seed=1).items.tolist() == shuffled.items.tolist()
    assert shuffle_ties(histories, seed=2).items.tolist() != shuffled.items.tolist()


def as_plain(queries: Queries, histories: Histories) -> list[tuple[float, int, int, list[int], list[int]]]:
    states = lists(queries.states(histories))
    return [
        (
            float(queries.times[q]),
            int(queries.users[q]),
            int(queries.baskets[q]),
            queries.targets[queries.indptr[q] : queries.indptr[q + 1]].tolist(),
            states[q],
        )
        for q in range(len(queries))
    ]


def plain_queries(rows: list[Row], start: float, end: float) -> list[tuple[float, int, int, list[int], list[int]]]:
    """The same by dicts and loops; sorted, for the order among equal times is not promised."""
    rows = sorted(rows, key=lambda row: row[2])
    groups: dict[tuple[int, int, float], list[Row]] = {}
    for row in rows:
        if start <= row[2] < end:
            groups.setdefault((row[0], row[3], row[2] if row[3] < 0 else 0.0), []).append(row)
    out = []
    for (user, basket, _), members in groups.items():
        time = min(row[2] for row in members)
        state = [row[1] for row in rows if row[0] == user and row[2] < time]
        out.append((time, user, basket, sorted({row[1] for row in members}), state))
    return sorted(out)


row = st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 6).map(lambda t: t / 2 + 1e9), st.integers(-1, 2))


@given(st.lists(row, max_size=25))
def test_time_split_equals_the_plain_twin(rows: list[Row]) -> None:
    histories = build(rows)
    past, (middle, late) = global_time_split(histories, 1e9 + 1, 1e9 + 2)
    assert (past.times < 1e9 + 1).all()
    assert past.num_events == sum(row[2] < 1e9 + 1 for row in rows)
    for queries, window in ((middle, (1e9 + 1, 1e9 + 2)), (late, (1e9 + 2, np.inf))):
        assert (np.diff(queries.times) >= 0).all()
        assert sorted(as_plain(queries, histories)) == plain_queries(rows, *window)


def test_time_split_asks_only_for_the_targets() -> None:
    histories = build([(0, 1, 1.0, 0), (0, 2, 5.0, 1), (0, 3, 5.0, 1), (1, 4, 6.0, 2)])
    _, (queries,) = global_time_split(histories, 4.0, targets=histories.items != 2)
    assert as_plain(queries, histories) == [(5.0, 0, 1, [3], [1]), (6.0, 1, 2, [4], [])]
    assert as_plain(queries.take(np.array([1])), histories) == [(6.0, 1, 2, [4], [])]


def test_time_split_refuses_what_it_cannot_compare() -> None:
    histories = build([(0, 1, 1.0, 0)])
    with pytest.raises(InvalidInput, match="needs timestamps"):
        global_time_split(replace(histories, clock="position"), 1.0)
    with pytest.raises(InvalidInput, match="rising"):
        global_time_split(histories, 2.0, 2.0)
    with pytest.raises(InvalidInput, match="rising"):
        global_time_split(histories)
