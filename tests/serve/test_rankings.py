from __future__ import annotations

import pytest

from recsys.errors import InvalidInput, NotFound
from recsys.serve import pages
from recsys.serve.rankings import Kept, Rankings
from recsys.types import Event, RankedItem, User
from recsys.v1 import memory_service_pb2 as memory_pb
from recsys.v1 import types_pb2 as pb


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def kept(num_items: int = 0, num_events: int = 0) -> Kept:
    return Kept(
        user=User(events=tuple(Event(user_id="u", item_id="i") for _ in range(num_events))),
        serving=pb.ServingInfo(),
        top_ids=(),
        items=tuple(RankedItem(item_id=str(i), score=0.0, rank=i) for i in range(num_items)),
    )


def test_rankings_are_kept_for_a_time() -> None:
    clock = Clock()
    rankings = Rankings(max_rows=100, ttl_s=10, clock=clock)
    rankings.keep("a", kept())
    clock.now = 9
    rankings.keep("b", kept())
    assert rankings.get("a").top_ids == ()
    clock.now = 11
    with pytest.raises(NotFound):
        rankings.get("a")
    rankings.get("b")
    assert len(rankings) == 1


def test_rows_of_items_and_events_are_bounded_and_the_oldest_go() -> None:
    rankings = Rankings(max_rows=30, ttl_s=1e9, clock=Clock())
    rankings.keep("a", kept(num_items=9))
    rankings.keep("b", kept(num_events=9))
    rankings.keep("c", kept(num_items=4, num_events=5))
    assert len(rankings) == 3
    rankings.keep("d", kept())
    assert len(rankings) == 3
    with pytest.raises(NotFound):
        rankings.get("a")
    rankings.keep("larger than all", kept(num_items=50))
    assert len(rankings) == 0


def test_tokens_come_back_and_nothing_else_does() -> None:
    token = pages.to_token(b"key", 2**40)
    assert pages.from_token(token) == (b"key", 2**40)
    assert pages.place_in(token, b"key") == 2**40
    assert pages.place_in("", b"key") is None
    for wrong in ("x", "é", "AAAA", token[:-2], "****"):
        with pytest.raises(InvalidInput, match="page_token"):
            pages.place_in(wrong, b"key")
    with pytest.raises(InvalidInput, match="other arguments"):
        pages.place_in(token, b"another")


def test_a_digest_stands_for_the_arguments_alone() -> None:
    def digest(**values: object) -> bytes:
        return pages.digest(memory_pb.ListMemoriesRequest(**values))

    assert digest(user_id="u", page_size=3, page_token="t") == digest(user_id="u", page_size=9)
    assert len({digest(user_id="u"), digest(user_id="v"), digest(query_text="u")}) == 3


@pytest.mark.parametrize(("asked", "size"), [(0, 10), (1, 1), (200, 200), (201, 200), (2**31 - 1, 200)])
def test_page_sizes(asked: int, size: int) -> None:
    assert pages.page_size(asked, default=10, most=200) == size
