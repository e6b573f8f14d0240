"""Frozen values that travel between the parts. Ids are strings here; inside the engine everything is int rows.

Nothing in this file imports torch, faiss or lightgbm: the client installs without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

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
    events: tuple[Event, ...] = ()
    replace_history: bool = False
    now: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row to rank: a known item by id, or any text (both: the text stands in where the id is unknown)."""

    item_id: str = ""
    text: str = ""


class Fallback(StrEnum):
    """Why an answer, or one of its rows, came from less than the whole engine."""

    UNKNOWN_USER = "unknown_user"
    UNKNOWN_ITEM = "unknown_item"
    COLD_ITEM = "cold_item"
    DEADLINE = "deadline"
    RANKER_UNAVAILABLE = "ranker_unavailable"
    ENCODER_UNAVAILABLE = "encoder_unavailable"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """An answer: rows by falling score, and what it had to do without."""

    items: tuple[RankedItem, ...]
    snapshot_id: str
    fallbacks: tuple[Fallback, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A past event that speaks for an item. `source` is the matcher that read it, `weight` its share there."""

    event: Event
    title: str
    weight: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an item has its score: `base` + the sum of `contributions` = `score` (to float32 rounding)."""

    item_id: str
    score: float
    base: float
    contributions: Mapping[str, float]
    memories: tuple[Remembered, ...]
