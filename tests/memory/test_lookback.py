"""What an encoder is given of the far past in spans: exactly what lies before, in bounded work."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.memory.lookback import SPANS, spans_before
from tests.world import histories_of

REACH = int(SPANS.sum())


def spans_of(life: list[int], start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(items [M n], weights [M], ages [M]) of one life before an event."""
    far = spans_before(histories_of([[99], life]), np.array([1]), np.array([start]))
    return far.items[0].numpy(), far.weights[0].numpy(), far.ages[0].numpy()


def test_the_first_span_is_what_came_just_before() -> None:
    items, weights, _ = spans_of(list(range(100)), 60)
    assert sorted(items[0][items[0] >= 0].tolist()) == [58, 59]
    assert sorted(items[3][items[3] >= 0].tolist()) == [52, 53]
    assert weights[0] == 2


@pytest.mark.parametrize("start", [0, 1, 2, 63, 64, 65, 500, 4_000])
def test_every_span_tells_of_its_own_events_and_nothing_later(start: int) -> None:
    items, weights, ages = spans_of(list(range(start + 50)), start)
    assert weights.sum() == min(start, REACH)
    for row, weight, age in zip(items, weights, ages, strict=True):
        named = row[row >= 0]
        assert (len(named) > 0) == (weight > 0)
        assert ((named < start - age) & (named >= start - age - weight)).all()


def test_nothing_of_another_user_is_told() -> None:
    far = spans_before(histories_of([[7] * 90, [8] * 3, [9] * 90]), np.array([1, 2]), np.array([3, 0]))
    assert set(far.items[0].unique().tolist()) == {-1, 8}
    assert set(far.items[1].unique().tolist()) == {-1}
    assert far.weights[1].sum() == 0


def test_no_events_at_all() -> None:
    far = spans_before(histories_of([[], []]), np.array([0, 1]), np.array([0, 0]))
    assert (far.items == -1).all()
    assert (far.weights == 0).all()


def test_a_read_has_one_size_whatever_the_life() -> None:
    short, long = (spans_of(list(range(n)), n)[0].shape for n in (3, 20_000))
    assert short == long
