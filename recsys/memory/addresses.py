"""Addresses: where in everybody's past each item lies, so that a known thing is read without a search.

The moment after event e is keyed by the decayed superposition of the `window` items up to e (`recsys.memory.keys`). A
read asks which past moments share items with the present one: it follows the addresses of the user's latest items, adds
up decay^a * decay^b for each shared item, and so computes exactly the inner product of one-hot keys, at the cost of the
occurrences touched.

Letters: B states, E events of all users, N items, W window.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from recsys._kernel import long_kernel
from recsys.data.histories import Histories
from recsys.memory.keys import next_items

MAX_OCCURRENCES = 4_096
"""Addresses kept an item, evenly spaced: bounds a read at W * 4,096 moments however large the past grows."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where items were met: those of item n are places[starts[n]:starts[n + 1]], event numbers of everybody's past.

    `following` [E]: what came next, -1: nothing, the history ends. `spare`: tallies of moments, all zero, that reads
    at the same time take and give back.
    """

    places: Int32[np.ndarray, " P"]
    starts: Int64[np.ndarray, " N+1"]
    following: Int32[np.ndarray, " E"]
    decay: float
    window: int
    spare: deque[np.ndarray] = field(default_factory=deque, compare=False, repr=False)

    @classmethod
    def build(cls, histories: Histories, num_items: int, *, decay: float, window: int) -> Addresses:
        places, starts = _occurrences(histories.items, num_items)
        return cls(places.astype(np.int32), starts.astype(np.int64), next_items(histories), decay, window)

    def votes(
        self, histories: Histories, rarity: Float32[np.ndarray, " N"], power: float
    ) -> Float32[np.ndarray, "B N"]:
        """The sum of overlap^power over all moments that share an item with the present one, by what followed.

        The overlap is the inner product of the two moments' one-hot keys, with the present one's items times `rarity`.
        """
        out = np.zeros((len(histories), len(self.starts) - 1), np.float32)
        try:
            tally = self.spare.pop()
        except IndexError:
            tally = np.zeros(len(self.following), np.float32)
        decays = np.power(self.decay, np.arange(self.window)).astype(np.float32)
        items = np.ascontiguousarray(histories.items)
        _vote(items, histories.indptr, rarity, decays, self.places, self.starts, self.following, power, tally, out)
        self.spare.append(tally)
        return out

    def without(self, gone: Bool[np.ndarray, " E"]) -> Addresses:
        """The same without the whole histories that the events `gone` make up: nothing follows on their moments."""
        return replace(self, following=np.where(gone, np.int32(-1), self.following))

    @property
    def size_bytes(self) -> int:
        return sum(part.nbytes for part in (self.places, self.starts, self.following))


@long_kernel
def _vote(  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    items, ends, rarity, decays, places, starts, following, power, tally, out
):
    W = len(decays)
    for user in range(len(ends) - 1):
        begin, end = max(ends[user], ends[user + 1] - W), ends[user + 1]
        most = 0
        for event in range(begin, end):
            if items[event] < len(starts) - 1:
                most += (starts[items[event] + 1] - starts[items[event]]) * W
        touched, num_touched = np.empty(most, np.int32), 0
        for event in range(begin, end):
            item = items[event]
            if item >= len(starts) - 1:
                continue
            weight = decays[end - 1 - event] * rarity[item]
            for at in range(starts[item], starts[item + 1]):
                place = places[at]
                for age in range(W):
                    moment = place + age
                    if following[moment] < 0:
                        break
                    if tally[moment] == 0.0:
                        touched[num_touched] = moment
                        num_touched += 1
                    tally[moment] += weight * decays[age]
        for at in range(num_touched):
            moment = touched[at]
            overlap = tally[moment]
            tally[moment] = 0.0
            out[user, following[moment]] += overlap * np.sqrt(overlap) if power == 1.5 else overlap**power


def _occurrences(items: np.ndarray, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Event positions grouped by item, at most MAX_OCCURRENCES each, and where each item's group starts [N + 1]."""
    order = np.argsort(items, kind="stable")
    counts = np.bincount(items, minlength=num_items)
    starts = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(len(items)) - np.repeat(starts[:-1], counts)
    stride = np.repeat(np.maximum(1, -(-counts // MAX_OCCURRENCES)), counts)
    kept = within % stride == 0
    return order[kept], np.concatenate([[0], np.cumsum(kept)])[starts]
