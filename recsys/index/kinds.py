"""The kinds of FAISS index: which one "auto" takes, how one is made, and how hard it searches.

What each costs is measured in docs/index.md. "auto" goes by size and device:

    vectors      CPU        GPU
    to 10,000    flat       flat
    to 200,000   fp16       flat
    beyond       ivf_sq8    fp16 to 1,000,000, then ivf_sq8

The GPU's column is a guess: brute force is what a GPU is best at, and its kinds must also be served on the CPU.

Effort is how hard one search looks. It is stored in FAISS's own field in the index file; FAISS's default there means
that nothing was asked for, and the engine's own applies.

    ivf_*   lists probed            nprobe       64
    hnsw    candidates in the beam  efSearch     256, and at least twice k
    pq      second looks an answer  k_factor     8, and at least 512 in all
    cagra   as hnsw; on the GPU the beam of CAGRA (itopk_size)
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float32

from recsys import _native  # noqa: F401  (before faiss: it sets the environment and imports torch)
from recsys.errors import DamagedSnapshot, InvalidInput

import faiss as _faiss  # isort: skip

faiss: Any = _faiss  # its stubs name a part of what is there

Kind = Literal["flat", "fp16", "ivf_flat", "ivf_sq8", "ivf_fastscan", "pq", "hnsw", "cagra"]

KINDS: tuple[str, ...] = get_args(Kind)
GPU_KINDS = frozenset({"flat", "fp16", "ivf_flat", "ivf_sq8", "cagra"})
HAS_CAGRA = hasattr(faiss, "GpuIndexCagra")  # a build of FAISS with cuVS
MAX_GPU_K = {"cagra": 1_024}
"""Most answers a GPU gives to one query; MOST_GPU where the kind is not named."""
MOST_GPU = 2_048  # also of lists probed

_ENDLESS = float("inf")
_AUTO: dict[str, tuple[tuple[float, str], ...]] = {
    "cpu": ((10_000, "flat"), (200_000, "fp16"), (_ENDLESS, "ivf_sq8")),
    "cuda": ((200_000, "flat"), (1_000_000, "fp16"), (_ENDLESS, "ivf_sq8")),
}
_TRAINED = frozenset({"ivf_flat", "ivf_sq8", "ivf_fastscan", "pq", "cagra"})
_PAIRED = frozenset({"ivf_fastscan", "pq"})  # they code two dimensions at a time
LEAST_TRAINED = 1_000  # of fewer vectors k-means learns nothing, and exact search takes microseconds
_POINTS_PER_LIST = 39  # FAISS's k-means warns below
_PQ_SAMPLE = 10_000  # for 16 centroids a pair of dimensions
_PROBES = 64
_FOUND_PER_ANSWER = 8  # vectors looked at for each of the k answers, where k is large for the lists probed
_REFINED, _REFINED_PER_ANSWER = 512, 8  # candidates a fast scan hands to the second look: the larger of the two
_HNSW_LINKS, _HNSW_EF = 32, 256
_UNSET = {"ivf": 1, "pq": 1, "hnsw": 16}  # FAISS's own nprobe, k_factor and efSearch
_CLASSES = {
    "IndexFlat": "flat",
    "IndexFlatIP": "flat",
    "IndexScalarQuantizer": "fp16",
    "IndexIVFFlat": "ivf_flat",
    "IndexIVFScalarQuantizer": "ivf_sq8",
    "IndexHNSWFlat": "hnsw",
    "IndexHNSWCagra": "cagra",
}
_REFINED_CLASSES = {"IndexIVFPQFastScan": "ivf_fastscan", "IndexPQFastScan": "pq"}


def chosen(kind: str, size: int, device: str = "cpu") -> str:
    """The kind that `size` vectors get; "flat" in place of a trained kind below 1,000. InvalidInput: no such kind."""
    if kind == "auto":
        return next(each for most, each in _AUTO[device] if size <= most)
    if kind not in KINDS:
        raise InvalidInput.of("kind", kind, f'must be "auto" or one of {", ".join(KINDS)}')
    if kind == "cagra" and not (device == "cuda" and HAS_CAGRA):
        raise InvalidInput.of("kind", kind, "is built on a GPU, by a FAISS with cuVS; there is none here")
    return "flat" if kind in _TRAINED and size < LEAST_TRAINED else kind


def available(dimension: int, device: str) -> list[str]:
    """The kinds that vectors of so many dimensions can get on a device."""
    return [
        kind
        for kind in KINDS
        if not (kind in _PAIRED and dimension % 2) and (kind != "cagra" or (device == "cuda" and HAS_CAGRA))
    ]


def empty(kind: str, size: int, dimension: int) -> Any:
    """An untrained FAISS index that suits `size` vectors."""
    if kind in _PAIRED and dimension % 2:
        raise InvalidInput.of("vectors.shape", (size, dimension), f"{kind} needs an even number of dimensions")
    recipe = {
        "flat": "Flat",
        "fp16": "SQfp16",
        "ivf_flat": f"IVF{_lists(size)},Flat",
        "ivf_sq8": f"IVF{_lists(size)},SQ8",
        "ivf_fastscan": f"IVF{_lists(size)},PQ{dimension // 2}x4fs,RFlat",
        "pq": f"PQ{dimension // 2}x4fs,Refine(SQ8)",
        "hnsw": f"HNSW{_HNSW_LINKS},Flat",
    }[kind]
    return faiss.index_factory(dimension, recipe, faiss.METRIC_INNER_PRODUCT)


def _lists(size: int) -> int:
    return max(1, min(int(2 * size**0.5), size // _POINTS_PER_LIST))


def sample_size(kind: str, size: int) -> int:
    """How many of `size` vectors training wants to see: k-means on all of a million took 45 s and found no better
    lists. 0 for kinds that learn nothing."""
    wanted = {"pq": _PQ_SAMPLE}.get(kind, _POINTS_PER_LIST * _lists(size) + 1)
    return min(size, wanted) if kind in _TRAINED - {"cagra"} else 0


def evenly(vectors: Float32[np.ndarray, "N D"], kind: str) -> Float32[np.ndarray, "n D"]:
    """Evenly spaced vectors to train on, `sample_size` or more."""
    return vectors[:: max(1, len(vectors) // max(1, sample_size(kind, len(vectors))))]


def kind_of(index: Any) -> str:
    """Which of the kinds a FAISS index is; DamagedSnapshot: none."""
    name, known = type(index).__name__, _CLASSES
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise DamagedSnapshot(f"a FAISS {name} that does not go by inner product is no index built here")
    if name in ("IndexRefine", "IndexRefineFlat"):
        name, known = type(faiss.downcast_index(index.base_index)).__name__, _REFINED_CLASSES
    if name not in known:
        raise DamagedSnapshot(f"a FAISS {name} is none of the kinds of index that are built here")
    return known[name]


def searched(index: Any) -> Any:
    """What looks first: the index itself, or the one below a second look."""
    return faiss.downcast_index(index.base_index) if hasattr(index, "base_index") else index


def effort_of(index: Any, kind: str) -> int | None:
    """The effort it was made with; None: the engine's own, or a kind without."""
    if not has_effort(kind):
        return None
    holder, name = _effort_field(index, kind)
    stored = int(getattr(holder, name))
    return stored if stored > _UNSET[_family(kind)] else None


