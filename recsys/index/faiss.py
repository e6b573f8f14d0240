"""FAISS behind the Index face, on the CPU or a GPU.

An index is never touched after `build`: in FAISS an add beside a search crashes the process. Search parameters travel
with the call, never on the shared object.

Kinds, and what each costs for 100,000 clustered vectors of d=64, k=100, one query that lies among them, one core;
queries from elsewhere find less, by hnsw far less. `kind="auto"` takes one of the first three by size.

    flat          to 10,000 vectors     850 us   exact              24 MiB
    fp16          to 200,000            440 us   recall@100 .999    12 MiB
    ivf_sq8       beyond                140 us   recall@100 .99      7 MiB, built in 5 s
    ivf_fastscan  on request            270 us   recall@100 1.00    27 MiB, built in 5 s
    hnsw          on request            250 us   recall@100 .99     50 MiB, built in 10 s; a million in minutes
"""

from __future__ import annotations

import logging
import threading
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from jaxtyping import Float32, Int32

from recsys import _native
from recsys.errors import DamagedSnapshot, InvalidInput
from recsys.index import checked_k, checked_vectors, padded

import faiss as _faiss  # isort: skip  (after torch, which `_native` imports)

faiss: Any = _faiss  # its stubs name a part of what is there

Kind = Literal["flat", "fp16", "ivf_sq8", "ivf_fastscan", "hnsw"]

_log = logging.getLogger(__name__)

_MAX_FLAT, _MAX_FP16 = 10_000, 200_000
_LEAST_TRAINED = 1_000  # of fewer vectors k-means learns nothing, and exact search takes microseconds
_POINTS_PER_LIST = 39  # FAISS's k-means warns below
_PROBES = 64
_FOUND_PER_ANSWER = 8  # vectors looked at for each of the k answers, where k is large for the lists probed
_REFINED, _REFINED_PER_ANSWER = 512, 8  # candidates a fast scan hands to the exact second look: the larger of the two
_HNSW_LINKS, _HNSW_EF = 32, 256
_MAX_GPU_K = 2_048
_GPU_KINDS = {"flat", "fp16", "ivf_sq8"}
_CLASSES = {
    "IndexFlat": "flat",
    "IndexFlatIP": "flat",
    "IndexScalarQuantizer": "fp16",
    "IndexIVFScalarQuantizer": "ivf_sq8",
    "IndexRefineFlat": "ivf_fastscan",
    "IndexRefine": "ivf_fastscan",
    "IndexHNSWFlat": "hnsw",
}


class FaissIndex:
    """A FAISS index by inner product. On a GPU its searches queue up: FAISS allows one at a time there."""

    def __init__(self, index: Any, *, device: str) -> None:
        self._index = index
        self._kind = _kind_of(index)
        self._on_gpu = _to_gpu(index, self._kind) if device == "cuda" else None
        self._gpu_turn = threading.Lock()

    @classmethod
    def build(cls, vectors: Float32[np.ndarray, "N D"], *, kind: str = "auto", device: str = "auto") -> Self:
        """Train and fill an index of `vectors`; they are copied.

        `kind` as in the module's table, or "auto" by size; the two ivf kinds are "flat" below 1,000 vectors. `device`
        "auto" (a GPU where this FAISS sees one), "cpu" or "cuda". Raises InvalidInput for NaN or infinity, an unknown
        kind or device.
        """
        vectors = checked_vectors("vectors", vectors)
        where, chosen = _device(device), _chosen(kind, len(vectors))
        faiss.omp_set_num_threads(_native.threads())
        index = faiss.index_factory(vectors.shape[1], _recipe(chosen, *vectors.shape), faiss.METRIC_INNER_PRODUCT)
        if len(vectors):
            index.train(_sample(vectors))
            index.add(vectors)
        return cls(index, device=where)

    @property
    def kind(self) -> str:
        return self._kind

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
        self, queries: Float32[np.ndarray, "B D"], k: int
    ) -> tuple[Float32[np.ndarray, "B k"], Int32[np.ndarray, "B k"]]:
        """See `Index.search`. "fp16" and "ivf_sq8" give the scores of their rounded vectors."""
        queries, n = checked_vectors("queries", queries, self.dimension), min(checked_k(k), len(self))
        if n == 0 or len(queries) == 0:
            return padded(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int32), k)
        faiss.omp_set_num_threads(_native.threads())  # OpenMP keeps it per calling thread
        if self._on_gpu is not None and n <= _MAX_GPU_K:
            with self._gpu_turn:
                scores, rows = self._on_gpu.search(queries, n, params=self._parameters(n))
        else:
            scores, rows = self._index.search(queries, n, params=self._parameters(n))
        return padded(scores, rows, k)

    def save(self, path: Path) -> None:
        """Write it in FAISS's format."""
        faiss.write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path, *, device: str = "auto") -> Self:
        """See `Index.load`. FAISS's parser does not notice every torn or flipped file."""
        where = _device(device)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise DamagedSnapshot(f"{path.name} holds no FAISS index") from error
        return cls(index, device=where)

    def _parameters(self, n: int) -> Any:
        """What one search needs; a fresh object, so that concurrent ones cannot meet in it."""
        if self._kind == "ivf_sq8":
            return _probe(self._index, n, len(self))
        if self._kind == "ivf_fastscan":
            refined = max(_REFINED, _REFINED_PER_ANSWER * n)
            probe = _probe(faiss.downcast_index(self._index.base_index), refined, len(self))
            return faiss.IndexRefineSearchParameters(k_factor=refined / n, base_index_params=probe)
        if self._kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(_HNSW_EF, 2 * n))
        return None


