"""Interest match: one matcher a file; each proposes candidates and scores any candidate.

A matcher is fitted once and never changes. `read` looks a batch of user states up in it, once; the reading then both
proposes and scores, so nothing is looked up twice in a request.

Letters: B users of a batch, N items the matcher was fitted on, K candidates a user, S signals of a matcher.
Candidate rows below 0 are padding; rows at or above N are items met after the fit. Both score 0 unless the matcher
reads texts, which carry new items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float32, Float64, Int32

from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What matchers learn from: histories to remember, items to speak of, a history encoder where one was trained."""

    histories: Histories
    items: ItemTable
    sequence: SequenceEncoder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """B users at the moment of asking: what each did so far, and the time of the question in seconds [B]."""

    histories: Histories
    now: Float64[np.ndarray, " B"]
    items: ItemTable

    def __len__(self) -> int:
        return len(self.histories)


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
    """What a matcher found for B states."""

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        """Candidate rows among the allowed, -1 where there are fewer; duplicates may occur."""
        ...

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        """Each signal of each candidate; finite, 0 where the matcher knows nothing."""
        ...


class Matcher(Protocol):
    """A fitted source of interest-match scores."""

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


@dataclass(frozen=True, slots=True)
class DenseReading:
    """A reading that holds every score: S arrays of [B, N]. Right while N fits the cache, and the plain twin beyond."""

    signals: tuple[Signal, ...]
    scores: Sequence[Float32[np.ndarray, "B N"]]

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        found = [
            top_rows(scores, signal.proposes, allowed)
            for signal, scores in zip(self.signals, self.scores, strict=True)
            if signal.proposes
        ]
        return np.concatenate(found, axis=1) if found else np.full((len(allowed), 0), -1, np.int32)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        return np.stack([gather(scores, candidates) for scores in self.scores], axis=-1)


def load_sparse(path: Path) -> sp.csr_matrix:
    """What `save_npz` wrote. Raises ValueError for an index out of range, which scipy would follow out of memory."""
    matrix = sp.csr_matrix(sp.load_npz(path))
    matrix.check_format(full_check=True)
    return matrix


def top_rows(scores: Float32[np.ndarray, "B N"], k: int, allowed: Bool[np.ndarray, "B M"]) -> Int32[np.ndarray, "B P"]:
    """The k allowed rows of highest positive score, in no order; -1 where fewer are positive."""
    num_items = scores.shape[1]
    masked = np.where(allowed[:, :num_items], scores, 0.0)
    if k < num_items:
        rows = np.argpartition(masked, num_items - k, axis=1)[:, num_items - k :]
    else:
        rows = np.broadcast_to(np.arange(num_items), masked.shape)
    positive = np.take_along_axis(masked, rows, axis=1) > 0
    return np.where(positive, rows, -1).astype(np.int32)


def gather(scores: Float32[np.ndarray, "B N"], candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K"]:
    """scores[b, candidates[b, k]], 0 for padding and for rows the scores do not reach."""
    num_items = scores.shape[1]
    known = (candidates >= 0) & (candidates < num_items)
    if num_items == 0:
        return np.zeros(candidates.shape, np.float32)
    return np.where(known, np.take_along_axis(scores, np.where(known, candidates, 0), axis=1), np.float32(0))