def set_effort(index: Any, kind: str, effort: int | None) -> None:
    """Write `effort` into an index that nobody searches yet; nothing for None and for kinds without, such as the flat
    one that stands in for few vectors."""
    if effort is not None and has_effort(kind):
        setattr(*_effort_field(index, kind), effort)


def _effort_field(index: Any, kind: str) -> tuple[Any, str]:
    if kind.startswith("ivf"):
        return searched(index), "nprobe"
    return (index, "k_factor") if kind == "pq" else (index.hnsw, "efSearch")


def checked_effort(kind: str, effort: int) -> int:
    """`effort`, or InvalidInput: "auto" leaves open what it would mean, and FAISS's own default says "not asked"."""
    if kind == "auto":
        raise InvalidInput.of("effort", effort, "needs a kind: what it means depends on it")
    if not has_effort(kind):
        raise InvalidInput.of("effort", effort, f"{kind} looks at everything: it has none")
    if effort <= (unset := _UNSET[_family(kind)]):
        raise InvalidInput.of("effort", effort, f"must be at least {unset + 1} for {kind}")
    return effort


def _family(kind: str) -> str:
    return {"cagra": "hnsw"}.get(kind, kind.partition("_")[0])


def has_effort(kind: str) -> bool:
    """Whether a search of this kind can look more or less hard."""
    return kind not in ("flat", "fp16")


def parameters(index: Any, kind: str, n: int, effort: int | None, *, on_gpu: bool = False) -> Any:
    """What one search for n answers needs; a fresh object, so that concurrent searches cannot meet in it."""
    if kind in ("ivf_flat", "ivf_sq8"):
        return _probe(index, n, index.ntotal, effort, on_gpu=on_gpu)
    if kind == "ivf_fastscan":
        second = max(_REFINED, _REFINED_PER_ANSWER * n)
        probe = _probe(searched(index), n if effort else second, index.ntotal, effort)
        return faiss.IndexRefineSearchParameters(k_factor=second / n, base_index_params=probe)
    if kind == "pq":
        factor = effort or max(_REFINED / n, _REFINED_PER_ANSWER)
        return faiss.IndexRefineSearchParameters(k_factor=factor)
    if kind in ("hnsw", "cagra"):
        beam = max(effort, n) if effort else max(_HNSW_EF, 2 * n)
        return faiss.SearchParametersCagra(itopk_size=beam) if on_gpu else faiss.SearchParametersHNSW(efSearch=beam)
    return None


def _probe(index: Any, n: int, size: int, effort: int | None, *, on_gpu: bool = False) -> Any:
    """Enough lists that even a large n finds several times as many vectors as it asks for."""
    needed = -(-_FOUND_PER_ANSWER * n * index.nlist // size)
    most = min(index.nlist, MOST_GPU) if on_gpu else index.nlist
    return faiss.SearchParametersIVF(nprobe=min(most, max(effort or _PROBES, needed)))
