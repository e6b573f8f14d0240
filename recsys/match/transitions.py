"""What followed what: decayed item-to-item transitions, read from the user's latest items.

P[i, j] = sum over histories and steps s <= window of decay^(s-1) where j came s steps after i, then rows divided by
their sum^row_power and columns by popularity^popularity_power. Item-to-item co-occurrence with distance decay; on ML-1M
the decayed form alone reached NDCG@10 .160 against .145 for plain transitions.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.match import Corpus, KeptDenseReading, Signal, States, load_sparse
from recsys.memory.keys import recency_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One way to count transitions and to read them.

    `steps`, `decay`: how far ahead one looks, and how fast it fades. `backward`: weight of the reverse direction.
    `hops`: 2 follows transitions twice. `query_decay`, `query_window`: how the user's latest items weigh in.
    """

    name: str
    steps: int
    decay: float
    backward: float = 0.0
    row_power: float = 0.5
    popularity_power: float = 0.0
    query_decay: float = 0.6
    query_window: int = 20
    hops: int = 1
    proposes: int = 0


KERNELS = (
    Kernel(name="next", steps=1, decay=0.0, row_power=0.3, query_window=1),
    Kernel(name="soon", steps=10, decay=0.8, query_decay=0.7, popularity_power=0.2, proposes=100),
    Kernel(name="around", steps=12, decay=0.9, backward=1.0, popularity_power=0.3, query_decay=0.9, proposes=60),
    Kernel(name="twice", steps=10, decay=0.8, popularity_power=0.2, hops=2, proposes=60),
)

ROW_CAP = 512
"""Entries kept a row: on ML-1M full rows gain nothing and weigh eight times as much."""

_PRODUCT_ROWS = 512


@dataclass(frozen=True, slots=True)
class Transitions:
    """Sparse [N, N] matrices, one a kernel."""

    kernels: tuple[Kernel, ...]
    matrices: tuple[sp.csr_matrix, ...]
    name: ClassVar[str] = "transitions"

    @property
    def signals(self) -> tuple[Signal, ...]:
        return tuple(Signal(f"{self.name}_{k.name}", proposes=k.proposes) for k in self.kernels)

    @classmethod
    def fit(cls, corpus: Corpus, kernels: tuple[Kernel, ...] = KERNELS) -> Self:
        popularity = np.bincount(corpus.histories.items, minlength=len(corpus.items))
        counted: dict[tuple[int, float, float], sp.csr_matrix] = {}  # kernels that count alike differ in how they read
        for k in kernels:
            if (k.steps, k.decay, k.backward) not in counted:
                counted[k.steps, k.decay, k.backward] = _counts(corpus.histories, k, len(popularity))
        matrices = (_matrix(counted[k.steps, k.decay, k.backward], k, popularity) for k in kernels)
        return cls(kernels, tuple(matrices))

    def read(self, states: States) -> KeptDenseReading:
        pairs = zip(self.kernels, self.matrices, strict=True)
        scores = [
            recency_sum(states.histories, matrix, decay=each.query_decay, window=each.query_window)
            for each, matrix in pairs
        ]
        return KeptDenseReading(self.signals, np.stack(scores))

    def witness(self, states: States, row: int) -> Float32[np.ndarray, " E"]:
        place = next(i for i, kernel in enumerate(self.kernels) if kernel.name == "soon")
        kernel, matrix = self.kernels[place], self.matrices[place]
        items, ages = states.histories.items, states.histories.ages
        if row >= matrix.shape[0]:
            return np.zeros(len(items), np.float32)
        column = matrix[:, [row]].toarray().ravel()
        known = (items < len(column)) & (ages < kernel.query_window)
        weights = np.power(kernel.query_decay, ages) * column[np.where(known, items, 0)]
        return np.where(known, weights, 0.0).astype(np.float32)

    def save(self, folder: Path) -> None:
        (folder / "kernels.json").write_text(json.dumps([asdict(k) for k in self.kernels]))
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            sp.save_npz(folder / f"{kernel.name}.npz", matrix, compressed=False)

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        kernels = tuple(Kernel(**k) for k in json.loads((folder / "kernels.json").read_text()))
        return cls(kernels, tuple(load_sparse(folder / f"{k.name}.npz") for k in kernels))


def _matrix(counts: sp.csr_matrix, kernel: Kernel, popularity: np.ndarray) -> sp.csr_matrix:
    if kernel.hops == 2:
        once = _normalise(cap_rows(counts, ROW_CAP // 4), kernel, popularity)
        return capped_product(once, once, ROW_CAP)
    return cap_rows(_normalise(counts, kernel, popularity), ROW_CAP)


def _counts(histories: Histories, kernel: Kernel, num_items: int) -> sp.csr_matrix:
    total = sp.csr_matrix((num_items, num_items), dtype=np.float32)
    start = np.repeat(histories.indptr[:-1], histories.lengths)
    position = np.arange(histories.num_events)
    for step in range(1, kernel.steps + 1):
        later = position[position - step >= start]
        pairs = (histories.items[later - step], histories.items[later])
        weight = np.full(len(later), kernel.decay ** (step - 1), np.float32)
        total = total + sp.csr_matrix((weight, pairs), shape=total.shape)
    return total + kernel.backward * total.T if kernel.backward else total


def _normalise(counts: sp.csr_matrix, kernel: Kernel, popularity: np.ndarray) -> sp.csr_matrix:
    row_sum = np.asarray(counts.sum(axis=1)).ravel() + 1e-6
    rows = sp.diags((row_sum**-kernel.row_power).astype(np.float32))
    columns = sp.diags(((popularity + 1.0) ** -kernel.popularity_power).astype(np.float32))
    return (rows @ counts @ columns).tocsr()


def capped_product(left: sp.csr_matrix, right: sp.csr_matrix, cap: int) -> sp.csr_matrix:
    """`cap_rows(left @ right, cap)`, some rows at a time: the whole product may be a hundred times what is kept."""
    starts = range(0, max(left.shape[0], 1), _PRODUCT_ROWS)
    return sp.vstack([cap_rows(left[at : at + _PRODUCT_ROWS] @ right, cap) for at in starts], format="csr")


def cap_rows(matrix: sp.csr_matrix, cap: int) -> sp.csr_matrix:
    """The `cap` largest entries of each row (ties at the bound stay, so no order of columns decides)."""
    matrix = matrix.tocsr()
    keep = np.ones(matrix.nnz, bool)
    for row in np.flatnonzero(np.diff(matrix.indptr) > cap):
        span = slice(matrix.indptr[row], matrix.indptr[row + 1])
        values = matrix.data[span]
        keep[span] = values >= np.partition(values, len(values) - cap)[len(values) - cap]
    indptr = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr]
    return sp.csr_matrix((matrix.data[keep], matrix.indices[keep], indptr), shape=matrix.shape)
