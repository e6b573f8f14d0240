from __future__ import annotations

from pathlib import Path

import numpy as np

from recsys.index.flat import FlatIndex
from tests.contracts import IndexContract, clustered


class TestFlatIndex(IndexContract):
    def build(self, vectors: np.ndarray) -> FlatIndex:
        return FlatIndex.build(vectors)

    def load(self, path: Path) -> FlatIndex:
        return FlatIndex.load(path)


def test_equal_scores_come_in_row_order() -> None:
    vectors = np.ones((50, 4), np.float32)
    vectors[10] = 2
    _, rows = FlatIndex.build(vectors).search(np.ones((1, 4), np.float32), 6)
    assert rows.tolist() == [[10, 0, 1, 2, 3, 4]]


def test_many_queries_in_blocks_equal_one_at_a_time() -> None:
    index = FlatIndex.build(np.round(clustered(20_000, 8) * 16))  # whole numbers: products are exact in any order
    queries = np.round(clustered(500, 8, seed=1) * 16)
    rows = index.search(queries, 5)[1]
    one_by_one = np.concatenate([index.search(query[None], 5)[1] for query in queries])
    np.testing.assert_array_equal(rows, one_by_one)
