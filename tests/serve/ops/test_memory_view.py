"""The JSON behind the memory page."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from recsys.types import Event, User
from tests.serve.conftest import World
from tests.serve.ops.conftest import fetch


def event(item: int, at: float) -> Event:
    return Event(user_id="u1", item_id=f"item-{item}", event_type="view", timestamp=at, value=2.0)


def test_a_time_line_newest_first_with_its_months(open_world: Callable[..., World]) -> None:
    world = open_world()
    world.client.write_events([event(1, 1.6e9), event(2, 1.6e9 + 1), event(3, 1.7e9)])
    status, found, _ = fetch(world, "/api/memories?user=u1")
    assert status == 200
    assert [row["item_id"] for row in found["memories"]] == ["item-3", "item-2", "item-1"]
    assert found["months"] == [["2020-09", 2], ["2023-11", 1]]
    assert (found["total"], found["first"], found["last"]) == (3, 1.6e9, 1.7e9)
    assert found["memories"][0]["title"] == "Title 3"
    assert found["memories"][0]["value"] == 2.0


def test_a_search_shows_what_is_near(open_world: Callable[..., World]) -> None:
    world = open_world()
    world.client.write_events([event(1, 1.6e9), event(2, 1.7e9)])
    _, found, _ = fetch(world, "/api/memories?user=u1&text=item-2")
    assert [row["item_id"] for row in found["memories"]] == ["item-2"]
    assert found["total"] == 2


def test_recent_rankings_and_what_they_used(open_world: Callable[..., World]) -> None:
    world = open_world()
    world.client.write_events([event(1, 1.6e9)])
    world.client.rank_items(User(user_id="u1"), ["item-4", "item-5"])
    page = world.client.rank_items(User(user_id="u1"), ["item-1", "item-2", "unknown"])
    world.client.rank_items(User(user_id="someone else"), ["item-1"])
    _, found, _ = fetch(world, "/api/rankings?user=u1")
    assert [[item["item_id"] for item in row["items"]] for row in found["rankings"]] == [
        ["item-1", "item-2", "unknown"],
        ["item-4", "item-5"],
    ]
    assert found["rankings"][0]["ranking_id"] == page.ranking_id
    _, why, _ = fetch(world, f"/api/explain?ranking={page.ranking_id}")
    assert [row["item_id"] for row in why["items"]] == ["item-1", "item-2"]
    assert why["items"][0]["memories"][0]["item_id"] == "item-1"
    assert why["items"][0]["contributions"] == [{"feature": "met", "share": 1.0}]


def test_bad_questions_are_told_so(open_world: Callable[..., World]) -> None:
    world = open_world()
    for path in ("/api/memories", "/api/memories?user=", f"/api/memories?user={'x' * 300}", "/api/memories?user=a%00b"):
        status, found, _ = fetch(world, path)
        assert status == 400
        assert "user" in found["error"]
    assert fetch(world, f"/api/memories?user=u&text={'x' * 9000}")[0] == 400
    assert fetch(world, "/api/explain?ranking=nosuch")[0] == 404
    strange = "\u202e<script>\U0001d518"
    assert fetch(world, f"/api/memories?user={quote(strange)}")[1]["user"] == strange


def test_a_ranking_of_another_snapshot_is_not_explained(open_world: Callable[..., World]) -> None:
    from tests.serve.fake import FakeEngine

    world = open_world(FakeEngine("s1"), FakeEngine("s2"))
    page = world.client.rank_items(User(user_id="u1"), ["item-1"])
    world.client.activate_snapshot("s2", force=True)
    status, found, _ = fetch(world, f"/api/explain?ranking={page.ranking_id}")
    assert status == 404
    assert "another snapshot" in found["error"]
