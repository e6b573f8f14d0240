"""State keys against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.memory.keys import latest_items, next_items, recency_matrix, recent_items, superpose
from tests.world import dense, histories_of

LIVES = [[3, 1, 3], [], [2], [0, 1, 2, 9]]


def test_recency_matrix_by_hand() -> None:
    matrix = recency_matrix(histories_of(LIVES), 4, decay=0.5, window=3)
    assert matrix.shape == (4, 4)
    np.testing.assert_allclose(
        dense(matrix),
        [[0, 0.5, 0, 1.25], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0.25, 0.5, 0]],  # item 9 has no column, but ages the others
    )


def test_recency_matrix_weighs_items() -> None:
    weights = np.array([1, 10, 100, 1000], np.float32)
    matrix = recency_matrix(histories_of(LIVES), 4, decay=0.5, window=2, item_weights=weights)
    np.testing.assert_allclose(dense(matrix)[0], [0, 5, 0, 1000])


def test_recent_items_stay_within_a_history() -> None:
    assert recent_items(histories_of(LIVES), 2).tolist() == [
        [3, -1], [1, 3], [3, 1],
        [2, -1],
        [0, -1], [1, 0], [2, 1], [9, 2],
    ]  # fmt: skip


def test_latest_items_are_padded() -> None:
    assert latest_items(histories_of(LIVES), 3).tolist() == [[3, 1, 3], [-1, -1, -1], [2, -1, -1], [9, 2, 1]]
    assert latest_items(histories_of([[], []]), 2).tolist() == [[-1, -1], [-1, -1]]


def test_next_items_end_with_each_history() -> None:
    assert next_items(histories_of(LIVES)).tolist() == [1, 3, -1, -1, 1, 2, 9, -1]
    assert next_items(histories_of([[], []])).tolist() == []


def test_superposed_one_hot_codes_are_the_sparse_keys() -> None:
    histories = histories_of(LIVES)
    keys = superpose(latest_items(histories, 3), np.eye(4, dtype=np.float32), 0.5)
    np.testing.assert_allclose(keys, dense(recency_matrix(histories, 4, decay=0.5, window=3)))


@pytest.mark.parametrize("seed", range(3))
def test_the_last_moment_of_each_history_is_its_present(seed: int) -> None:
    rng = np.random.default_rng(seed)
    histories = histories_of([rng.integers(0, 20, n).tolist() for n in rng.integers(1, 12, 15)])
    ends = histories.indptr[1:] - 1
    np.testing.assert_array_equal(recent_items(histories, 5)[ends], latest_items(histories, 5))
