"""Who was here before, and what came next: the read by address against a plain loop, and codes that stay."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.match import Corpus, States
from recsys.match.neighbours import Neighbours, NeighboursConfig, item_codes
from tests.world import histories_of, item_of, table_of

NUM_ITEMS = 15
ITEMS = table_of([item_of(row) for row in range(NUM_ITEMS)])
CONFIG = NeighboursConfig(decay=0.6, window=3)


def scores(past: list[list[int]], present: list[list[int]]) -> np.ndarray:
    fitted = Neighbours.fit(Corpus(histories=histories_of(past), items=ITEMS), CONFIG)
    states = States(histories=histories_of(present), now=np.zeros(len(present)), items=ITEMS)
    return fitted.read(states).score(np.tile(np.arange(NUM_ITEMS, dtype=np.int32), (len(present), 1)))


def plain_shared(past: list[list[int]], present: list[int]) -> np.ndarray:
    met = np.array([sum(life.count(item) for life in past) for item in range(NUM_ITEMS)])
    rarity = np.maximum(np.log(max(len(past), 1) / (met + 1)), 0.3)
    votes = np.zeros(NUM_ITEMS)
    for life in past:
        for at in range(len(life) - 1):
            overlap = sum(
                CONFIG.decay**mine * CONFIG.decay**theirs * rarity[item]
                for mine, item in enumerate(present[::-1][: CONFIG.window])
                for theirs, other in enumerate(life[: at + 1][::-1][: CONFIG.window])
                if item == other
            )
            votes[life[at + 1]] += overlap**CONFIG.power
    return votes * (met + 1.0) ** -CONFIG.popularity_power


@pytest.mark.parametrize("seed", range(3))
def test_shared_equals_the_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    past = [rng.integers(0, NUM_ITEMS, n).tolist() for n in rng.integers(0, 12, 40)]
    present = [rng.integers(0, NUM_ITEMS, n).tolist() for n in rng.integers(1, 8, 6)]
    wanted = [plain_shared(past, life) for life in present]
    np.testing.assert_allclose(scores(past, present)[..., 0], wanted, rtol=1e-4, atol=1e-6)


def test_both_reads_find_what_came_next() -> None:
    past = [[0, 1, 2]] * 5 + [[3, 4, 5]] * 5 + [[6, 1, 7]] * 5
    found = scores(past, [[0, 1], [6, 1], [3, 4]])
    assert found.argmax(axis=1).tolist() == [[2, 2], [7, 7], [5, 5]]


def test_codes_hang_on_the_id_and_the_text_alone() -> None:
    order = np.random.default_rng(0).permutation(NUM_ITEMS)
    codes = item_codes(ITEMS, 128, seed=0)
    moved = item_codes(table_of([item_of(row) for row in order]), 128, seed=0)
    np.testing.assert_allclose(moved @ moved.T, (codes @ codes.T)[np.ix_(order, order)], atol=1e-5)
    np.testing.assert_array_equal(moved[:, :64], codes[order, :64])
    assert (item_codes(ITEMS, 128, seed=1)[:, :64] != codes[:, :64]).any()


def test_codes_are_of_unit_length_and_nearly_orthogonal() -> None:
    codes = item_codes(table_of([item_of(row) for row in range(500)]), 128, seed=0)
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0, atol=1e-4)
    own = codes[:, :64] / 0.8
    others = (own @ own.T)[~np.eye(500, dtype=bool)]
    assert abs(others.mean()) < 0.01
    assert others.std() == pytest.approx(1 / 8, rel=0.1)
