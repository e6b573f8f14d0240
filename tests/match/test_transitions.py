"""Transitions against a plain loop over pairs of events."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsys.match import Corpus, States
from recsys.match.transitions import KERNELS, Kernel, Transitions, cap_rows, capped_product
from tests.world import histories_of, item_of, table_of

NUM_ITEMS = 12
ITEMS = table_of([item_of(row) for row in range(NUM_ITEMS)])
PLAIN = Kernel(name="soon", steps=3, decay=0.5, row_power=0.0, query_decay=0.5, query_window=2)


def lives(seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, NUM_ITEMS, n).tolist() for n in rng.integers(0, 20, 25)]


def plain_matrix(past: list[list[int]], kernel: Kernel) -> np.ndarray:
    counts = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for life in past:
        for at, item in enumerate(life):
            for step in range(1, kernel.steps + 1):
                if at + step < len(life):
                    counts[item, life[at + step]] += kernel.decay ** (step - 1)
                    counts[life[at + step], item] += kernel.backward * kernel.decay ** (step - 1)
    met = np.array([sum(life.count(item) for life in past) for item in range(NUM_ITEMS)])
    once = counts * (counts.sum(axis=1, keepdims=True) + 1e-6) ** -kernel.row_power
    once *= (met + 1.0) ** -kernel.popularity_power
    return once @ once if kernel.hops == 2 else once


def plain_scores(matrix: np.ndarray, life: list[int], kernel: Kernel) -> np.ndarray:
    latest = life[::-1][: kernel.query_window]
    return sum((kernel.query_decay**age * matrix[item] for age, item in enumerate(latest)), np.zeros(NUM_ITEMS))


def scores(past: list[list[int]], present: list[list[int]], kernels: tuple[Kernel, ...]) -> np.ndarray:
    fitted = Transitions.fit(Corpus(histories=histories_of(past), items=ITEMS), kernels)
    states = States(histories=histories_of(present), now=np.zeros(len(present)), items=ITEMS)
    everything = np.tile(np.arange(NUM_ITEMS, dtype=np.int32), (len(present), 1))
    return fitted.read(states).score(everything)


@pytest.mark.parametrize("seed", range(3))
def test_every_kernel_equals_the_loop(seed: int) -> None:
    past, present = lives(seed), lives(seed + 50)
    found = scores(past, present, (*KERNELS, PLAIN))
    for column, kernel in enumerate((*KERNELS, PLAIN)):
        matrix = plain_matrix(past, kernel)
        wanted = [plain_scores(matrix, life, kernel) for life in present]
        np.testing.assert_allclose(found[..., column], wanted, rtol=1e-4, atol=1e-6, err_msg=kernel.name)


def test_by_hand() -> None:
    """2 came once right after 1 and once two steps after 0; 1 once right after 0."""
    found = scores([[0, 1, 2]], [[0], [1, 0], [2]], (PLAIN,))[..., 0]
    assert found[0, :4].tolist() == [0, 1, 0.5, 0]
    assert found[1, :4].tolist() == [0, 1, 0.5 + 0.5 * 1, 0]
    assert not found[2].any()


def test_next_reads_the_last_item_alone() -> None:
    found = scores([[0, 1], [5, 6]], [[5, 0]], (KERNELS[0],))[0, :, 0]
    assert np.flatnonzero(found).tolist() == [1]


def test_histories_do_not_run_into_each_other() -> None:
    assert not scores([[0], [1], [2]], [[0], [1]], KERNELS).any()


def test_capped_rows_keep_the_largest_and_all_that_equal_the_least() -> None:
    matrix = np.array([[5, 1, 3, 3, 2], [0, 0, 1, 0, 0], [1, 1, 1, 1, 1]], np.float32)
    capped = cap_rows(sparse.csr_matrix(matrix), 2).toarray()
    assert capped.tolist() == [[5, 0, 3, 3, 0], [0, 0, 1, 0, 0], [1, 1, 1, 1, 1]]


def test_a_product_in_blocks_is_the_product() -> None:
    matrix = sparse.random(1_100, 1_100, 0.02, format="csr", dtype=np.float32, random_state=0)
    whole, blocks = cap_rows(matrix @ matrix, 20), capped_product(matrix, matrix, 20)
    assert (whole != blocks).nnz == 0
    empty = sparse.csr_matrix((0, 0), dtype=np.float32)
    assert capped_product(empty, empty, 20).shape == (0, 0)
