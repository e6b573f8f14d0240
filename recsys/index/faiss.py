"""FAISS behind the Index face, on the CPU or a GPU.

An index is never touched after `build`: in FAISS an add beside a search crashes the process. Search parameters travel
with the call, never on the shared object. `kinds.py` says which kinds there are, docs/index.md what each costs and
finds, `parts.py` how one is built in parts.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float32, Int32

from recsys import _native
from recsys.errors import DamagedSnapshot, InvalidInput
from recsys.index import checked_k, checked_vectors, coding, gpu, kinds, padded
from recsys.index.kinds import faiss


class FaissIndex:
    """A FAISS index by inner product. On a GPU its searches queue up: see `recsys.index.gpu`."""

    def __init__(self, index: Any, *, twin: gpu.Twin | None = None) -> None:
        """`twin`: its copy on a GPU, which is asked first."""
        self._index = index
        self._kind = kinds.kind_of(index)
        self._effort = kinds.effort_of(index, self._kind)
        self._twin = twin

    @classmethod
    def build(
        cls,
        vectors: Float32[np.ndarray, "N D"],
        *,
        kind: str = "auto",
        device: str = "auto",
        effort: int | None = None,
    ) -> Self:
        """Train and fill an index of `vectors`; they are copied.

        `kind`: one of `kinds.KINDS`, or "auto" by size and device; below 1,000 vectors the kinds that are trained are
        "flat". `device`: "auto" (the first GPU where this FAISS sees one), "cpu", "cuda" or "cuda:N". `effort`: how
        hard it searches, as `recsys.index.kinds` tells; saved with it, the engine's own where it is None. Raises
        InvalidInput for NaN or infinity, an unknown kind or device, an effort that the kind cannot have.
        """
        vectors, where = checked_vectors("vectors", vectors), gpu_of(device)
        chosen = kinds.chosen(kind, len(vectors), "cpu" if where is None else "cuda")
        if effort is not None:
            kinds.checked_effort(kind, effort)
        index = _filled(vectors, chosen, where)
        kinds.set_effort(index, chosen, effort)
        return cls.on(index, device)

    @classmethod
    def on(cls, index: Any, device: str) -> Self:
        """A FAISS index that nobody else touches, served from `device`."""
        where = gpu_of(device)
        return cls(index, twin=None if where is None else gpu.twin_of(index, kinds.kind_of(index), where))

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def effort(self) -> int | None:
        """How hard it searches; None: as hard as the engine chooses."""
        return self._effort

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is asked first."""
        return self._twin is not None

    @property
    def on_cpu(self) -> Any:
        """FAISS's own index, to be read and never changed."""
        return self._index

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    @cached_property
    def size_bytes(self) -> int:
        sizes: list[int] = []
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(lambda part: sizes.append(len(part))))
        return sum(sizes)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(
        self, queries: Float32[np.ndarray, "B D"], k: int, *, effort: int | None = None
    ) -> tuple[Float32[np.ndarray, "B k"], Int32[np.ndarray, "B k"]]:
        """See `Index.search`. "fp16", "ivf_sq8" and "pq" give the scores of their rounded vectors.

        `effort`: of this search alone, in place of the index's own.
        """
        queries, n = checked_vectors("queries", queries, self.dimension), min(checked_k(k), len(self))
        if n == 0 or len(queries) == 0:
            return padded(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int32), k)
        hard = self._effort if effort is None else kinds.checked_effort(self._kind, effort)
        if self._twin is not None and n <= self._twin.max_k:
            with suppress(gpu.OutOfMemory):  # the dispatcher has warned
                scores, rows = self._twin.search(queries, n, hard)
                return padded(scores, rows, k)
        faiss.omp_set_num_threads(_native.threads())  # OpenMP keeps it per calling thread
        scores, rows = self._index.search(queries, n, params=kinds.parameters(self._index, self._kind, n, hard))
        return padded(scores, rows, k)

    def save(self, path: Path) -> None:
        """Write it in FAISS's format."""
        faiss.write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path, *, device: str = "auto") -> Self:
        """See `Index.load`. FAISS's parser does not notice every torn or flipped file."""
        gpu_of(device)  # a wrong one is an error before the file is read
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise DamagedSnapshot(f"{path.name} holds no FAISS index") from error
        return cls.on(index, device)


def trained_index(sample: Float32[np.ndarray, "n D"], kind: str, size: int) -> Any:
    """An empty FAISS index of this kind for `size` vectors that learned from all of `sample`."""
    faiss.omp_set_num_threads(_native.threads())
    index = kinds.empty(kind, size, sample.shape[1])
    if not index.is_trained:
        index.train(sample)
    return index


def _filled(vectors: Float32[np.ndarray, "N D"], kind: str, where: int | None) -> Any:
    if kind == "cagra" and where is not None:
        return gpu.cagra(vectors, where)
    index = trained_index(kinds.evenly(vectors, kind), kind, len(vectors))
    coding.fill(index, coding.encode(index, vectors))
    return index


def gpu_of(device: str) -> int | None:
    """The number of the GPU that `device` means, None: the CPU. InvalidInput: there is no such device."""
    name, _, number = device.partition(":")
    if name not in ("auto", "cpu", "cuda") or (number and (name != "cuda" or not number.isdecimal())):
        raise InvalidInput.of("device", device, 'must be "auto", "cpu", "cuda" or "cuda:N"')
    count, wanted = gpu.num_gpus(), int(number or 0)
    if name == "cuda" and wanted >= count:
        raise InvalidInput.of("device", device, f"this build of FAISS sees {count or 'no'} GPU{'s' * (count > 1)}")
    return wanted if name != "cpu" and count else None
