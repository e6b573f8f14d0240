"""The closed form against the textbook inverse, on both of its ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from recsys.match import Corpus, States
from recsys.match.linear import Linear, _ease
from tests.world import histories_of, item_of, table_of


def textbook(seen: np.ndarray, l2: float) -> np.ndarray:
    inverse = np.linalg.inv(seen.T @ seen + l2 * np.eye(seen.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


@pytest.mark.parametrize(("num_users", "num_items"), [(6, 20), (19, 20), (20, 20), (200, 20), (1, 1)])
@pytest.mark.parametrize("l2", [0.5, 300.0])
def test_equals_the_textbook(num_users: int, num_items: int, l2: float) -> None:
    seen = (np.random.default_rng(num_users).random((num_users, num_items)) < 0.3).astype(np.float32)
    found = _ease(sparse.csr_matrix(seen), l2)
    np.testing.assert_allclose(found, textbook(seen.astype(np.float64), l2), rtol=1e-3, atol=1e-5)
    assert not np.diag(found).any()


def test_no_items_are_no_error() -> None:
    assert _ease(sparse.csr_matrix((5, 0), dtype=np.float32), 1.0).shape == (0, 0)


def fitted(lives: list[list[int]], *, max_items: int = 100) -> Linear:
    items = table_of([item_of(row) for row in range(8)])
    return Linear.fit(Corpus(histories=histories_of(lives), items=items), l2=1.0, max_items=max_items)


def scores(linear: Linear, life: list[int]) -> np.ndarray:
    items = table_of([item_of(row) for row in range(8)])
    states = States(histories=histories_of([life]), now=np.zeros(1), items=items)
    return linear.read(states).score(np.arange(8, dtype=np.int32)[None])[0]


def test_reads_the_sum_of_the_weights_of_what_was_met() -> None:
    lives = [[0, 1], [0, 1], [0, 1, 2], [2, 3], [3, 2]]
    linear = fitted(lives)
    assert linear.rows.tolist() == [0, 1, 2, 3]
    weights = textbook(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]], float), 1.0)
    found = scores(linear, [0, 3])
    np.testing.assert_allclose(found[:4, 0], weights[0] + weights[3], rtol=2e-3)
    np.testing.assert_allclose(found[:4, 1], 0.9 * weights[0] + weights[3], rtol=2e-3)
    assert found[:, 0].argmax() in (1, 2)
    assert not found[4:].any()


def test_only_the_most_popular_items_take_part() -> None:
    linear = fitted([[0, 1, 5], [0, 1, 5], [0, 1, 3], [0, 2]], max_items=3)
    assert linear.rows.tolist() == [0, 1, 5]
    assert not scores(linear, [0])[[2, 3, 4, 6, 7]].any()


def test_items_met_once_say_nothing() -> None:
    assert fitted([[0, 1], [2, 3]]).rows.tolist() == []


@pytest.mark.parametrize("num_users", [5, 60])
def test_weights_lie_row_by_row_however_they_were_found(num_users: int, tmp_path: Path) -> None:
    """By column, SciPy copies the whole matrix at every read."""
    rng = np.random.default_rng(0)
    items = table_of([item_of(row) for row in range(20)])
    lives = [rng.integers(0, 20, 12).tolist() for _ in range(num_users)]
    matcher = Linear.fit(Corpus(histories=histories_of(lives), items=items))
    matcher.save(tmp_path)
    assert matcher.weights.flags.c_contiguous
    assert Linear.load(tmp_path, items).weights.flags.c_contiguous
