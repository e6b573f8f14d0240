from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from recsys import _native
from recsys.errors import DamagedSnapshot, InvalidInput
from recsys.index.faiss import FaissIndex
from recsys.index.flat import FlatIndex
from tests.contracts import IndexContract, clustered


class OfKind(IndexContract):
    """The contract for one kind of FAISS index."""

    kind = ""

    def build(self, vectors: np.ndarray) -> FaissIndex:
        return FaissIndex.build(vectors, kind=self.kind)

    def load(self, path: Path) -> FaissIndex:
        return FaissIndex.load(path)

    def test_is_of_its_kind(self) -> None:
        assert self.build(clustered(2_000, 16)).kind == self.kind


class TestFlat(OfKind):
    kind = "flat"


class TestFp16(OfKind):
    kind, least_recall, score_error = "fp16", 0.99, 1e-3


class TestIvfSq8(OfKind):
    kind, least_recall, score_error = "ivf_sq8", 0.95, 2e-2


class TestIvfFastscan(OfKind):
    kind, least_recall = "ivf_fastscan", 0.97


class TestHnsw(OfKind):
    kind, least_recall = "hnsw", 0.97


def test_both_twins_agree() -> None:
    vectors, queries = clustered(3_000, 32), clustered(50, 32, seed=1)
    exact, fast = FlatIndex.build(vectors), FaissIndex.build(vectors, kind="flat")
    (scores, rows), (fast_scores, fast_rows) = exact.search(queries, 20), fast.search(queries, 20)
    np.testing.assert_allclose(scores, fast_scores, atol=1e-6)
    assert np.mean(rows == fast_rows) > 0.999  # neighbours whose products differ in the last bit may change places


@pytest.mark.parametrize(("size", "kind"), [(10, "flat"), (10_000, "flat"), (10_001, "fp16"), (200_001, "ivf_sq8")])
def test_auto_goes_by_size(size: int, kind: str) -> None:
    assert FaissIndex.build(clustered(size, 4), kind="auto").kind == kind


def test_trained_kinds_of_few_vectors_are_exact() -> None:
    assert FaissIndex.build(clustered(999, 8), kind="ivf_fastscan").kind == "flat"


@pytest.mark.parametrize("kind", ["ivf_sq8", "ivf_fastscan", "hnsw"])
def test_a_large_k_is_filled(kind: str) -> None:
    index = FaissIndex.build(clustered(20_000, 16), kind=kind)
    assert (index.search(clustered(3, 16, seed=1), 2_000)[1] >= 0).all()


def test_refuses_unknown_kinds_devices_and_odd_dimensions() -> None:
    vectors = clustered(2_000, 5)
    with pytest.raises(InvalidInput, match="kind='magic'"):
        FaissIndex.build(vectors, kind="magic")
    with pytest.raises(InvalidInput, match="device='tpu'"):
        FaissIndex.build(vectors, device="tpu")
    with pytest.raises(InvalidInput, match="even number of dimensions"):
        FaissIndex.build(vectors, kind="ivf_fastscan")


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this FAISS has GPU code")
def test_a_gpu_asked_for_and_not_there_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="device='cuda': this build of FAISS sees no GPU"):
        FaissIndex.build(clustered(10, 4), device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not hasattr(faiss, "StandardGpuResources"), reason="this FAISS has no GPU code")
@pytest.mark.parametrize("kind", ["flat", "fp16", "ivf_sq8"])
def test_gpu_and_cpu_agree(kind: str) -> None:
    vectors, queries = clustered(5_000, 32), clustered(20, 32, seed=1)
    cpu = FaissIndex.build(vectors, kind=kind, device="cpu").search(queries, 10)[1]
    gpu = FaissIndex.build(vectors, kind=kind, device="cuda").search(queries, 10)[1]
    assert np.mean(cpu == gpu) > 0.95


def test_a_faiss_index_of_another_kind_is_refused(tmp_path: Path) -> None:
    faiss.write_index(faiss.index_factory(8, "PCA4,Flat", faiss.METRIC_INNER_PRODUCT), str(tmp_path / "index"))
    with pytest.raises(DamagedSnapshot, match="IndexPreTransform is none"):
        FaissIndex.load(tmp_path / "index")


def test_an_index_by_distance_is_refused(tmp_path: Path) -> None:
    faiss.write_index(faiss.IndexFlatL2(8), str(tmp_path / "index"))
    with pytest.raises(DamagedSnapshot, match="inner product"):
        FaissIndex.load(tmp_path / "index")


def test_uses_no_more_threads_than_allowed() -> None:
    before = _native.threads()
    try:
        _native.limit_threads(1)
        FaissIndex.build(clustered(10, 4)).search(clustered(1, 4), 1)
        assert faiss.omp_get_max_threads() == 1
    finally:
        _native.limit_threads(before)
