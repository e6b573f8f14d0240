"""Ranker examples: past moments as questions, what happened next as the answer.

Letters: B users, Q queries, K candidates, F features.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Int32, Int64

from recsys import _native
from recsys.flow import Field, Flow, allowed_mask, batches
from recsys.match import States
from recsys.rank import Examples

BATCH = 64
WORKERS = min(4, os.cpu_count() or 1)

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """Q moments and what followed: `targets` flat, query q owns targets[indptr[q]:indptr[q + 1]]."""

    states: States
    indptr: Int64[np.ndarray, Q + 1]
    targets: Int32[np.ndarray, " T"]

    def __len__(self) -> int:
        return len(self.states)

    @classmethod
    def single(cls, states: States, targets: Int32[np.ndarray, " Q"]) -> Queries:
        """One target a query."""
        return cls(states=states, indptr=np.arange(len(targets) + 1), targets=targets)

    def take(self, rows: np.ndarray) -> Queries:
        """The queries of `rows`, in that order."""
        counts = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        flat = np.arange(indptr[-1]) - np.repeat(indptr[:-1], counts) + np.repeat(self.indptr[rows], counts)
        states = States(histories=self.states.histories.take(rows), now=self.states.now[rows], items=self.states.items)
        return Queries(states=states, indptr=indptr, targets=self.targets[flat])

    def hits(self, rows: np.ndarray, candidates: Int32[np.ndarray, "B K"]) -> np.ndarray:
        """bool [B, K]: which candidates of queries `rows` are among their targets."""
        width = int(max(self.targets.max(initial=0), candidates.max(initial=0))) + 1
        counts = np.diff(self.indptr)[rows]
        owned = np.concatenate([self.targets[self.indptr[r] : self.indptr[r + 1]] for r in rows])
        wanted = np.repeat(np.arange(len(rows)), counts) * width + owned
        return np.isin(np.arange(len(rows))[:, None] * width + candidates, wanted) & (candidates >= 0)


def fields(
    flow: Flow,
    queries: Queries,
    *,
    include_seen: bool,
    on_batch: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[np.ndarray, Field, np.ndarray]]:
    """(query rows, field, hits) batch by batch; `on_batch(done, all)` reports progress."""

    def ask(batch: tuple[np.ndarray, States]) -> tuple[np.ndarray, Field]:
        return batch[0], flow.field(batch[1], allowed_mask(batch[1], include_seen=include_seen))

    for rows, field in _ahead(ask, batches(queries.states, BATCH)):
        if on_batch:
            on_batch(int(rows[-1]) + 1, len(queries))
        yield rows, field, queries.hits(rows, field.candidates)


def _ahead(work: Callable[[_T], _R], tasks: Iterable[_T], workers: int = WORKERS) -> Iterator[_R]:
    """`work` of each task in order, `workers` at a time and no further ahead, so that few results wait in memory."""
    with _native.side_by_side(), ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_R]] = deque()
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def build_examples(
    flow: Flow,
    queries: Queries,
    *,
    include_seen: bool,
    negatives: int | None = None,
    seed: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
) -> Examples:
    """Ranker rows of all queries whose candidates hold a target.

    `negatives`: candidates kept at random of those that are no target, None for all. Features are built before any is
    left out, so places and shares are those of the whole field. On ML-1M 80 of about 300 lost nothing on validation.
    """
    rng = np.random.default_rng(seed)
    return concat(
        [
            _rows(field, _kept(field, hits, negatives, rng), hits)
            for _, field, hits in fields(flow, queries, include_seen=include_seen, on_batch=on_batch)
        ]
    )


def concat(parts: Sequence[Examples]) -> Examples:
    """Several sets of examples as one."""
    return Examples(
        features=np.concatenate([p.features for p in parts]),
        labels=np.concatenate([p.labels for p in parts]),
        sizes=np.concatenate([p.sizes for p in parts]),
    )


def _kept(field: Field, hits: np.ndarray, negatives: int | None, rng: np.random.Generator) -> np.ndarray:
    """bool [B, K]: the rows to learn from."""
    asked = np.asarray(field.valid & hits.any(axis=1, keepdims=True))
    if negatives is None:
        return asked
    lot = np.where(asked & ~hits, rng.random(hits.shape), np.inf)
    return np.asarray(asked & (hits | (lot.argsort(axis=1).argsort(axis=1) < negatives)))


def _rows(field: Field, kept: np.ndarray, hits: np.ndarray) -> Examples:
    sizes = kept.sum(axis=1)
    return Examples(
        features=field.features[kept], labels=hits[kept].astype(np.float32), sizes=sizes[sizes > 0].astype(np.int64)
    )
