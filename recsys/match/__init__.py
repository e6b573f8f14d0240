"""Interest match: one matcher a file; each proposes candidates and scores any candidate.

A matcher is fitted once and never changes. `read` looks a batch of user states up in it, once; the reading then both
proposes and scores, so nothing is looked up twice in a request.

Letters: B users of a batch, N items the matcher was fitted on, K candidates a user, S signals of a matcher.
Candidate rows below 0 are padding; rows at or above N are items met after the fit. Both score 0 unless the matcher
reads texts, which carry new items.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float32, Float64, Int32

from recsys._kernel import kernel
from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder
from recsys.memory.meetings import Meetings

LATEST = 512
"""No matcher looks at more of the latest events one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What matchers learn from: histories to remember, items to speak of, a history encoder where one was trained."""

    histories: Histories
    items: ItemTable
    sequence: SequenceEncoder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """B users at the moment of asking: what each did so far, and the time of the question in seconds [B].

    With `met`, what each met in all their life, `histories` may hold the latest `LATEST` events only.
    """

    histories: Histories
    now: Float64[np.ndarray, " B"]
    items: ItemTable
    met: Meetings | None = None

    def __len__(self) -> int:
        return len(self.histories)

    @property
    def meetings(self) -> Meetings:
        """`met`, found in the histories where it is not known yet."""
        return Meetings.of(self.histories) if self.met is None else self.met


@dataclass(frozen=True, slots=True)
class Signal:
    """One column a matcher yields.

    `absolute`: the value means the same for every user (a cosine, a count), so the ranker sees it as it is; other
    signals are seen relative to the best of their request. `proposes`: how many candidates it brings, 0 for none.
    """

    name: str
    absolute: bool = False
    proposes: int = 0


class Reading(Protocol):
    """What a matcher found for B states.

    What it proposes hangs on the events, the items and `allowed`; where it hangs on more, that is its `hangs_on`.
    """

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        """Candidate rows among the allowed, -1 where there are fewer; duplicates may occur."""
        ...

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        """Each signal of each candidate; finite, 0 where the matcher knows nothing."""
        ...


@runtime_checkable
class KeptReading(Reading, Protocol):
    """A reading that hangs on a user's events alone: kept until the next of them."""

    @property
    def size_bytes(self) -> int: ...

    def renewed(self, states: States) -> Self | None:
        """The same reading for another question of one user (B = 1) with the same events; None where it must be
        read anew."""
        ...


class Matcher(Protocol):
    """A fitted source of interest-match scores.

    One that may look at more than the `LATEST` events one by one says at how many in a property `looks_back`.
    """

    name: ClassVar[str]

    @property
    def signals(self) -> tuple[Signal, ...]: ...

    @classmethod
    def fit(cls, corpus: Corpus) -> Self:
        """Learn from what everybody did."""
        ...

    def read(self, states: States) -> Reading:
        """Look the states up; reads of one matcher may run in several threads at once."""
        ...

    def save(self, folder: Path) -> None:
        """Write arrays and settings into an existing empty folder."""
        ...

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        """The matcher that `save` wrote, over the same items; files are trusted, the snapshot has verified them."""
        ...


@runtime_checkable
class Witness(Protocol):
    """A matcher that can tell which of a user's events made it score an item."""

    def witness(self, states: States, row: int) -> Float32[np.ndarray, " E"]:
        """The weight of each event of one state (B = 1) for item `row`; what is not positive does not speak for it."""
        ...


@runtime_checkable
class Erasable(Protocol):
    """A matcher that asks single users' moments for their vote, and can leave some users out."""

    def without_users(self, users: Int32[np.ndarray, " n"], histories: Histories) -> Self:
        """The matcher without the votes of user rows `users`; `histories` are those that it was fitted on."""
        ...


@dataclass(frozen=True, slots=True)
class DenseReading:
    """A reading that holds every score. Right while N fits the cache, and the plain twin beyond."""

    signals: tuple[Signal, ...]
    scores: Float32[np.ndarray, "S B N"]
    hangs_on: Hashable = ()

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        found = [
            top_rows(scores, signal.proposes, allowed)
            for signal, scores in zip(self.signals, self.scores, strict=True)
            if signal.proposes
        ]
        return np.concatenate(found, axis=1) if found else np.full((len(allowed), 0), -1, np.int32)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        return gather(self.scores, candidates)


@dataclass(frozen=True, slots=True)
class KeptDenseReading(DenseReading):
    """A `KeptReading` of scores over the fitted items."""

    @property
    def size_bytes(self) -> int:
        return self.scores.nbytes

    def renewed(self, states: States) -> Self:
        return self


def load_sparse(path: Path) -> sp.csr_matrix:
    """What `save_npz` wrote. Raises ValueError for an index out of range, which scipy would follow out of memory."""
    matrix = sp.csr_matrix(sp.load_npz(path))
    matrix.check_format(full_check=True)
    return matrix


def top_rows(scores: Float32[np.ndarray, "B N"], k: int, allowed: Bool[np.ndarray, "B M"]) -> Int32[np.ndarray, "B P"]:
    """The k allowed rows of highest positive score, in no order; -1 where fewer are positive."""
    out = np.empty((len(scores), min(k, scores.shape[1])), np.int32)
    _top_rows(np.ascontiguousarray(scores), np.ascontiguousarray(allowed), out)
    return out


def gather(scores: Float32[np.ndarray, "S B N"], candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
    """scores[s, b, candidates[b, k]], 0 for padding and for rows the scores do not reach."""
    out = np.empty((*candidates.shape, len(scores)), np.float32)
    _gather(np.ascontiguousarray(scores), np.ascontiguousarray(candidates), out)
    return out


@kernel
def _top_rows(scores, allowed, out):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    """A heap of the best so far, the least of them on top: most rows cost one comparison."""
    k = out.shape[1]
    heap = np.empty(k, np.float32)
    for user in range(out.shape[0]):
        best, size = out[user], 0
        for row in range(scores.shape[1]):
            score = scores[user, row]
            if not score > 0.0 or not allowed[user, row]:
                continue
            if size < k:
                place = size
                size += 1
                while place > 0 and heap[(place - 1) // 2] > score:
                    parent = (place - 1) // 2
                    heap[place], best[place] = heap[parent], best[parent]
                    place = parent
            elif k > 0 and score > heap[0]:
                place = 0
                while 2 * place + 1 < k:
                    child = 2 * place + 1
                    if child + 1 < k and heap[child + 1] < heap[child]:
                        child += 1
                    if heap[child] >= score:
                        break
                    heap[place], best[place] = heap[child], best[child]
                    place = child
            else:
                continue
            heap[place], best[place] = score, row
        best[size:] = -1


@kernel
def _gather(scores, candidates, out):  # type: ignore[no-untyped-def]
    num_signals, _, num_items = scores.shape
    for user in range(candidates.shape[0]):
        for place in range(candidates.shape[1]):
            row = candidates[user, place]
            known = 0 <= row < num_items
            for signal in range(num_signals):
                out[user, place, signal] = scores[signal, user, row] if known else 0.0
