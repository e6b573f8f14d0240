"""Look-ups of what came next, over both indexes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys.index import Index
from recsys.index.faiss import FaissIndex
from recsys.index.flat import FlatIndex
from recsys.memory.collective import CollectiveMemory

KEYS = np.array([[1, 0], [0, 1], [1, 1], [-1, 0], [5, 5]], np.float32)
FOLLOWING = np.array([3, 1, 3, 0, -1], np.int32)


@pytest.fixture(params=[FaissIndex.build, FlatIndex.build], ids=["faiss", "flat"])
def memory(request: pytest.FixtureRequest) -> CollectiveMemory:
    build: Callable[[np.ndarray], Index] = request.param
    return CollectiveMemory.build(KEYS, FOLLOWING, build)


def test_moments_without_a_successor_are_not_written(memory: CollectiveMemory) -> None:
    assert len(memory.index) == 4
    assert memory.following.tolist() == [3, 1, 3, 0]


def test_reads_what_followed_the_nearest(memory: CollectiveMemory) -> None:
    scores, items = memory.read(np.array([[2, 1]], np.float32), 6)
    assert scores[0].tolist() == [3, 2, 1, -2, -np.inf, -np.inf]
    assert items[0].tolist() == [3, 3, 1, 0, -1, -1]


def test_votes_add_up_powers_of_positive_similarity(memory: CollectiveMemory) -> None:
    votes = memory.votes(np.array([[2, 1], [0, 0]], np.float32), 6, lambda cos: cos**2.0, num_items=5)
    np.testing.assert_allclose(votes, [[0, 1, 0, 4 + 9, 0], [0] * 5])


def test_votes_are_of_the_k_nearest(memory: CollectiveMemory) -> None:
    votes = memory.votes(np.array([[2, 1]], np.float32), 1, lambda cos: cos, num_items=5)
    np.testing.assert_allclose(votes, [[0, 0, 0, 3, 0]])


def test_an_empty_memory_knows_nothing() -> None:
    memory = CollectiveMemory.build(KEYS[:0], FOLLOWING[:0])
    scores, items = memory.read(KEYS, 3)
    assert (items == -1).all()
    assert (scores == -np.inf).all()
    assert not memory.votes(KEYS, 3, lambda cos: cos, num_items=2).any()


def test_loaded_answers_as_saved(tmp_path: Path) -> None:
    memory = CollectiveMemory.build(KEYS, FOLLOWING)
    memory.save(tmp_path)
    for mine, theirs in zip(memory.read(KEYS, 4), CollectiveMemory.load(tmp_path).read(KEYS, 4), strict=True):
        np.testing.assert_array_equal(mine, theirs)
