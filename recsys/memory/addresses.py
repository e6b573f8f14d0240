"""Addresses: where in everybody's past each item lies, so that a known thing is read without a search.

The moment after event e is keyed by the decayed superposition of the `window` items up to e (`recsys.memory.keys`). A
read asks which past moments share items with the present one: it follows the addresses of the user's latest items, adds
up decay^a * decay^b for each shared item, and so computes exactly the inner product of one-hot keys, at the cost of the
occurrences touched.

Letters: B states, E events of all users, N items, W window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int32

from recsys.data.histories import Histories
from recsys.memory.keys import next_items

MAX_OCCURRENCES = 4_096
"""Addresses kept an item, evenly spaced: bounds a read at W * 4,096 moments however large the past grows."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """`postings` [N, E]: decay^age of item n in the key of moment e. `following` [E]: what came next, -1: nothing."""

    postings: sp.csr_matrix
    following: Int32[np.ndarray, " E"]

    @classmethod
    def build(cls, histories: Histories, num_items: int, *, decay: float, window: int) -> Addresses:
        following = next_items(histories)
        order, starts = _occurrences(histories.items, num_items)
        ends = np.repeat(histories.indptr[1:], histories.lengths)
        moments = order[:, None] + np.arange(window)
        # A moment counts while it lies in the same history and something follows it.
        valid = moments < ends[order, None] - 1
        weights = np.broadcast_to(np.power(decay, np.arange(window)).astype(np.float32), moments.shape)
        indptr = np.concatenate([[0], np.cumsum(valid.sum(axis=1))])[starts]
        data = (weights[valid], moments[valid].astype(np.int32), indptr)
        return cls(sp.csr_matrix(data, shape=(num_items, histories.num_events)), following)

    def read(self, keys: sp.csr_matrix) -> sp.csr_matrix:
        """Exact inner products of one-hot keys [B, N] with every moment that shares an item: sparse [B, E]."""
        return (keys @ self.postings).tocsr()

    @property
    def size_bytes(self) -> int:
        parts = (self.postings.data, self.postings.indices, self.postings.indptr, self.following)
        return sum(part.nbytes for part in parts)


def _occurrences(items: np.ndarray, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Event positions grouped by item, at most MAX_OCCURRENCES each, and where each item's group starts [N + 1]."""
    order = np.argsort(items, kind="stable")
    counts = np.bincount(items, minlength=num_items)
    starts = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(len(items)) - np.repeat(starts[:-1], counts)
    stride = np.repeat(np.maximum(1, -(-counts // MAX_OCCURRENCES)), counts)
    kept = within % stride == 0
    return order[kept], np.concatenate([[0], np.cumsum(kept)])[starts]
