"""The flow over a batch of states: read, propose, score, build features, rank. Training, evaluation and serving all
go through it, so the rows a ranker is trained on are the rows it serves.

Letters: B users, N items, K candidates, S signals, F features.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import cast

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from recsys._kernel import kernel
from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.features import Columns, read_scores
from recsys.match import LATEST, KeptReading, Matcher, Reading, Signal, States
from recsys.rank import Ranker
from recsys.watch import staged

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """The candidates of B users with all that is known of each. Padding candidates are -1."""

    candidates: Int32[np.ndarray, "B K"]
    scores: Float32[np.ndarray, "B K S"]
    features: Float32[np.ndarray, "B K F"]

    @property
    def valid(self) -> Bool[np.ndarray, "B K"]:
        return self.candidates >= 0


@dataclass(frozen=True, slots=True)
class Usual:
    """What may be proposed where nobody says otherwise: the first `num_items`, or those that the user has not met."""

    include_seen: bool
    num_items: int

    def mask(self, states: States) -> Bool[np.ndarray, "B N"]:
        allowed = allowed_mask(states, include_seen=self.include_seen)
        allowed[:, self.num_items :] = False
        return allowed


@dataclass(frozen=True, slots=True)
class Kept:
    """What was found for the events of one user, until the next of them: readings by matcher, and proposals by what
    they hang on besides."""

    readings: dict[str, KeptReading] = field(default_factory=dict)
    proposed: dict[Hashable, Int32[np.ndarray, "1 P"]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.readings or self.proposed)

    @property
    def size_bytes(self) -> int:
        readings = sum(reading.size_bytes for reading in list(self.readings.values()))
        return readings + sum(rows.nbytes for rows in list(self.proposed.values()))

    def clear(self) -> None:
        self.readings.clear()
        self.proposed.clear()


@dataclass(frozen=True)
class Flow:
    """Fitted matchers, and which of the items they were fitted on anybody had met."""

    matchers: tuple[Matcher, ...]
    met: Bool[np.ndarray, " N"]

    @property
    def num_fitted(self) -> int:
        return len(self.met)

    @property
    def latest(self) -> int:
        """How many of a user's latest events its matchers look at one by one."""
        return max([LATEST, *(getattr(matcher, "looks_back", 0) for matcher in self.matchers)])

    @cached_property
    def columns(self) -> Columns:
        """The ranker's columns for the signals of its matchers."""
        return Columns(tuple(signal for matcher in self.matchers for signal in matcher.signals))

    @property
    def signals(self) -> tuple[Signal, ...]:
        return self.columns.signals

    @property
    def features(self) -> tuple[str, ...]:
        return self.columns.names

    @staged("match")
    def field(
        self,
        states: States,
        allowed: Bool[np.ndarray, "B N"] | Usual,
        asked: Int32[np.ndarray, "B Q"] | None = None,
        *,
        kept: Kept | None = None,
        absent: set[str] | None = None,
    ) -> Field:
        """What the matchers propose among the allowed, together with the candidates asked for.

        Asked candidates are judged in the field of what the engine itself would propose: places and shares then mean
        the same in every request, whether it brings 3 candidates or 500, and the same as in training.

        `kept`: what was found of the same events (B = 1), to be used again and added to. `absent`: takes the names of
        matchers that failed, which then propose nothing and score 0; without it what they raise is raised.
        """
        states = states if states.met is not None else replace(states, met=states.meetings)
        readings: list[Reading]
        if absent is None:
            readings = [_read(matcher, states, kept) for matcher in self.matchers]
        else:
            readings = [_Excused(matcher, states, kept, absent) for matcher in self.matchers]
        proposed = _proposed(readings, states, allowed, kept)
        candidates = distinct(proposed if asked is None else np.concatenate([proposed, asked], axis=1))
        scores = read_scores(readings, candidates)
        features = self.columns.rows(states, candidates, scores, self.met)
        return Field(candidates=candidates, scores=scores, features=features)


def _proposed(
    readings: Sequence[Reading], states: States, allowed: Bool[np.ndarray, "B N"] | Usual, kept: Kept | None
) -> Int32[np.ndarray, "B P"]:
    """What all matchers propose, each row once. The latest usual proposals of the same events are kept."""
    if not isinstance(allowed, Usual):
        return distinct(np.concatenate([reading.propose(allowed) for reading in readings], axis=1))
    key = (allowed, *(getattr(reading, "hangs_on", ()) for reading in readings))
    if kept is not None and (found := kept.proposed.get(key)) is not None:
        return found
    mask = allowed.mask(states)
    made = distinct(np.concatenate([reading.propose(mask) for reading in readings], axis=1))
    # Nothing is kept of what lacks a matcher: it may be well again by the next call.
    if kept is not None and not any(isinstance(reading, _Excused) and reading.failed for reading in readings):
        kept.proposed.clear()
        kept.proposed[key] = made
    return made


