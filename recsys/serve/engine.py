"""What the service needs of the engine behind it: `Recommender`, `EventStore` and a shelf of snapshots fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from jaxtyping import Float32

from recsys.types import Candidate, Event, Explanation, Item, Ranking, Remembered, User


class Engine(Protocol):
    """An immutable view of one snapshot and the items added to it; every method may be called from any thread."""

    @property
    def snapshot_id(self) -> str: ...
    @property
    def fingerprints(self) -> Mapping[str, str]: ...
    @property
    def num_users(self) -> int: ...
    @property
    def num_items(self) -> int: ...
    @property
    def num_memories(self) -> int: ...
    @property
    def created(self) -> float: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...

    @property
    def user_ids(self) -> Sequence[str]:
        """The users that the snapshot remembers, whether they were erased since or not."""
        ...

    @property
    def store_seq(self) -> int:
        """The snapshot holds the store's rows up to this number; later ones are handed in."""
        ...

    def rank(self, user: User, candidates: Sequence[Candidate], *, top_k: int = 0, parts: bool = False) -> Ranking: ...

    def recommend(
        self,
        user: User,
        *,
        k: int = 10,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        include_seen: bool | None = None,
        parts: bool = False,
    ) -> Ranking: ...

    def explain(self, user: User, item_ids: Sequence[str], *, max_memories: int = 5) -> list[Explanation]: ...
    def history(self, user: User) -> list[Event]: ...
    def search_history(self, user: User, text: str, k: int) -> list[Remembered]: ...
    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]: ...
    def with_items(self, items: Sequence[Item]) -> Self: ...
    def without_users(self, user_ids: Sequence[str]) -> Self: ...
    def item(self, item_id: str) -> Item | None: ...
    def warm_up(self) -> None: ...


class Receipt(Protocol):
    """What a write did."""

    @property
    def accepted(self) -> int: ...
    @property
    def duplicates(self) -> int: ...
    @property
    def watermark(self) -> float: ...


class Pending(Protocol):
    """A write that waits for the disk."""

    def result(self, timeout: float | None = None) -> Receipt:
        """The receipt, once it is there. Raises what the write raised."""
        ...


class Erasure(Protocol):
    """What erasing a user did."""

    @property
    def num_events(self) -> int: ...
    @property
    def time_s(self) -> float: ...


class Store(Protocol):
    """Durable events and items; every method may be called from any thread."""

    def write_events(self, events: Sequence[Event], *, request_id: str = "", digest: bytes = b"") -> Receipt: ...
    def write_items(self, items: Sequence[Item], *, request_id: str = "", digest: bytes = b"") -> Receipt: ...
    def enqueue_events(self, events: Sequence[Event], *, request_id: str = "", digest: bytes = b"") -> Pending: ...
    def delete_user(self, user_id: str) -> Erasure: ...
    def erasure(self, user_id: str) -> Erasure | None: ...
    def erased_among(self, user_ids: Iterable[str], *, after_seq: int) -> frozenset[str]: ...
    def reclaim(self) -> bool: ...
    def numbered_events(self, user_id: str, *, after_seq: int = 0) -> list[tuple[int, Event]]: ...
    def user_events(self, user_id: str, *, after_seq: int = 0) -> list[Event]: ...
    def items(self, *, after_seq: int = 0) -> list[Item]: ...

    @property
    def seq(self) -> int: ...
    @property
    def watermark(self) -> float: ...
    @property
    def last_erased_seq(self) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSummary:
    """What is known of a snapshot without loading it. `created` in seconds since the epoch."""

    snapshot_id: str
    created: float
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


class Shelf(Protocol):
    """The snapshots that can serve."""

    def summaries(self) -> Sequence[SnapshotSummary]:
        """All of them, newest first."""
        ...

    def current(self) -> str:
        """The id of the one to serve after a start; empty where there is none."""
        ...

    def open(self, snapshot_id: str) -> Engine:
        """Verified and loaded, not warmed. Raises NotFound or SnapshotError."""
        ...

    def make_current(self, snapshot_id: str) -> None:
        """The one to serve after the next start."""
        ...

    def holding_erased(self, store: Store) -> Sequence[str]:
        """The snapshots that still hold rows of users whom `store` erased."""
        ...

    def rewrite_erased(self) -> Mapping[str, str]:
        """Makes each of those anew without them and removes the old one: (old id -> new id).

        May take as long as fitting matchers does. Raises SnapshotError where it failed.
        """
        ...

    def stop_rewriting(self) -> None:
        """Ends a rewriting under way; what it has not finished is as if it had not begun."""
        ...
