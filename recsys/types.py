"""Frozen values that travel between the parts. Ids are strings here; inside the engine everything is int rows.

Nothing in this file imports torch, faiss or lightgbm: the client installs without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import overload

MAX_ID_BYTES = 256
MAX_TEXT_BYTES = 8 * 1024
MAX_CANDIDATES = 1_000
MAX_INLINE_EVENTS = 10_000
MAX_EVENTS_PER_WRITE = 1_000
MAX_ITEMS_PER_WRITE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something that can be recommended; its text carries it while nobody has met it yet."""

    item_id: str
    title: str = ""
    description: str = ""
    categories: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What the text encoder reads: title, categories, description, attributes; empty parts left out."""
        parts = [self.title, ", ".join(self.categories), self.description]
        parts += [f"{name}: {value}" for name, value in self.attributes.items()]
        return ". ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A user met an item. `timestamp` in seconds since the epoch; `value` e.g. a rating or a quantity."""

    user_id: str
    item_id: str
    event_type: str = "view"
    timestamp: float | None = None
    value: float | None = None
    event_id: str = ""
    session_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who asks. `events` come after what the snapshot remembers of `user_id` (or instead of it).

    `now` is the time of the question in seconds since the epoch; None takes the time of the user's last event. (The
    service and the command line fill in the time of the call.)
    """

    user_id: str = ""
    events: Sequence[Event] = ()
    replace_history: bool = False
    now: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row to rank: a known item by id, or any text (both: the text stands in where the id is unknown)."""

    item_id: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class CandidateColumns(Sequence[Candidate]):
    """Candidates as two columns; one is made when it is looked at."""

    item_ids: Sequence[str]
    texts: Sequence[str]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> CandidateColumns:
        """Any candidates as columns."""
        if isinstance(candidates, CandidateColumns):
            return candidates
        return cls([each.item_id for each in candidates], [each.text for each in candidates])

    def __len__(self) -> int:
        return len(self.item_ids)

    @overload
    def __getitem__(self, at: int) -> Candidate: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, at: int | slice) -> Candidate | Sequence[Candidate]:
        if isinstance(at, slice):
            return CandidateColumns(self.item_ids[at], self.texts[at])
        return Candidate(item_id=self.item_ids[at], text=self.texts[at])


class Fallback(StrEnum):
    """Why an answer, or one of its rows, came from less than the whole engine."""

    UNKNOWN_USER = "unknown_user"
    UNKNOWN_ITEM = "unknown_item"
    COLD_ITEM = "cold_item"
    DEADLINE = "deadline"
    RANKER_UNAVAILABLE = "ranker_unavailable"
    ENCODER_UNAVAILABLE = "encoder_unavailable"
    MATCHER_UNAVAILABLE = "matcher_unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedItem:
    """One row of an answer; `rank` starts at 1, `index` is its place in the request (-1 for recommendations).

    `parts` are the matchers' scores by feature name, empty unless asked for.
    """

    item_id: str
    score: float
    rank: int
    index: int = -1
    parts: Mapping[str, float] = field(default_factory=dict)
    fallbacks: tuple[Fallback, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankedColumns(Sequence[RankedItem]):
    """The rows of an answer as columns, the best first; a row is made when it is looked at.

    `fallbacks` of the few rows that have some, by place; `parts` of every row, or of none.
    """

    item_ids: Sequence[str]
    scores: Sequence[float]
    indices: Sequence[int]
    fallbacks: Mapping[int, tuple[Fallback, ...]] = field(default_factory=dict)
    parts: Sequence[Mapping[str, float]] = ()

    def __len__(self) -> int:
        return len(self.item_ids)

    @overload
    def __getitem__(self, at: int) -> RankedItem: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[RankedItem]: ...
    def __getitem__(self, at: int | slice) -> RankedItem | Sequence[RankedItem]:
        places = range(len(self))[at]
        return self._row(places) if isinstance(places, int) else tuple(map(self._row, places))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((tuple(self.item_ids), tuple(self.scores)))

    def _row(self, place: int) -> RankedItem:
        return RankedItem(
            item_id=self.item_ids[place],
            score=self.scores[place],
            rank=place + 1,
            index=self.indices[place],
            parts=self.parts[place] if self.parts else {},
            fallbacks=self.fallbacks.get(place, ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """An answer: rows by falling score, and what it had to do without."""

    items: Sequence[RankedItem]
    snapshot_id: str
    fallbacks: tuple[Fallback, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A past event that speaks for an item. `source` is the matcher that read it, `weight` its share there.

    `score_change`: what the item's score would change by had the event not happened; None where that was not computed.
    """

    event: Event
    title: str
    weight: float
    source: str
    score_change: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an item has its score: `base` + the sum of `contributions` = `score` (to float32 rounding)."""

    item_id: str
    score: float
    base: float
    contributions: Mapping[str, float]
    memories: tuple[Remembered, ...]
