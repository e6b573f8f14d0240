"""Vectors as the codes that an index keeps of them, and codes back into an index.

A code depends on its vector and the trained index alone, never on the vectors beside it: so it does not matter who
codes what, or in which order. FAISS's own assignment to lists is not so: the same vector can fall to either of two
lists that are equally near, by how many it is searched with. Hence `_assigned`.

Letters: N vectors, D dimensions, C bytes of a code, R bytes for the second look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8

from recsys import _native
from recsys._kernel import long_kernel
from recsys.index.kinds import faiss, searched

_NEAREST_LISTS = 4  # among which the exact comparison chooses: a rounding error never moves the best one further down


@dataclass(frozen=True, slots=True)
class Part:
    """Some vectors as an index keeps them. `lists` is 0 wide where the kind has no lists, `refined` where it has no
    second look."""

    lists: Int32[np.ndarray, "N L"]
    codes: UInt8[np.ndarray, "N C"]
    refined: UInt8[np.ndarray, "N R"]

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return (self.lists, self.codes, self.refined)

    @property
    def widths(self) -> tuple[int, int, int]:
        """L, C and R: equal for parts of one index."""
        lists, codes, refined = self.columns
        return (lists.shape[1], codes.shape[1], refined.shape[1])

    def take(self, rows: Int[np.ndarray, " n"]) -> Part:
        return Part(self.lists[rows], self.codes[rows], self.refined[rows])

    @staticmethod
    def joined(parts: Sequence[Part]) -> Part:
        """All of them, one after the other."""
        lists, codes, refined = zip(*(part.columns for part in parts), strict=True)
        return Part(np.concatenate(lists), np.concatenate(codes), np.concatenate(refined))

    def save(self, path: Path) -> None:
        """Write an .npz file (whatever `path` ends in)."""
        with path.open("wb") as file:
            np.savez(file, lists=self.lists, codes=self.codes, refined=self.refined)

    @classmethod
    def load(cls, path: Path) -> Part:
        with np.load(path, allow_pickle=False) as held:
            return cls(held["lists"], held["codes"], held["refined"])


def encode(index: Any, vectors: Float32[np.ndarray, "N D"]) -> Part:
    """The codes of `vectors` in a trained FAISS index, which is not changed."""
    faiss.omp_set_num_threads(_native.threads())
    base, refined, lists = searched(index), np.empty((len(vectors), 0), np.uint8), np.empty((len(vectors), 0), np.int32)
    if base is not index:
        refined = faiss.downcast_index(index.refine_index).sa_encode(vectors)
    if hasattr(base, "nlist"):
        lists = _assigned(base.quantizer, vectors)[:, None]
        codes = np.empty((len(vectors), base.code_size), np.uint8)
        wide = lists[:, 0].astype(np.int64)
        pointers = [faiss.swig_ptr(each) for each in (vectors, wide, codes)]
        base.encode_vectors(len(vectors), *pointers, False)
    elif hasattr(base, "pq"):
        codes = base.pq.compute_codes(vectors)
    else:
        codes = _storage(base).sa_encode(vectors)
    return Part(lists, codes, refined)


def fill(index: Any, part: Part) -> None:
    """Put coded vectors into a trained, empty FAISS index, in their order.

    A graph (hnsw) is built here, whole; of more than one thread it comes out a little different each time.
    """
    if len(part) == 0:
        return
    faiss.omp_set_num_threads(_native.threads())
    base = searched(index)
    if hasattr(base, "nlist"):
        _fill_lists(base, part)
    elif hasattr(base, "pq"):
        plain = faiss.IndexPQ(base.d, base.pq.M, base.pq.nbits, base.metric_type)
        plain.pq, plain.is_trained = base.pq, True
        plain.add_sa_codes(part.codes)
        packed = faiss.IndexPQFastScan(plain, base.bbs)
        base.codes, base.ntotal2, base.ntotal = packed.codes, packed.ntotal2, packed.ntotal
    elif hasattr(base, "hnsw"):
        base.add(part.codes.view(np.float32))
    else:
        base.add_sa_codes(part.codes)
    if base is not index:
        faiss.downcast_index(index.refine_index).add_sa_codes(part.refined)
        index.ntotal = len(part)


def emptied(index: Any) -> Any:
    """A copy of a FAISS index that holds no vector."""
    out = faiss.clone_index(index)
    out.reset()
    base = searched(out)
    if hasattr(base, "ntotal2"):  # the size with padding, which FAISS forgets to reset
        base.ntotal2 = 0
    return out


def stored(index: Any) -> Part:
    """What a FAISS index keeps of all its vectors, by row: `encode` gave it, `fill` would take it."""
    base, size = searched(index), int(index.ntotal)
    refined, lists = np.empty((size, 0), np.uint8), np.empty((size, 0), np.int32)
    if base is not index:
        refined = _flat_codes(faiss.downcast_index(index.refine_index))
    if type(base).__name__ == "IndexIVFPQFastScan":  # its codes lie packed, but the second look has the vectors
        return encode(index, refined.view(np.float32))
    if hasattr(base, "nlist"):
        lists, codes = _listed(base)
    elif hasattr(base, "pq"):
        codes = base.pq.compute_codes(base.reconstruct_n(0, size))  # a centroid's nearest centroid is itself
    else:
        codes = _flat_codes(_storage(base))
    return Part(lists, codes, refined)


def _fill_lists(base: Any, part: Part) -> None:
    """Inverted lists in which rows rise; fast scan packs them, which FAISS does from an index that does not."""
    lists = part.lists[:, 0]
    order = np.argsort(lists, kind="stable").astype(np.int64)
    codes, bounds = part.codes[order], np.searchsorted(lists[order], np.arange(base.nlist + 1))
    packs = hasattr(base, "bbs")
    plain = _unpacked(base) if packs else base
    for number, (start, stop) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        if stop > start:
            rows, some = faiss.swig_ptr(order[start:stop]), faiss.swig_ptr(codes[start:stop])
            plain.invlists.add_entries(number, stop - start, rows, some)
    plain.ntotal = len(part)
    if packs:
        packed = faiss.IndexIVFPQFastScan(plain, base.bbs)
        base.replace_invlists(packed.invlists, True)
        packed.own_invlists, base.ntotal = False, len(part)


def _unpacked(base: Any) -> Any:
    """An empty IVF-PQ index whose codes are those of a fast-scan one."""
    plain = faiss.IndexIVFPQ(base.quantizer, base.d, base.nlist, base.pq.M, base.pq.nbits, base.metric_type)
    plain.pq, plain.by_residual, plain.is_trained = base.pq, base.by_residual, True
    return plain


def _listed(base: Any) -> tuple[Int32[np.ndarray, "N 1"], UInt8[np.ndarray, "N C"]]:
    lists, codes = np.empty((base.ntotal, 1), np.int32), np.empty((base.ntotal, base.code_size), np.uint8)
    for number in range(base.nlist):
        size = base.invlists.list_size(number)
        if size:
            rows = faiss.rev_swig_ptr(base.invlists.get_ids(number), size)
            held = faiss.rev_swig_ptr(base.invlists.get_codes(number), size * base.code_size)
            lists[rows], codes[rows] = number, held.reshape(size, base.code_size)
    return lists, codes


def _storage(base: Any) -> Any:
    """Where an index keeps codes: itself, or a graph's store."""
    return faiss.downcast_index(base.storage) if hasattr(base, "hnsw") else base


def _flat_codes(index: Any) -> UInt8[np.ndarray, "N C"]:
    return np.asarray(faiss.vector_to_array(index.codes)).reshape(index.ntotal, index.code_size)


def _assigned(quantizer: Any, vectors: Float32[np.ndarray, "N D"]) -> Int32[np.ndarray, " N"]:
    """The list of each vector: of the nearest few, the best by a product that is computed the same way for each."""
    flat = faiss.downcast_index(quantizer)
    centres = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    _, near = quantizer.search(vectors, min(_NEAREST_LISTS, flat.ntotal))
    out = np.zeros(len(vectors), np.int32)
    _best(vectors, centres, near, out)
    return out


@long_kernel
def _best(vectors, centres, near, out):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    for row in range(vectors.shape[0]):
        best, list_ = -np.inf, centres.shape[0]
        for place in range(near.shape[1]):
            number = near[row, place]
            if number < 0:  # FAISS's word for none
                continue
            product = 0.0
            for dimension in range(vectors.shape[1]):
                product += np.float64(vectors[row, dimension]) * np.float64(centres[number, dimension])
            if product > best or (product == best and number < list_):
                best, list_ = product, number
        out[row] = list_ if list_ < centres.shape[0] else 0
