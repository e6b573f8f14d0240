"""The exact read against a loop over every moment, and what bounds it."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.histories import Histories
from recsys.memory.addresses import MAX_OCCURRENCES, Addresses
from recsys.memory.keys import recency_matrix
from tests.world import dense, histories_of

DECAY, WINDOW, NUM_ITEMS = 0.7, 4, 9


def lives(seed: int, num_users: int = 12) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, NUM_ITEMS, n).tolist() for n in rng.integers(0, 15, num_users)]


def plain_key(life: list[int]) -> np.ndarray:
    key = np.zeros(NUM_ITEMS)
    for age, item in enumerate(life[::-1][:WINDOW]):
        key[item] += DECAY**age
    return key


def plain_read(past: list[list[int]], present: list[int]) -> list[float]:
    """The product of the present key with that of each moment that something followed; 0 of the others."""
    key = plain_key(present)
    return [
        float(key @ plain_key(life[: at + 1])) if at + 1 < len(life) else 0.0
        for life in past
        for at in range(len(life))
    ]


def read(past: Histories, present: Histories) -> np.ndarray:
    addresses = Addresses.build(past, NUM_ITEMS, decay=DECAY, window=WINDOW)
    return dense(addresses.read(recency_matrix(present, NUM_ITEMS, decay=DECAY, window=WINDOW)))


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_loop_over_all_moments(seed: int) -> None:
    past, present = lives(seed), lives(seed + 100, 6)
    wanted = np.array([plain_read(past, life) for life in present])
    assert wanted.any()
    np.testing.assert_allclose(read(histories_of(past), histories_of(present)), wanted, rtol=1e-5, atol=1e-6)


def test_knows_what_followed_each_moment() -> None:
    addresses = Addresses.build(histories_of([[1, 2, 3], [4]]), NUM_ITEMS, decay=DECAY, window=WINDOW)
    assert addresses.following.tolist() == [2, 3, -1, -1]


def test_a_past_without_moments_answers_nothing() -> None:
    for past in ([[], []], [[1], [2]]):
        assert not read(histories_of(past), histories_of([[1, 2]])).any()


def test_occurrences_of_a_hit_are_thinned_evenly() -> None:
    """A read touches at most window * MAX_OCCURRENCES moments an item, from all of its past; others stay exact."""
    times = 2 * MAX_OCCURRENCES + 10
    past = histories_of([[0, 1]] * times + [[2, 3]])
    found = read(past, histories_of([[0], [2]]))
    touched = np.flatnonzero(found[0])
    assert MAX_OCCURRENCES // 2 <= len(touched) <= MAX_OCCURRENCES
    assert touched.max() > 0.99 * past.num_events
    assert np.flatnonzero(found[1]).tolist() == [past.num_events - 2]


def test_size_counts_its_arrays() -> None:
    addresses = Addresses.build(histories_of(lives(0)), NUM_ITEMS, decay=DECAY, window=WINDOW)
    assert addresses.size_bytes >= 8 * addresses.postings.nnz
