"""One contract suite for each protocol; every implementation's test class inherits its protocol's suite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import DamagedSnapshot, InvalidInput
from recsys.index import Index


def clustered(num_vectors: int, dimension: int, *, seed: int = 0) -> np.ndarray:
    """Unit vectors around a few hundred centres, as embeddings lie."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((200, dimension))
    vectors = centres[rng.integers(200, size=num_vectors)] + 0.7 * rng.standard_normal((num_vectors, dimension))
    units: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units.astype(np.float32)


class IndexContract(ABC):
    """What every Index does. A subclass says how to build and load one, and how much of the exact answer it finds."""

    least_recall = 1.0
    score_error = 1e-6

    @abstractmethod
    def build(self, vectors: np.ndarray) -> Index: ...

    @abstractmethod
    def load(self, path: Path) -> Index: ...

    def test_finds_known_answers_in_falling_order(self) -> None:
        vectors = np.diag([1.0, 2.0, 3.0, 4.0]).astype(np.float32)
        scores, rows = self.build(vectors).search(np.ones((1, 4), np.float32), 3)
        assert rows.tolist() == [[3, 2, 1]]
        assert scores.tolist() == [[4.0, 3.0, 2.0]]

    def test_prefers_the_larger_product_not_the_nearer_point(self) -> None:
        vectors = np.array([[1, 0], [10, 10], [-5, 0]], np.float32)
        _, rows = self.build(vectors).search(np.array([[1, 0]], np.float32), 3)
        assert rows.tolist() == [[1, 0, 2]]

    def test_finds_what_brute_force_finds(self) -> None:
        vectors = clustered(5_000, 32)
        queries = clustered(40, 32, seed=1)
        scores, rows = self.build(vectors).search(queries, 10)
        exact = queries @ vectors.T
        best = np.argsort(-exact, axis=1)[:, :10]
        recall = np.mean([len(set(mine) & set(theirs)) / 10 for mine, theirs in zip(rows, best, strict=True)])
        assert recall >= self.least_recall
        assert np.abs(scores - np.take_along_axis(exact, rows, 1)).max() <= self.score_error
        assert (np.diff(scores, axis=1) <= 0).all()

    def test_pads_where_there_are_fewer_than_k(self) -> None:
        scores, rows = self.build(np.eye(3, dtype=np.float32)).search(np.ones((2, 3), np.float32), 5)
        assert scores.shape == rows.shape == (2, 5)
        assert rows[:, 3:].tolist() == [[-1, -1], [-1, -1]]
        assert np.isneginf(scores[:, 3:]).all()
        assert [sorted(row) for row in rows[:, :3].tolist()] == [[0, 1, 2]] * 2

    def test_an_empty_index_answers_with_padding(self) -> None:
        index = self.build(np.zeros((0, 4), np.float32))
        scores, rows = index.search(np.ones((2, 4), np.float32), 3)
        assert len(index) == 0
        assert rows.tolist() == [[-1] * 3] * 2
        assert np.isneginf(scores).all()

    def test_no_query_no_answer(self) -> None:
        scores, rows = self.build(np.eye(3, dtype=np.float32)).search(np.zeros((0, 3), np.float32), 2)
        assert scores.shape == rows.shape == (0, 2)

    def test_types_are_float32_and_int32(self) -> None:
        scores, rows = self.build(np.eye(3, dtype=np.float32)).search(np.ones((1, 3), np.float32), 2)
        assert (scores.dtype.name, rows.dtype.name) == ("float32", "int32")

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_refuses_what_is_not_finite(self, bad: float) -> None:
        vectors = np.eye(3, dtype=np.float32)
        index = self.build(vectors)
        vectors[1, 1] = bad
        with pytest.raises(InvalidInput, match=r"vectors\[1\]"):
            self.build(vectors)
        with pytest.raises(InvalidInput, match=r"queries\[1\]"):
            index.search(vectors, 1)

    def test_refuses_another_dimension(self) -> None:
        with pytest.raises(InvalidInput, match=r"queries\.shape=\(1, 4\): the index has 3 dimensions"):
            self.build(np.eye(3, dtype=np.float32)).search(np.ones((1, 4), np.float32), 1)

    @pytest.mark.unshaped
    def test_refuses_what_is_no_matrix(self) -> None:
        with pytest.raises(InvalidInput, match=r"vectors\.shape"):
            self.build(np.ones(3, np.float32))
        with pytest.raises(InvalidInput, match=r"queries\.shape"):
            self.build(np.eye(3, dtype=np.float32)).search(np.ones(3, np.float32), 1)

    @pytest.mark.parametrize("k", [0, -1])
    def test_refuses_k_below_one(self, k: int) -> None:
        with pytest.raises(InvalidInput, match=f"k={k}"):
            self.build(np.eye(3, dtype=np.float32)).search(np.ones((1, 3), np.float32), k)

    def test_equal_vectors_are_all_found_with_equal_scores(self) -> None:
        vectors = np.array([[1, 2], [3, 4], [1, 2], [3, 4], [0, 1]], np.float32)
        scores, rows = self.build(vectors).search(np.array([[1, 1]], np.float32), 4)
        assert sorted(rows[0, :2]) == [1, 3]
        assert sorted(rows[0, 2:]) == [0, 2]
        assert scores.tolist() == [[7, 7, 3, 3]]

    def test_later_writes_to_the_vectors_do_not_reach_it(self) -> None:
        vectors = np.eye(3, dtype=np.float32)
        index = self.build(vectors)
        vectors[:] = 0
        assert index.search(np.array([[0, 0, 1]], np.float32), 1)[1].tolist() == [[2]]

    def test_concurrent_searches_equal_serial_ones(self) -> None:
        index = self.build(clustered(3_000, 16))
        calls = [(clustered(5, 16, seed=seed), 5 + 40 * (seed % 3)) for seed in range(24)]
        serial = [index.search(queries, k) for queries, k in calls]
        with ThreadPoolExecutor(8) as pool:
            at_once = list(pool.map(lambda call: index.search(*call), calls * 3))
        for (scores, rows), (other_scores, other_rows) in zip(serial * 3, at_once, strict=True):
            np.testing.assert_array_equal(rows, other_rows)
            np.testing.assert_array_equal(scores, other_scores)

    @pytest.mark.parametrize("num_vectors", [0, 3, 3_000])
    def test_saved_and_loaded_answers_the_same(self, tmp_path: Path, num_vectors: int) -> None:
        index, queries = self.build(clustered(num_vectors, 16)), clustered(5, 16, seed=1)
        index.save(tmp_path / "index")
        loaded = self.load(tmp_path / "index")
        assert (loaded.kind, loaded.dimension, len(loaded)) == (index.kind, index.dimension, len(index))
        for mine, theirs in zip(index.search(queries, 7), loaded.search(queries, 7), strict=True):
            np.testing.assert_array_equal(mine, theirs)

    def test_size_is_about_that_of_its_file(self, tmp_path: Path) -> None:
        index = self.build(clustered(3_000, 16))
        index.save(tmp_path / "index")
        assert index.size_bytes == pytest.approx((tmp_path / "index").stat().st_size, rel=0.01)

    @pytest.mark.parametrize("content", [b"", b"not an index at all", b"IxFI\x00"])
    def test_refuses_a_file_that_is_no_index(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "index").write_bytes(content)
        with pytest.raises(DamagedSnapshot, match="index"):
            self.load(tmp_path / "index")
