"""Python clients of the service, `RecsysClient` and its asyncio twin; they install without the engine.

    with RecsysClient("localhost:50051") as client:
        client.wait_ready()
        page = client.recommend_items(User(user_id="u1"), page_size=10)

Every call has a deadline. What goes wrong is one of `recsys.errors`: InvalidInput with its violations, Overloaded,
NotFound, SnapshotError, DeadlineExceeded, Unavailable, or RecsysError itself.
"""

from recsys.client.aio import AsyncRecsysClient
from recsys.client.channel import TlsConfig
from recsys.client.results import MemoryPage, RankedPage, ServingInfo, ServingState, SnapshotInfo, SnapshotPage, Written
from recsys.client.sync import RecsysClient

__all__ = [
    "AsyncRecsysClient",
    "MemoryPage",
    "RankedPage",
    "RecsysClient",
    "ServingInfo",
    "ServingState",
    "SnapshotInfo",
    "SnapshotPage",
    "TlsConfig",
    "Written",
]