class _Excused:
    """The reading of a matcher that, once it fails, proposes nothing and scores 0."""

    __slots__ = ("_absent", "_kept", "_matcher", "_reading")

    def __init__(self, matcher: Matcher, states: States, kept: Kept | None, absent: set[str]) -> None:
        self._matcher, self._kept, self._absent = matcher, kept, absent
        self._reading: Reading | None = None
        try:
            self._reading = _read(matcher, states, kept)
        except Exception:  # noqa: BLE001 - whatever it is, the others can answer
            self._fail()

    @property
    def failed(self) -> bool:
        return self._reading is None

    @property
    def hangs_on(self) -> Hashable:
        return getattr(self._reading, "hangs_on", ())

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        if self._reading is not None:
            try:
                return self._reading.propose(allowed)
            except Exception:  # noqa: BLE001 - as above
                self._fail()
        return np.full((len(allowed), 0), -1, np.int32)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        if self._reading is not None:
            try:
                return self._reading.score(candidates)
            except Exception:  # noqa: BLE001 - as above
                self._fail()
        return np.zeros((*candidates.shape, len(self._matcher.signals)), np.float32)

    def _fail(self) -> None:
        name = self._matcher.name
        _log.exception("the matcher %s failed", name)
        self._absent.add(name)
        self._reading = None
        if self._kept is not None:
            self._kept.readings.pop(name, None)


def _read(matcher: Matcher, states: States, kept: Kept | None) -> Reading:
    if kept is None:
        return matcher.read(states)
    known = kept.readings.get(matcher.name)
    again = None if known is None else known.renewed(states)
    if again is not None:
        return again
    reading = matcher.read(states)
    if _is_kept(type(reading)):
        kept.readings[matcher.name] = cast(KeptReading, reading)
    return reading


@cache
def _is_kept(kind: type[Reading]) -> bool:
    """Whether it is a `KeptReading`: asked once a kind, for asking takes as long as some readings."""
    return hasattr(kind, "renewed")


def rank_field(field: Field, ranker: Ranker) -> Float64[np.ndarray, "B K"]:
    """The ranker's scores; -inf for padding."""
    valid = field.valid
    out = np.full(valid.shape, -np.inf)
    out[valid] = ranker.score(field.features[valid])
    return out


def fallback_scores(field: Field, signals: Sequence[Signal]) -> Float64[np.ndarray, "B K"]:
    """An order without a ranker: the mean share of the best over all proposing signals; -inf for padding."""
    proposing = [i for i, signal in enumerate(signals) if signal.proposes]
    scores = field.scores[..., proposing].astype(np.float64)
    best = np.where(field.valid[..., None], scores, 0.0).max(axis=1, keepdims=True, initial=0.0)
    return np.where(field.valid, (scores / np.maximum(best, 1e-9)).mean(axis=-1), -np.inf)


def distinct(candidates: Int32[np.ndarray, "B K"]) -> Int32[np.ndarray, "B J"]:
    """Each row's candidates once, falling, without padding in front, as narrow as the fullest row."""
    out = np.full(candidates.shape, -1, np.int32)
    width = _distinct(np.sort(candidates, axis=1), out)
    return np.ascontiguousarray(out[:, :width])


@kernel
def _distinct(rising, out):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    width = 0
    for user in range(rising.shape[0]):
        size = 0
        for at in range(rising.shape[1] - 1, -1, -1):
            row = rising[user, at]
            if row < 0:
                break
            if size == 0 or out[user, size - 1] != row:
                out[user, size] = row
                size += 1
        width = max(width, size)
    return width


def allowed_mask(states: States, *, include_seen: bool) -> Bool[np.ndarray, "B N"]:
    """Which items may be proposed: all, or all that the user has not met."""
    allowed = np.ones((len(states), len(states.items)), bool)
    if not include_seen:
        met = states.meetings
        allowed[met.users, met.items] = False
    return allowed


def batches(states: States, size: int) -> Iterator[tuple[np.ndarray, States]]:
    """(row numbers [B], their states), `size` at a time."""
    for rows, histories in states.histories.batches(size):
        yield rows, States(histories=histories, now=states.now[rows], items=states.items)


def states_of(histories: Histories, items: ItemTable) -> States:
    """States asked at the time of each user's last event."""
    return States(histories=histories, now=histories.last_times, items=items)
