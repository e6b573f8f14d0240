"""Each method against the fake engine, through the client."""

from __future__ import annotations

import time

import numpy as np
import pytest

from recsys.errors import InvalidInput, NotFound
from recsys.types import Candidate, Event, Fallback, Item, User
from tests.serve.conftest import World
from tests.serve.fake import FakeEngine

U = User(user_id="u1")


def event(item: int, user_id: str = "u1", **rest: object) -> Event:
    return Event(user_id=user_id, item_id=f"item-{item}", timestamp=1_700_000_000.0 + item, **rest)


def test_rank_orders_candidates_and_says_where_they_stood(world: World) -> None:
    world.client.write_events([event(3), event(3), event(5)])
    page = world.client.rank_items(U, ["item-4", "item-5", Candidate(text="any"), "item-3"], include_parts=True)
    assert [(row.item_id, row.index, row.rank) for row in page.items] == [
        ("item-3", 3, 1),
        ("item-5", 1, 2),
        ("item-4", 0, 3),
        ("", 2, 4),
    ]
    assert [row.score for row in page.items] == [102, 101, 100, 100]
    assert page.items[0].parts == {"met": 2.0}
    assert page.items[3].fallbacks == (Fallback.COLD_ITEM,)
    assert page.fallbacks == ()


def test_answers_name_what_answered(world: World) -> None:
    assert world.client.rank_items(U, ["item-1"]).serving.memory_watermark is None
    written = world.client.write_events([event(1)])
    serving = world.client.rank_items(U, ["item-1"]).serving
    assert (serving.snapshot_id, serving.encoder, serving.index, serving.ranker) == ("s1", "e-s1", "i-s1", "r-s1")
    assert serving.memory_watermark == written.watermark


def test_rank_returns_the_best_k_and_no_parts_unasked(world: World) -> None:
    page = world.client.rank_items(U, [f"item-{i}" for i in range(9)], top_k=4)
    assert len(page.items) == 4
    assert page.items[0].parts == {}
    assert page.fallbacks == (Fallback.UNKNOWN_USER,)
    assert len(world.client.rank_items(U, ["item-1"], top_k=2**31 - 1).items) == 1


def test_stored_events_come_before_the_requests_own(make_world) -> None:
    engine = FakeEngine(memory={"u1": (event(0),)}, store_seq=1)
    world = make_world(engine)
    world.client.write_events([event(1), event(2)])  # the first is row 1, which the snapshot holds
    world.client.rank_items(User(user_id="u1", events=(event(7, ""), event(8)), now=1.5e9), ["item-1"])
    (user,) = engine.asked
    assert [(e.user_id, e.item_id) for e in user.events] == [("u1", "item-2"), ("u1", "item-7"), ("u1", "item-8")]
    assert user.now == 1.5e9
    assert not user.replace_history


def test_replacing_the_history_leaves_the_stored_events_out(make_world) -> None:
    engine = FakeEngine()
    world = make_world(engine)
    world.client.write_events([event(1)])
    world.client.rank_items(User(user_id="u1", events=(event(2),), replace_history=True), ["item-1"])
    (user,) = engine.asked
    assert user.replace_history
    assert [e.item_id for e in user.events] == ["item-2"]
    assert user.now is not None
    assert abs(user.now - time.time()) < 60


def test_recommend_walks_pages_without_repeats(world: World) -> None:
    world.client.write_events([event(3)])
    pages = list(world.client.recommend_pages(U, page_size=7, exclude=["item-0"]))
    ids = [row.item_id for page in pages for row in page.items]
    assert len(ids) == len(set(ids)) == 38
    assert {"item-0", "item-3"}.isdisjoint(ids)
    assert [row.rank for page in pages for row in page.items] == list(range(1, 39))
    assert {page.ranking_id for page in pages} == {pages[0].ranking_id}
    assert {row.index for page in pages for row in page.items} == {-1}


def test_a_page_walk_outlives_new_events_and_another_page_size(world: World) -> None:
    first = world.client.recommend_items(U, page_size=5)
    world.client.write_events([event(30), event(30)])
    second = world.client.recommend_items(U, page_size=100, page_token=first.next_page_token)
    ids = [row.item_id for row in (*first.items, *second.items)]
    assert ids == [f"item-{i}" for i in range(40)]


def test_recommend_filters(world: World) -> None:
    world.client.write_events([event(2)])
    page = world.client.recommend_items(U, categories=["even"], include_seen=True, page_size=200)
    assert len(page.items) == 20
    assert page.items[0].item_id == "item-2"
    assert page.next_page_token == ""


def test_a_token_goes_with_its_arguments(world: World) -> None:
    page = world.client.recommend_items(U)
    with pytest.raises(InvalidInput, match=r"page_token=.*made for other arguments"):
        world.client.recommend_items(U, exclude=["item-1"], page_token=page.next_page_token)
    with pytest.raises(InvalidInput, match="page_token"):
        world.client.recommend_items(U, page_token="nonsense")


def test_an_expired_ranking_is_not_found(make_world) -> None:
    world = make_world(max_ranking_rows=50)
    first = world.client.recommend_items(U)
    world.client.recommend_items(U)  # 41 rows more than there is room for
    with pytest.raises(NotFound, match="ranking"):
        world.client.recommend_items(U, page_token=first.next_page_token)
    with pytest.raises(NotFound, match="ranking"):
        world.client.explain(first.ranking_id)


