"""A disk of 2 MB: when it is full, writes are refused and everything else goes on; with room again, writes are taken.

What a store alone does is in `tests/store/test_faults.py`, with failing fsyncs.
"""

from __future__ import annotations

import os
from pathlib import Path

from recsys.client import RecsysClient
from recsys.errors import StoreError
from recsys.serve import Server
from recsys.store import EventStore
from recsys.types import Event, User
from tests.serve.conftest import QUICK
from tests.serve.fake import FakeEngine, FakeShelf


def test_a_full_disk_stops_writes_and_nothing_else(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(os.urandom(1_000_000))
    store = EventStore.open(small_disk / "events.db")
    with (
        Server(QUICK, shelf=FakeShelf(FakeEngine()), store=store) as server,
        RecsysClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        acknowledged = refused = batch = 0
        while refused < 3:
            try:
                acknowledged += _write(client, batch)
            except StoreError:
                refused += 1
                held = len(client.export_user("u").events)
                assert held == acknowledged
                page = client.rank_items(User(user_id="u"), ["item-1"])
                assert page.items[0].score > 100.0
                client.wait_ready(10)
            batch += 1
            assert batch < 2_000, "a disk of 2 MB took more than it has"
        filler.unlink()
        acknowledged += _write(client, batch)
        assert len(client.export_user("u").events) == acknowledged
    with EventStore.open(small_disk / "events.db") as again:
        assert len(again.user_events("u")) == acknowledged


def _write(client: RecsysClient, batch: int) -> int:
    events = [Event(user_id="u", item_id=f"item-{row % 40}", timestamp=1.7e9 + row) for row in range(100)]
    return client.write_events(events, request_id=f"b{batch}").accepted
