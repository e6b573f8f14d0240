"""Searches on GPUs: one thread for each GPU talks to it, and serves everybody in micro-batches.

FAISS allows one search at a time on a GPU, and a GPU answers a hundred queries in the time of one. So callers put
their queries into their GPU's queue; its dispatcher takes all that wait for the same index and the same k together.

Out of memory: the batch is halved, again and again; what does not fit alone is raised as `OutOfMemory`, and the caller
searches on the CPU. After 64 searches that fit it is doubled again.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32

from recsys.index import kinds
from recsys.index.kinds import faiss

Answers = tuple[np.ndarray, np.ndarray]

MAX_BATCH = 4_096
"""Queries of one search at most: scores of brute force take memory for each."""

_GROW_AFTER = 64  # searches that fit: a failed one costs time, and memory that was lent seldom comes back at once

_log = logging.getLogger(__name__)


class OutOfMemory(Exception):
    """The GPU cannot answer even a single query now."""


class OnDevice(Protocol):
    """What a dispatcher needs of an index that lies on its GPU; FAISS's own have it."""

    def search(self, x: np.ndarray, k: int, *, params: Any) -> Answers: ...


@dataclass(eq=False, slots=True)
class Twin:
    """An index's copy on a GPU. `parameters(k, effort)` of one search; `batch`: queries that fit at a time, as far as
    known; `fitted`: searches since it changed. Both are the dispatcher's alone."""

    index: OnDevice
    parameters: Callable[[int, int | None], Any]
    max_k: int
    dispatcher: Dispatcher
    batch: int = MAX_BATCH
    fitted: int = 0

    def search(self, queries: Float32[np.ndarray, "B D"], k: int, effort: int | None = None) -> Answers:
        """FAISS's (scores, rows), which wait their turn. Raises OutOfMemory; k at most `max_k`."""
        asked = _Asked(self, queries, k, effort)
        self.dispatcher.put(asked)
        return asked.answers.result()


@dataclass(slots=True)
class _Asked:
    twin: Twin
    queries: Float32[np.ndarray, "B D"]
    k: int
    effort: int | None
    answers: Future[Answers] = field(default_factory=Future)


class Dispatcher:
    """The one thread that talks to one GPU; it lives as long as the process."""

    def __init__(self, name: str) -> None:
        self._asked: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=f"dispatcher-{name}", daemon=True).start()

    def put(self, asked: _Asked) -> None:
        self._asked.put(asked)

    def _serve(self) -> None:
        while True:
            for together in _grouped(self._waiting()):
                _answer(together)
            del together  # or the last caller's queries and index are kept until the next comes

    def _waiting(self) -> list[_Asked]:
        """All that wait, and at least one."""
        waiting = [self._asked.get()]
        while not self._asked.empty():  # nobody else takes
            waiting.append(self._asked.get())
        return waiting


def _grouped(waiting: list[_Asked]) -> list[list[_Asked]]:
    """Those that one search can answer."""
    groups: dict[tuple[int, int, int | None], list[_Asked]] = {}
    for asked in waiting:
        groups.setdefault((id(asked.twin), asked.k, asked.effort), []).append(asked)
    return list(groups.values())


def _answer(together: list[_Asked]) -> None:
    """One search for all, cut into batches that fit; whatever goes wrong goes to those who asked."""
    first = together[0]
    queries = np.concatenate([asked.queries for asked in together])
    try:
        found = list(_searched(first.twin, queries, first.k, first.effort))
    except Exception as error:  # noqa: BLE001 - the callers raise it
        for asked in together:
            asked.answers.set_exception(error)
        return
    scores, rows = (np.concatenate(column) for column in zip(*found, strict=True))
    ends = np.cumsum([len(asked.queries) for asked in together])
    for asked, end in zip(together, ends.tolist(), strict=True):
        mine = slice(end - len(asked.queries), end)
        asked.answers.set_result((scores[mine], rows[mine]))


def _searched(twin: Twin, queries: Float32[np.ndarray, "B D"], k: int, effort: int | None) -> Iterator[Answers]:
    start = 0
    while start < len(queries):
        some = queries[start : start + twin.batch]
        try:
            yield twin.index.search(some, k, params=twin.parameters(k, effort))
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            _shrink(twin, len(some))
            if len(some) == 1:
                raise OutOfMemory(str(error)) from error
        else:
            start += len(some)
            twin.fitted += 1
            if twin.fitted >= _GROW_AFTER:
                twin.batch, twin.fitted = min(2 * twin.batch, MAX_BATCH), 0


def _shrink(twin: Twin, size: int) -> None:
    batch = max(1, size // 2)
    if batch < twin.batch:
        _log.warning("the GPU ran out of memory on %d queries; %d at a time from here", size, batch)
    twin.batch, twin.fitted = batch, 0


def _is_out_of_memory(error: Exception) -> bool:
    """FAISS raises a RuntimeError that quotes CUDA, cuVS a std::bad_alloc."""
    text = str(error).lower().replace("_", " ")
    return isinstance(error, MemoryError) or any(sign in text for sign in ("out of memory", "alloc fail", "bad alloc"))


@cache
def dispatcher(gpu: int) -> Dispatcher:
    """The one of this GPU."""
    return Dispatcher(f"gpu-{gpu}")


@cache
def resources(gpu: int) -> Any:
    """FAISS's scratch memory on this GPU, one for all indexes on it: they take turns."""
    return faiss.StandardGpuResources()


def num_gpus() -> int:
    """GPUs that this build of FAISS sees."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def twin_of(index: Any, kind: str, gpu: int) -> Twin | None:
    """A copy of a FAISS index on a GPU; None (the CPU serves it) where FAISS has no GPU code for its kind, there is
    nothing in it, or it does not fit."""
    if kind not in kinds.GPU_KINDS or (kind == "cagra" and not kinds.HAS_CAGRA):
        _log.warning("this FAISS has no GPU search for %s; it runs on the CPU", kind)
        return None
    if index.ntotal == 0:
        return None
    options = faiss.GpuClonerOptions()
    options.useFloat16 = kind == "fp16"
    source = faiss.IndexFlatIP(index.d) if kind == "fp16" else index
    if kind == "fp16":
        source.add(index.reconstruct_n(0, index.ntotal))
    try:
        copy = faiss.index_cpu_to_gpu(resources(gpu), gpu, source, options)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        _log.warning("an index of kind %s does not fit GPU %d; it runs on the CPU", kind, gpu)
        return None
    return Twin(
        index=copy,  # CAGRA's reads the CPU index's vectors, which lives as long as `parameters`
        parameters=lambda k, effort: kinds.parameters(index, kind, k, effort, on_gpu=True),
        max_k=kinds.MAX_GPU_K.get(kind, kinds.MOST_GPU),
        dispatcher=dispatcher(gpu),
    )


def cagra(vectors: Float32[np.ndarray, "N D"], gpu: int) -> Any:
    """A CAGRA graph (Ootomo et al. 2023) of `vectors`, built on a GPU, as FAISS's CPU index that holds it."""
    built = faiss.GpuIndexCagra(resources(gpu), vectors.shape[1], faiss.METRIC_INNER_PRODUCT)
    built.train(vectors)
    index = faiss.index_gpu_to_cpu(built)
    index.hnsw.is_similarity = True  # older releases forget it, and the CPU would then look for the farthest
    return index
