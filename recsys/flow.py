"""The flow over a batch of states: read, propose, score, build features, rank. Training, evaluation and serving all
go through it, so the rows a ranker is trained on are the rows it serves.

Letters: B users, N items, K candidates, S signals, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.features import build_features, feature_names, read_scores
from recsys.match import LATEST, KeptReading, Matcher, Reading, Signal, States
from recsys.rank import Ranker
from recsys.watch import staged


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

    @property
    def signals(self) -> tuple[Signal, ...]:
        return tuple(signal for matcher in self.matchers for signal in matcher.signals)

    @property
    def features(self) -> tuple[str, ...]:
        return feature_names(self.signals)

    @staged("match")
    def field(
        self,
        states: States,
        allowed: Bool[np.ndarray, "B N"],
        asked: Int32[np.ndarray, "B Q"] | None = None,
        *,
        kept: dict[str, KeptReading] | None = None,
    ) -> Field:
        """What the matchers propose among the allowed, together with the candidates asked for.

        Asked candidates are judged in the field of what the engine itself would propose: places and shares then mean
        the same in every request, whether it brings 3 candidates or 500, and the same as in training.

        `kept`: readings of the same events (B = 1) by matcher, to be used again and added to.
        """
        states = replace(states, met=states.meetings)
        readings = [_read(matcher, states, kept) for matcher in self.matchers]
        proposed = [reading.propose(allowed) for reading in readings]
        candidates = distinct(np.concatenate([*proposed, *([] if asked is None else [asked])], axis=1))
        scores = read_scores(readings, candidates)
        features = build_features(self.signals, states, candidates, scores, self.met)
        return Field(candidates=candidates, scores=scores, features=features)


def _read(matcher: Matcher, states: States, kept: dict[str, KeptReading] | None) -> Reading:
    if kept is None:
        return matcher.read(states)
    known = kept.get(matcher.name)
    again = None if known is None else known.renewed(states)
    if again is not None:
        return again
    reading = matcher.read(states)
    if _is_kept(type(reading)):
        kept[matcher.name] = cast(KeptReading, reading)
    return reading


@cache
def _is_kept(kind: type[Reading]) -> bool:
    """Whether it is a `KeptReading`: asked once a kind, for asking takes as long as some readings."""
    return hasattr(kind, "renewed")


def rank_field(field: Field, ranker: Ranker) -> Float64[np.ndarray, "B K"]:
    """The ranker's scores; -inf for padding."""
    out = np.full(field.candidates.shape, -np.inf)
    out[field.valid] = ranker.score(field.features[field.valid])
    return out


def fallback_scores(field: Field, signals: Sequence[Signal]) -> Float64[np.ndarray, "B K"]:
    """An order without a ranker: the mean share of the best over all proposing signals; -inf for padding."""
    proposing = [i for i, signal in enumerate(signals) if signal.proposes]
    scores = field.scores[..., proposing].astype(np.float64)
    best = np.where(field.valid[..., None], scores, 0.0).max(axis=1, keepdims=True, initial=0.0)
    return np.where(field.valid, (scores / np.maximum(best, 1e-9)).mean(axis=-1), -np.inf)


def distinct(candidates: Int32[np.ndarray, "B K"]) -> Int32[np.ndarray, "B J"]:
    """Each row's candidates once, without padding in front, as narrow as the fullest row."""
    ordered = -np.sort(-candidates, axis=1)
    again = np.zeros(ordered.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    ordered = -np.sort(-np.where(again, -1, ordered), axis=1)
    width = int((ordered >= 0).sum(axis=1).max(initial=0))
    return ordered[:, :width].astype(np.int32)


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