def _chosen(kind: str, size: int) -> str:
    if kind == "auto":
        return "flat" if size <= _MAX_FLAT else "fp16" if size <= _MAX_FP16 else "ivf_sq8"
    if kind not in get_args(Kind):
        raise InvalidInput.of("kind", kind, f'must be "auto" or one of {", ".join(get_args(Kind))}')
    return "flat" if kind.startswith("ivf") and size < _LEAST_TRAINED else kind


def _lists(size: int) -> int:
    return max(1, min(int(2 * size**0.5), size // _POINTS_PER_LIST))


def _sample(vectors: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "n D"]:
    """Evenly spaced vectors to train on: k-means on all of a million took 45 s and found no better lists."""
    return vectors[:: max(1, len(vectors) // (_POINTS_PER_LIST * _lists(len(vectors)) + 1))]


def _recipe(kind: str, size: int, dimension: int) -> str:
    """FAISS's index factory string."""
    lists = _lists(size)
    if kind == "ivf_fastscan" and dimension % 2:
        raise InvalidInput.of("vectors.shape", (size, dimension), "ivf_fastscan needs an even number of dimensions")
    return {
        "flat": "Flat",
        "fp16": "SQfp16",
        "ivf_sq8": f"IVF{lists},SQ8",
        "ivf_fastscan": f"IVF{lists},PQ{dimension // 2}x4fs,RFlat",
        "hnsw": f"HNSW{_HNSW_LINKS},Flat",
    }[kind]


def _kind_of(index: Any) -> str:
    name = type(index).__name__
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise DamagedSnapshot(f"a FAISS {name} that does not go by inner product is no index built here")
    if name not in _CLASSES:
        raise DamagedSnapshot(f"a FAISS {name} is none of the kinds of index that are built here")
    return _CLASSES[name]


def _probe(index: Any, n: int, size: int) -> Any:
    """Enough lists that even a large n finds several times as many vectors as it asks for."""
    needed = -(-_FOUND_PER_ANSWER * n * index.nlist // size)
    return faiss.SearchParametersIVF(nprobe=min(index.nlist, max(_PROBES, needed)))


def _num_gpus() -> int:
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def _device(device: str) -> str:
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidInput.of("device", device, 'must be "auto", "cpu" or "cuda"')
    if device == "cuda" and not _num_gpus():
        raise InvalidInput.of("device", device, "this build of FAISS sees no GPU")
    return "cuda" if device != "cpu" and _num_gpus() else "cpu"


def _to_gpu(index: Any, kind: str) -> Any:
    """The GPU's copy of `index`, or None (the CPU serves it) for kinds that FAISS has no GPU code for."""
    if kind not in _GPU_KINDS:
        _log.warning("FAISS has no GPU search for %s; it runs on the CPU", kind)
        return None
    options = faiss.GpuClonerOptions()
    options.useFloat16 = kind == "fp16"
    source = faiss.IndexFlatIP(index.reconstruct_n(0, index.ntotal)) if kind == "fp16" else index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, source, options)
