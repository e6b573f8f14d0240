"""The service over the real store: durable, visible at once, exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.client import RecsysClient
from recsys.errors import Conflict, InvalidInput
from recsys.serve import Server
from recsys.store import EventStore
from recsys.types import Event, Item, User
from tests.serve.conftest import QUICK
from tests.serve.fake import FakeEngine, FakeShelf

EVENTS = [Event(user_id="u", item_id=f"item-{i}", timestamp=1.7e9 + i, event_id=f"e{i}") for i in (3, 5)]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RecsysClient]:
    store = EventStore.open(tmp_path / "events.db")
    with (
        Server(QUICK, shelf=FakeShelf(FakeEngine()), store=store) as server,
        RecsysClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        yield client


def test_a_user_reads_what_was_written(client: RecsysClient) -> None:
    written = client.write_events(EVENTS)
    assert (written.accepted, written.duplicates) == (2, 0)
    page = client.rank_items(User(user_id="u"), ["item-1", "item-5"])
    assert [(row.item_id, row.score) for row in page.items] == [("item-5", 101.0), ("item-1", 100.0)]
    assert page.serving.memory_watermark == pytest.approx(written.watermark)
    assert [memory.event for memory in client.list_memories("u").memories] == EVENTS[::-1]


def test_writes_count_once(client: RecsysClient) -> None:
    assert client.write_events(EVENTS, request_id="r") == client.write_events(EVENTS, request_id="r")
    again = client.write_events(EVENTS)
    assert (again.accepted, again.duplicates) == (0, 2)
    with pytest.raises(Conflict, match="r"):
        client.write_events(EVENTS[:1], request_id="r")
    assert client.list_memories("u").total == 2


def test_a_batch_with_a_wrong_event_writes_nothing(client: RecsysClient) -> None:
    with pytest.raises(InvalidInput, match=r"events\[2\]\.item_id"):
        client.write_events([*EVENTS, Event(user_id="u", item_id="")])
    assert client.list_memories("u").total == 0


def test_items_are_known_at_once_and_the_last_word_counts(client: RecsysClient) -> None:
    client.write_items([Item(item_id="n", title="first")], request_id="r")
    client.write_items([Item(item_id="n", title="second")])
    client.write_items([Item(item_id="n", title="first")], request_id="r")
    client.write_events([Event(user_id="u", item_id="n")])
    assert client.list_memories("u").memories[0].title == "second"
