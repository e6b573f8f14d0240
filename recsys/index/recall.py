"""How much of the exact answer an index finds.

Letters: N vectors, B queries, D dimensions, k answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from recsys import _native
from recsys.errors import InvalidInput
from recsys.index import Index, checked_k, checked_vectors
from recsys.index.kinds import faiss
from recsys.metrics import bootstrap_interval

VectorsOf = Callable[[Int[np.ndarray, " n"]], Float32[np.ndarray, "n D"]]
"""The vectors of rows: of an array `vectors.__getitem__`, or made when they are asked for."""

_BLOCK = 65_536  # vectors at a time, so that all need never be in memory
_ROUNDING = 1e-6  # of both lengths: a sum of float32 hangs on its order


@dataclass(frozen=True, slots=True)
class Recall:
    """`value`: of the k answers to a query, the part that is as good as the exact ones, over all queries. `low`,
    `high`: its 95 % interval when queries are drawn anew."""

    value: float
    low: float
    high: float
    k: int
    num_queries: int


def recall(index: Index, vectors_of: VectorsOf, queries: Float32[np.ndarray, "B D"], k: int) -> Recall:
    """What `index` finds of the k largest inner products of each query with the vectors it was built of.

    An answer counts where its exact product reaches that of the k-th best, so equal vectors stand for each other (as
    ann-benchmarks counts, Aumüller et al. 2020). Raises InvalidInput for an empty index, no query, NaN or infinity.
    """
    least = exact_least(vectors_of, len(index), queries, k)
    return compared(index.search(queries, min(k, len(index)))[1], least, vectors_of, queries)


def exact_least(
    vectors_of: VectorsOf, size: int, queries: Float32[np.ndarray, "B D"], k: int
) -> Float32[np.ndarray, " B"]:
    """The k-th largest product of each query with `size` vectors, the least of all where there are fewer than k."""
    queries = checked_vectors("queries", queries)
    if size == 0 or len(queries) == 0:
        raise InvalidInput.of("size" if size == 0 else "queries.shape", 0 if size == 0 else queries.shape, "is empty")
    n = min(checked_k(k), size)
    best = np.full((len(queries), n), -np.inf, np.float32)
    faiss.omp_set_num_threads(_native.threads())
    for start in range(0, size, _BLOCK):
        block = checked_vectors("vectors", vectors_of(np.arange(start, min(start + _BLOCK, size))), queries.shape[1])
        scores, _ = faiss.knn(queries, block, min(n, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        best = -np.partition(-np.concatenate([best, scores], axis=1), n - 1, axis=1)[:, :n]
    return np.asarray(best.min(axis=1))


def compared(
    rows: Int[np.ndarray, "B k"],
    least: Float32[np.ndarray, " B"],
    vectors_of: VectorsOf,
    queries: Float32[np.ndarray, "B D"],
) -> Recall:
    """The recall of an index's answers, where the k-th best product of each query is known. Missing answers (row -1)
    count as not found; so do a row's second and later mentions."""
    each = np.array(
        [_found(*asked, vectors_of) / rows.shape[1] for asked in zip(rows, least, queries, strict=True)], np.float64
    )
    low, high = bootstrap_interval(each, np.arange(len(each)))
    return Recall(float(each.mean()), low, high, rows.shape[1], len(queries))


def _found(rows: np.ndarray, least: np.float32, query: np.ndarray, vectors_of: VectorsOf) -> int:
    vectors = vectors_of(np.unique(rows[rows >= 0]))
    rounding = _ROUNDING * np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    return int((vectors @ query >= least - rounding).sum())
