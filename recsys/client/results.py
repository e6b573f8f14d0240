"""What the client's methods return beyond `recsys.types`. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recsys.types import Fallback, RankedItem, Remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingInfo:
    """What produced an answer. `memory_watermark`: events received up to then were visible; None before any write."""

    snapshot_id: str
    encoder: str
    index: str
    ranker: str
    memory_watermark: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPage:
    """Rows best first. `next_page_token` is empty on the last page; `ranking_id` names the answer for `explain`."""

    items: tuple[RankedItem, ...]
    ranking_id: str
    serving: ServingInfo
    fallbacks: tuple[Fallback, ...]
    next_page_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPage:
    """Memories in the order asked for; `total` counts those of all pages."""

    memories: tuple[Remembered, ...]
    total: int
    next_page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A write is on disk and visible. `duplicates` were there already."""

    accepted: int
    duplicates: int
    watermark: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingState:
    """What serves, and how large it is."""

    serving: ServingInfo
    num_users: int
    num_items: int
    num_memories: int
    created: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """A snapshot that can be activated."""

    serving: ServingInfo
    created: float
    metrics: Mapping[str, float]
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPage:
    """Snapshots, newest first."""

    snapshots: tuple[SnapshotInfo, ...]
    next_page_token: str
