"""Python clients of the service, `RecsysClient` and its asyncio twin; they install without the engine.

    with RecsysClient("localhost:50051") as client:
        client.wait_ready()
        page = client.recommend_items(User(user_id="u1"), page_size=10)

Every call has a deadline. What goes wrong is one of `recsys.errors`: InvalidInput with its violations, Overloaded,
NotFound, SnapshotError, DeadlineExceeded, Unavailable, or RecsysError itself.
"""

from recsys.client.aio import AsyncRecsysClient
from recsys.client.channel import TlsConfig
from recsys.client.results import (
    Activated,
    Erased,
    EventBatch,
    HeldEvent,
    HeldRanking,
    MemoryPage,
    RankedPage,
    Replay,
    ServingInfo,
    ServingState,
    SnapshotInfo,
    SnapshotPage,
    UserExport,
    Written,
)
from recsys.client.sync import RecsysClient

__all__ = [
    "Activated",
    "AsyncRecsysClient",
    "Erased",
    "EventBatch",
    "HeldEvent",
    "HeldRanking",
    "MemoryPage",
    "RankedPage",
    "RecsysClient",
    "Replay",
    "ServingInfo",
    "ServingState",
    "SnapshotInfo",
    "SnapshotPage",
    "TlsConfig",
    "UserExport",
    "Written",
]
