"""The dispatcher, with a CPU index in the GPU's place; tests/index/test_faiss.py asks a GPU where there is one."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from recsys.index import gpu
from recsys.index.faiss import FaissIndex
from recsys.index.gpu import Dispatcher, OutOfMemory, Twin
from recsys.index.kinds import parameters
from tests.contracts import IndexContract, clustered

CUDA_SAYS = (
    "Error: 'err == cudaSuccess' failed: alloc fail type TemporaryMemoryBuffer (cudaMalloc error out of memory [2])"
)


class Device:
    """A CPU index that fits `room` queries at a time, refuses two searches at once, and waits while `gate` is shut."""

    def __init__(self, index: Any, room: int = 10_000, error: str = CUDA_SAYS) -> None:
        self.index, self.room, self.error = index, room, error
        self.batches: list[int] = []
        self.gate, self.entered, self._turn = threading.Event(), threading.Event(), threading.Lock()
        self.gate.set()

    def search(self, x: np.ndarray, k: int, *, params: Any) -> tuple[np.ndarray, np.ndarray]:
        assert self._turn.acquire(blocking=False), "two searches at once on one GPU"
        try:
            self.entered.set()
            assert self.gate.wait(30)
            self.batches.append(len(x))
            if len(x) > self.room:
                raise RuntimeError(self.error)
            scores, rows = self.index.search(x, k, params=params)
            return scores, rows
        finally:
            self._turn.release()


def on_device(vectors: np.ndarray, kind: str = "flat", **limits: Any) -> tuple[FaissIndex, Device]:
    plain = FaissIndex.build(vectors, kind=kind, device="cpu")
    device = Device(plain.on_cpu, **limits)
    return FaissIndex(plain.on_cpu, twin=twin(device, plain.kind)), device


def twin(device: Device, kind: str = "flat", max_k: int = 2_048) -> Twin:
    return Twin(
        index=device,
        parameters=lambda k, effort: parameters(device.index, kind, k, effort),
        max_k=max_k,
        dispatcher=Dispatcher("test"),
    )


class TestContract(IndexContract):
    """Whoever asks through a dispatcher gets what an index promises."""

    def build(self, vectors: np.ndarray) -> FaissIndex:
        return on_device(vectors)[0]

    def load(self, path: Any) -> FaissIndex:
        index = FaissIndex.load(path, device="cpu")
        return FaissIndex(index.on_cpu, twin=twin(Device(index.on_cpu)))


VECTORS, QUERIES = clustered(3_000, 16), clustered(100, 16, seed=1)


def waiting(device: Device, index: FaissIndex, calls: list[tuple[np.ndarray, int]]) -> Iterator[Any]:
    """Answers of calls that all wait while the device is busy with another."""
    device.gate.clear()
    with ThreadPoolExecutor(len(calls) + 1) as pool:
        first = pool.submit(index.search, QUERIES[:1], 1)
        assert device.entered.wait(30)
        futures = [pool.submit(index.search, *call) for call in calls]
        queue = index._twin.dispatcher._asked  # type: ignore[union-attr]
        while queue.qsize() < len(calls):
            pass
        device.gate.set()
        first.result(30)
        yield from (future.result(30) for future in futures)


def test_those_who_wait_are_served_together() -> None:
    index, device = on_device(VECTORS)
    calls = [(QUERIES[at : at + 3], 5) for at in range(0, 30, 3)]
    for (queries, k), (scores, rows) in zip(calls, waiting(device, index, calls), strict=True):
        exact_scores, exact_rows = FaissIndex(device.index).search(queries, k)
        np.testing.assert_array_equal(rows, exact_rows)
        np.testing.assert_allclose(scores, exact_scores, rtol=1e-6)
    assert device.batches == [1, 30]


def test_another_k_is_another_search() -> None:
    index, device = on_device(VECTORS)
    answers = list(waiting(device, index, [(QUERIES[:2], 5), (QUERIES[:2], 9), (QUERIES[2:4], 5)]))
    assert [rows.shape for _, rows in answers] == [(2, 5), (2, 9), (2, 5)]
    assert sorted(device.batches) == [1, 2, 4]


def test_out_of_memory_halves_the_batch_and_many_that_fit_double_it() -> None:
    index, device = on_device(VECTORS, room=30)
    np.testing.assert_array_equal(index.search(QUERIES, 5)[1], FaissIndex(device.index).search(QUERIES, 5)[1])
    assert device.batches == [100, 50, 25, 25, 25, 25]
    device.room = 10_000
    device.batches.clear()
    while len(device.batches) < 62:
        index.search(QUERIES, 5)
    index.search(QUERIES, 5)
    assert set(device.batches[:60]) == {25}
    assert device.batches[-2:] == [50, 50]


@pytest.mark.parametrize(
    "error",
    [
        CUDA_SAYS,
        "std::bad_alloc: out_of_memory: CUDA error",
        "Failed to cudaMalloc 5 bytes on device 0 (error 2 out of memory)",
    ],
)
def test_what_does_not_fit_alone_is_searched_on_the_cpu(error: str, caplog: pytest.LogCaptureFixture) -> None:
    index, device = on_device(VECTORS, room=0, error=error)
    for mine, theirs in zip(index.search(QUERIES, 5), FaissIndex(device.index).search(QUERIES, 5), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert device.batches == [100, 50, 25, 12, 6, 3, 1]
    assert "out of memory" in caplog.text


def test_the_gpu_is_tried_again_once_memory_is_back() -> None:
    index, device = on_device(VECTORS, room=0)
    index.search(QUERIES, 5)
    device.room = 10_000
    device.batches.clear()
    index.search(QUERIES, 5)
    assert device.batches == [1] * 64 + [2] * 18


def test_one_callers_trouble_is_his_alone() -> None:
    index, _ = on_device(VECTORS, room=2, error="CUBLAS failed")
    with pytest.raises(RuntimeError, match="CUBLAS failed"):
        index.search(QUERIES, 5)
    assert (index.search(QUERIES[:2], 5)[1] >= 0).all()


def test_more_answers_than_a_gpu_gives_come_from_the_cpu() -> None:
    device = Device(FaissIndex.build(VECTORS, kind="flat").on_cpu)
    index = FaissIndex(device.index, twin=twin(device, max_k=10))
    assert (index.search(QUERIES, 11)[1] >= 0).all()
    assert device.batches == []


def test_effort_travels_to_the_device() -> None:
    index, device = on_device(VECTORS, kind="ivf_sq8")
    for effort in (2, 30):
        mine, theirs = (
            index.search(QUERIES, 10, effort=effort),
            FaissIndex(device.index).search(QUERIES, 10, effort=effort),
        )
        np.testing.assert_array_equal(mine[1], theirs[1])
    assert device.batches == [100, 100]


def test_an_index_nobody_holds_is_let_go() -> None:
    index, device = on_device(VECTORS)
    index.search(QUERIES, 5)
    gone = weakref.ref(device)
    del index, device
    for _ in range(100):
        gc.collect()
        if gone() is None:
            return
        threading.Event().wait(0.05)
    raise AssertionError("the dispatcher keeps the index of its last search")


def test_a_dispatcher_for_each_gpu() -> None:
    assert gpu.dispatcher(0) is gpu.dispatcher(0)
    assert gpu.dispatcher(0) is not gpu.dispatcher(1)


def test_out_of_memory_is_told_apart() -> None:
    index, _ = on_device(VECTORS, room=0)
    with pytest.raises(OutOfMemory):
        index._twin.search(QUERIES, 5)  # type: ignore[union-attr]