def test_explain_a_ranking_as_the_user_was_then(world: World) -> None:
    world.client.write_events([event(3)])
    ranking = world.client.rank_items(U, ["nobody knows it", *(f"item-{i}" for i in range(20))])
    world.client.write_events([event(3)])
    first, *others = world.client.explain(ranking.ranking_id)
    assert (first.item_id, first.score, first.base, first.contributions) == ("item-3", 101.0, 100.0, {"met": 1.0})
    assert [(m.event.item_id, m.title, m.weight, m.source) for m in first.memories] == [("item-3", "t", 1.0, "repeat")]
    assert len(others) == 8, "the unknown one of the first ten is left out"
    (now,) = world.client.explain(U, ["item-3"], max_memories=1)
    assert now.score == 102.0
    assert len(now.memories) == 1


def test_explain_needs_items_it_can_name(world: World) -> None:
    ranking = world.client.rank_items(U, [Candidate(text="only a text")])
    with pytest.raises(InvalidInput, match="item_ids"):
        world.client.explain(ranking.ranking_id)
    with pytest.raises(InvalidInput, match="item_ids"):
        world.client.explain(U)
    with pytest.raises(InvalidInput, match=r"item_ids\[1\]='nothing'"):
        world.client.explain(U, ["item-1", "nothing"])


def test_explain_after_a_swap_is_not_found(make_world) -> None:
    world = make_world(FakeEngine(), FakeEngine(snapshot_id="s2"))
    ranking = world.client.rank_items(U, ["item-1"])
    world.client.activate_snapshot("s2")
    with pytest.raises(NotFound, match="s1, which no longer serves"):
        world.client.explain(ranking.ranking_id)


def test_encode_texts(world: World) -> None:
    vectors = world.client.encode_texts(["a", "four", "déjà"])
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, [[1, 1], [4, 1], [4, 1]])


def test_events_without_a_time_get_the_time_of_receipt(world: World) -> None:
    world.client.write_events([Event(user_id="u1", item_id="later", value=2.5, session_id="s", event_id="e")])
    (memory,) = world.client.list_memories("u1").memories
    assert memory.event.timestamp is not None
    assert memory.event.timestamp > 1.6e9
    assert (memory.event.value, memory.event.session_id, memory.event.event_id) == (2.5, "s", "e")


def test_items_are_rankable_at_once(world: World) -> None:
    assert world.client.rank_items(U, ["new"]).items[0].fallbacks == (Fallback.UNKNOWN_ITEM,)
    written = world.client.write_items([Item(item_id="new", title="N", attributes={"b": "2", "a": "1"})])
    assert written.accepted == 1
    assert world.client.rank_items(U, ["new"]).items[0].fallbacks == ()
    assert world.client.serving_state().num_items == 41


def test_memories_come_newest_first_and_new_ones_shift_nothing(make_world) -> None:
    world = make_world(FakeEngine(memory={"u1": tuple(event(i) for i in range(3))}))
    world.client.write_events([event(i) for i in range(3, 7)])
    first = world.client.list_memories("u1", page_size=3)
    world.client.write_events([event(9)])
    second = world.client.list_memories("u1", page_size=3, page_token=first.next_page_token)
    third = world.client.list_memories("u1", page_size=3, page_token=second.next_page_token)
    shown = [memory.event.item_id for page in (first, second, third) for memory in page.memories]
    assert shown == [f"item-{i}" for i in (6, 5, 4, 3, 2, 1, 0)]
    assert third.next_page_token == ""
    assert (first.total, third.total) == (7, 8)
    assert first.memories[0].title == "Title 6"
    assert first.memories[0].source == "history"


def test_memories_can_be_searched(world: World) -> None:
    world.client.write_events([event(i) for i in (1, 11, 12, 2)])
    page = world.client.list_memories("u1", query_text="item-1", page_size=2)
    rest = world.client.list_memories("u1", query_text="item-1", page_size=2, page_token=page.next_page_token)
    assert [m.event.item_id for m in (*page.memories, *rest.memories)] == ["item-1", "item-11", "item-12"]
    with pytest.raises(InvalidInput, match="other arguments"):
        world.client.list_memories("u1", query_text="item-2", page_token=page.next_page_token)


def test_an_unknown_user_remembers_nothing(world: World) -> None:
    page = world.client.list_memories("nobody")
    assert (page.memories, page.total, page.next_page_token) == ((), 0, "")


def test_serving_state(world: World) -> None:
    state = world.client.serving_state()
    assert (state.num_users, state.num_items, state.num_memories) == (0, 40, 7)
    assert state.created == 1_700_000_000.0
    assert state.metrics == {"ndcg@10": 0.25}


def test_snapshots_are_listed_in_pages_and_the_active_one_marked(make_world) -> None:
    engines = [FakeEngine(snapshot_id=f"s{i}", created=1e9 + i) for i in range(3)]
    world = make_world(*engines)
    first = world.client.list_snapshots(page_size=2)
    second = world.client.list_snapshots(page_size=2, page_token=first.next_page_token)
    found = [(s.serving.snapshot_id, s.active) for s in (*first.snapshots, *second.snapshots)]
    assert found == [("s2", False), ("s1", False), ("s0", True)]
    assert first.snapshots[0].serving.encoder == "e-s2"
    assert second.next_page_token == ""


def test_activating_a_snapshot_brings_later_items_along(make_world) -> None:
    world = make_world(FakeEngine(), FakeEngine(snapshot_id="s2", base=200.0, store_seq=1))
    world.client.write_items([Item(item_id="held")])
    world.client.write_items([Item(item_id="later")])
    assert world.client.activate_snapshot("s2").snapshot_id == "s2"
    page = world.client.rank_items(U, ["later", "held"])
    assert [row.fallbacks for row in page.items] == [(), (Fallback.UNKNOWN_ITEM,)]
    assert page.items[0].score == 200.0
    assert world.shelf.now == "s2"
    assert world.client.activate_snapshot("s2").snapshot_id == "s2"
