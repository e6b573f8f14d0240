"""What the client's methods return beyond `recsys.types`. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recsys.types import Event, Fallback, RankedItem, Remembered


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
    """A write is on disk and visible. `duplicates` were there already; `request_id` names the batch of a stream."""

    accepted: int
    duplicates: int
    watermark: float
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """Events for a stream under a request id of the caller's, by which they may be sent again."""

    events: tuple[Event, ...]
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The receipt of an erasure: what went, and by when (seconds) the last bytes of it go.

    `events` were in the store, `memories` in the snapshot in service, `rankings` were kept answers.
    """

    events: int
    memories: int
    rankings: int
    at: float
    live_files_clean: float
    snapshots_clean: float
    request_digests_expire: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldEvent:
    """An event, and what holds it: "store", or the id of the snapshot in service."""

    event: Event
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRanking:
    """An answer that is kept for its next pages, best item first."""

    ranking_id: str
    item_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserExport:
    """All that is held of a user. `erased_at`: the last time they were erased, in seconds; None for never."""

    events: tuple[HeldEvent, ...]
    rankings: tuple[HeldRanking, ...]
    erased_at: float | None


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
class Replay:
    """What a new snapshot changes in the answers to the ranking requests of late; None where none could tell.

    `overlap`: mean share of the old first ten among the new. `correlation`: mean Spearman's of the same candidates.
    """

    num_requests: int
    num_errors: int
    overlap: float | None
    correlation: float | None
    old_ms: float | None
    new_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """A change of the snapshot. `replay` is None where nothing was compared."""

    serving: ServingInfo
    previous: ServingInfo | None
    replay: Replay | None

    @property
    def snapshot_id(self) -> str:
        """What serves now."""
        return self.serving.snapshot_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPage:
    """Snapshots, newest first."""

    snapshots: tuple[SnapshotInfo, ...]
    next_page_token: str
