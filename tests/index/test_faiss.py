from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from recsys import _native
from recsys.errors import DamagedSnapshot, InvalidInput
from recsys.index import gpu
from recsys.index.faiss import FaissIndex
from recsys.index.flat import FlatIndex
from recsys.index.kinds import HAS_CAGRA, chosen, empty
from recsys.index.recall import recall
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


class TestIvfFlat(OfKind):
    kind, least_recall = "ivf_flat", 0.97


class TestPq(OfKind):
    kind, least_recall, score_error = "pq", 0.95, 2e-2


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
    assert FaissIndex.build(clustered(size, 4), kind="auto", device="cpu").kind == kind


@pytest.mark.parametrize(("size", "kind"), [(200_000, "flat"), (200_001, "fp16"), (1_000_001, "ivf_sq8")])
def test_auto_goes_by_device(size: int, kind: str) -> None:
    assert chosen("auto", size, "cuda") == kind


def test_trained_kinds_of_few_vectors_are_exact() -> None:
    assert FaissIndex.build(clustered(999, 8), kind="ivf_fastscan").kind == "flat"


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_sq8", "ivf_fastscan", "pq", "hnsw"])
def test_a_large_k_is_filled(kind: str) -> None:
    index = FaissIndex.build(clustered(20_000, 16), kind=kind)
    assert (index.search(clustered(3, 16, seed=1), 2_000)[1] >= 0).all()


def test_refuses_unknown_kinds_and_odd_dimensions() -> None:
    vectors = clustered(2_000, 5)
    with pytest.raises(InvalidInput, match="kind='magic'"):
        FaissIndex.build(vectors, kind="magic")
    with pytest.raises(InvalidInput, match="even number of dimensions"):
        FaissIndex.build(vectors, kind="ivf_fastscan")


EFFORTS = {"ivf_flat": (2, 40), "ivf_sq8": (2, 40), "ivf_fastscan": (2, 40), "pq": (2, 8), "hnsw": (17, 200)}


@pytest.mark.parametrize("kind", EFFORTS)
def test_effort_finds_more_and_is_saved_with_the_index(kind: str, tmp_path: Path) -> None:
    vectors, queries = clustered(5_000, 32), clustered(40, 32, seed=1)
    lazy, eager = (FaissIndex.build(vectors, kind=kind, effort=effort) for effort in EFFORTS[kind])
    assert _recall(lazy, vectors, queries) < _recall(eager, vectors, queries)
    lazy.save(tmp_path / "index")
    loaded = FaissIndex.load(tmp_path / "index")
    assert loaded.effort == EFFORTS[kind][0]
    np.testing.assert_array_equal(loaded.search(queries, 10)[1], lazy.search(queries, 10)[1])
    harder = lazy.search(queries, 10, effort=EFFORTS[kind][1])[1]
    np.testing.assert_array_equal(harder, eager.search(queries, 10)[1])
    assert lazy.effort == EFFORTS[kind][0]


def _recall(index: FaissIndex, vectors: np.ndarray, queries: np.ndarray) -> float:
    return recall(index, vectors.__getitem__, queries, 10).value


@pytest.mark.parametrize("kind", EFFORTS)
def test_an_index_that_nobody_gave_an_effort_takes_the_engines_own(kind: str, tmp_path: Path) -> None:
    plain = empty(kind, 2_000, 8)
    plain.train(clustered(2_000, 8))
    plain.add(clustered(2_000, 8))
    faiss.write_index(plain, str(tmp_path / "index"))
    loaded, built = FaissIndex.load(tmp_path / "index"), FaissIndex.build(clustered(2_000, 8), kind=kind)
    assert (loaded.effort, built.effort) == (None, None)
    assert _recall(loaded, clustered(2_000, 8), clustered(20, 8, seed=1)) > 0.95


