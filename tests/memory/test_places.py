"""Addresses of what was met, and the hash that finds what is alike."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.memory.places import Places, PlacesConfig
from tests.world import histories_of

ONE = np.array([0])


def unit_codes(num: int, dimensions: int = 24, seed: int = 0) -> np.ndarray:
    codes = np.random.default_rng(seed).standard_normal((num, dimensions))
    return (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)


CODES = unit_codes(500)


def test_a_known_item_is_found_by_its_row() -> None:
    memory = Places.empty(2, CODES)
    memory.write(np.array([1]), histories_of([[7, 3, 7, 9, 3, 7]]))
    memory.write(np.array([1]), histories_of([[3, 4]]))
    counts, first, last = memory.met(1, np.array([3, 7, 4, 8, 499], np.int32))
    assert counts.tolist() == [3, 3, 1, 0, 0]
    assert first.tolist() == [1, 0, 7, -1, -1]
    assert last.tolist() == [6, 5, 7, -1, -1]
    assert memory.met(0, np.array([3], np.int32))[0].tolist() == [0]


def test_a_query_that_is_a_code_always_finds_its_item() -> None:
    memory = Places.empty(1, CODES)
    memory.write(ONE, histories_of([list(range(0, 500, 2))]))
    found = memory.read(ONE, CODES[None, ::2])
    np.testing.assert_allclose(found.similarity, 1.0, atol=1e-5)
    np.testing.assert_allclose(found.vectors[0, :, 0], CODES[::2])
    np.testing.assert_array_equal(found.age[0, :, 0], 249 - np.arange(250))


@pytest.mark.parametrize(("cosine", "wanted"), [(0.95, 0.99), (0.7, 0.49), (0.0, 0.01)])
def test_similar_items_are_found_as_often_as_the_formula_says(cosine: float, wanted: float) -> None:
    """One item met and one asked for at a known angle, five hundred times with the defaults."""
    across = unit_codes(500, seed=1)
    across -= (across * CODES).sum(axis=1, keepdims=True) * CODES
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    queries = cosine * CODES + np.sqrt(1.0 - cosine**2) * across
    memory = Places.empty(500, CODES)
    memory.write(np.arange(500), histories_of([[row] for row in range(500)]))
    found = memory.read(np.arange(500), queries[:, None].astype(np.float32))
    assert (found.age >= 0).mean() == pytest.approx(wanted, abs=0.06)
    some = found.age >= 0
    np.testing.assert_allclose(found.similarity[some], cosine, atol=1e-4)


def test_more_tables_find_more() -> None:
    rng = np.random.default_rng(2)
    queries = CODES + 0.15 * rng.standard_normal(CODES.shape)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    shares = []
    for tables in (1, 4, 16):
        memory = Places.empty(1, CODES, PlacesConfig(tables=tables))
        memory.write(ONE, histories_of([list(range(500))]))
        shares.append((memory.read(ONE, queries[None]).similarity > 0.5).mean())
    assert shares[0] < shares[1] < shares[2]


def test_a_read_does_not_depend_on_how_long_the_life_is() -> None:
    """What a query touches is the items of its buckets: the same after a hundred times as many events."""
    memory = Places.empty(1, CODES)
    life = np.random.default_rng(3).integers(0, 500, 2_000)
    memory.write(ONE, histories_of([life.tolist()]))
    before, size = memory.read(ONE, CODES[None], k=3), memory.size_bytes()
    for _ in range(9):
        memory.write(ONE, histories_of([life.tolist()]))
    after = memory.read(ONE, CODES[None], k=3)
    np.testing.assert_array_equal(before.similarity, after.similarity)
    np.testing.assert_allclose(before.weight * 10, after.weight)
    np.testing.assert_array_equal(size, memory.size_bytes())
