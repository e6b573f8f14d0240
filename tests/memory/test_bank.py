"""The event bank against a loop."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.memory.bank import read_bank


def unit(num: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((num, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("num_events", [1, 2, 40])
def test_equals_the_loop(num_events: int) -> None:
    events, queries = unit(num_events, 0), unit(9, 1)
    found = read_bank(events, queries)
    for k, query in enumerate(queries):
        cosines = [float(query @ event) for event in events]
        assert found.best[k] == pytest.approx(max(cosines), abs=1e-6)
        assert found.place[k] == int(np.argmax(cosines))
        assert found.mass[k] == pytest.approx(sum(max(c, 0.0) ** 8 for c in cosines), rel=1e-4, abs=1e-6)


def test_of_equal_events_the_latest_is_named_wherever_it_stands() -> None:
    """Products of equal vectors may differ by rounding, depending on where they stand in the matrix."""
    vectors = unit(7, 2)
    rng = np.random.default_rng(3)
    for length in range(7, 60):
        life = np.concatenate([np.arange(7), rng.integers(0, 7, length)])
        for queries in (vectors, vectors[:1], vectors[2:5]):
            found = read_bank(vectors[life], queries)
            wanted = [np.flatnonzero((vectors[life] == query).all(axis=1)).max() for query in queries]
            assert found.place.tolist() == wanted


def test_nothing_is_found_in_an_empty_bank() -> None:
    found = read_bank(unit(0, 0), unit(3, 1))
    assert found.best.tolist() == found.mass.tolist() == [0, 0, 0]
    assert found.place.tolist() == [-1, -1, -1]


def test_counts_stand_for_equal_events() -> None:
    events, queries, counts = unit(6, 0), unit(300, 1), np.array([1, 3, 1, 2, 1, 4])
    found = read_bank(events, queries, counts.astype(np.float32))
    every = read_bank(np.repeat(events, counts, axis=0), queries)
    np.testing.assert_allclose(found.best, every.best, atol=1e-6)
    np.testing.assert_allclose(found.mass, every.mass, rtol=1e-5)
    assert found.place.tolist() == np.repeat(np.arange(6), counts)[every.place].tolist()
