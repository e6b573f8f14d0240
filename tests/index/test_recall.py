from __future__ import annotations

import numpy as np
import pytest

from recsys.errors import InvalidInput
from recsys.index import recall as module
from recsys.index.faiss import FaissIndex
from recsys.index.flat import FlatIndex
from recsys.index.recall import compared, exact_least, recall
from tests.contracts import clustered

VECTORS, QUERIES = clustered(3_000, 16), clustered(40, 16, seed=1)


def test_exact_search_finds_all() -> None:
    found = recall(FlatIndex.build(VECTORS), VECTORS.__getitem__, QUERIES, 10)
    assert (found.value, found.low, found.high, found.k, found.num_queries) == (1.0, 1.0, 1.0, 10, 40)


def test_it_is_the_overlap_with_the_exact_answer_where_nothing_is_equal() -> None:
    index = FaissIndex.build(VECTORS, kind="ivf_sq8", effort=2)
    found = recall(index, VECTORS.__getitem__, QUERIES, 10)
    mine, exact = index.search(QUERIES, 10)[1], FlatIndex.build(VECTORS).search(QUERIES, 10)[1]
    overlap = [len(set(a) & set(b)) / 10 for a, b in zip(mine, exact, strict=True)]
    assert found.value == pytest.approx(np.mean(overlap))
    assert 0.0 < found.low < found.value < found.high < 1.0


def test_equal_vectors_stand_for_each_other_and_repeats_for_nothing() -> None:
    vectors, query = np.ones((10, 2), np.float32), np.ones((1, 2), np.float32)
    least = exact_least(vectors.__getitem__, 10, query, 3)
    for rows, value in (([9, 8, 7], 1.0), ([9, 9, 9], 1 / 3), ([9, -1, -1], 1 / 3)):
        assert compared(np.array([rows]), least, vectors.__getitem__, query).value == pytest.approx(value)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = exact_least(VECTORS.__getitem__, 3_000, QUERIES, 10)
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_allclose(exact_least(VECTORS.__getitem__, 3_000, QUERIES, 10), whole, rtol=1e-5)


def test_more_answers_than_vectors() -> None:
    found = recall(FlatIndex.build(VECTORS[:5]), VECTORS[:5].__getitem__, QUERIES, 5)
    assert found.value == 1.0
    assert recall(FlatIndex.build(VECTORS[:5]), VECTORS[:5].__getitem__, QUERIES, 9).value == 1.0


def test_bad_input_is_named() -> None:
    with pytest.raises(InvalidInput, match="size=0: is empty"):
        recall(FlatIndex.build(VECTORS[:0]), VECTORS.__getitem__, QUERIES, 10)
    with pytest.raises(InvalidInput, match=r"queries\.shape=\(0, 16\)"):
        recall(FlatIndex.build(VECTORS), VECTORS.__getitem__, QUERIES[:0], 10)
    with pytest.raises(InvalidInput, match=r"queries\[0\]"):
        recall(FlatIndex.build(VECTORS), VECTORS.__getitem__, np.full((1, 16), np.nan, np.float32), 10)