def test_an_effort_that_cannot_be_is_refused() -> None:
    vectors = clustered(2_000, 4)
    with pytest.raises(InvalidInput, match="effort=1: must be at least 2 for ivf_sq8"):
        FaissIndex.build(vectors, kind="ivf_sq8", effort=1)
    with pytest.raises(InvalidInput, match="effort=16: must be at least 17 for hnsw"):
        FaissIndex.build(vectors, kind="hnsw").search(vectors[:1], 1, effort=16)
    with pytest.raises(InvalidInput, match="effort=8: flat looks at everything"):
        FaissIndex.build(vectors, kind="flat", effort=8)
    with pytest.raises(InvalidInput, match="effort=8: needs a kind"):
        FaissIndex.build(vectors, effort=8)
    assert FaissIndex.build(vectors[:10], kind="ivf_sq8", effort=8).kind == "flat"  # few of a kind that has efforts


def test_a_graph_that_a_gpu_built_is_served_on_the_cpu(tmp_path: Path) -> None:
    vectors, queries = clustered(2_000, 16), clustered(20, 16, seed=1)
    graph = faiss.IndexHNSWCagra(16, 16, faiss.METRIC_INNER_PRODUCT)  # what FAISS turns CAGRA's into
    graph.add(vectors)
    graph.hnsw.efSearch = 100
    faiss.write_index(graph, str(tmp_path / "index"))
    index = FaissIndex.load(tmp_path / "index", device="cpu")
    assert (index.kind, index.effort) == ("cagra", 100)
    assert _recall(index, vectors, queries) > 0.95


def test_cagra_needs_a_gpu() -> None:
    with pytest.raises(InvalidInput, match="kind='cagra': is built on a GPU"):
        FaissIndex.build(clustered(2_000, 4), kind="cagra", device="cpu")


@pytest.mark.skipif(gpu.num_gpus() > 0, reason="FAISS sees a GPU here")
def test_a_gpu_asked_for_and_not_there_is_an_error() -> None:
    for device in ("cuda", "cuda:1"):
        with pytest.raises(InvalidInput, match=f"device='{device}': this build of FAISS sees no GPU"):
            FaissIndex.build(clustered(10, 4), device=device)


def test_a_device_that_is_none_is_an_error() -> None:
    for device in ("tpu", "cpu:1", "cuda:x"):
        with pytest.raises(InvalidInput, match=f"device='{device}': must be"):
            FaissIndex.build(clustered(10, 4), device=device)


on_gpu = pytest.mark.skipif(gpu.num_gpus() == 0, reason="this FAISS sees no GPU")


class OnGpu(OfKind):
    """The contract, asked of a GPU."""

    def build(self, vectors: np.ndarray) -> FaissIndex:
        return FaissIndex.build(vectors, kind=self.kind, device="cuda")

    def load(self, path: Path) -> FaissIndex:
        return FaissIndex.load(path, device="cuda")

    def test_serves_from_the_gpu_what_its_cpu_twin_answers(self) -> None:
        vectors, queries = clustered(5_000, 32), clustered(20, 32, seed=1)
        index = self.build(vectors)
        assert index.on_gpu
        twin = FaissIndex(index.on_cpu)
        assert abs(_recall(index, vectors, queries) - _recall(twin, vectors, queries)) < 0.05


@pytest.mark.gpu
@on_gpu
class TestFlatOnGpu(OnGpu):
    kind = "flat"


@pytest.mark.gpu
@on_gpu
class TestFp16OnGpu(OnGpu):
    kind, least_recall, score_error = "fp16", 0.99, 1e-3


@pytest.mark.gpu
@on_gpu
class TestIvfFlatOnGpu(OnGpu):
    kind, least_recall = "ivf_flat", 0.97


@pytest.mark.gpu
@on_gpu
class TestIvfSq8OnGpu(OnGpu):
    kind, least_recall, score_error = "ivf_sq8", 0.95, 2e-2


@pytest.mark.gpu
@on_gpu
@pytest.mark.skipif(not HAS_CAGRA, reason="this FAISS is built without cuVS")
class TestCagraOnGpu(OnGpu):
    kind, least_recall = "cagra", 0.95


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
