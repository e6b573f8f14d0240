"""What a rebuild did, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Rebuilt:
    """What a rebuild did. `built`, `resumed`: shards by kind. `seconds` by step. `figures` stand in the manifest."""

    snapshot_id: str = ""
    base: str = ""
    store_seq: int = 0
    num_users: int = 0
    num_items: int = 0
    num_events: int = 0
    has_ranker: bool = False
    texts_encoded: int = 0
    texts_carried: int = 0
    moments_coded: int = 0
    moments_carried: int = 0
    events_erased: int = 0
    events_of_deleted: int = 0
    duplicates: int = 0
    built: dict[str, int] = field(default_factory=dict)
    resumed: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    report: str = ""
