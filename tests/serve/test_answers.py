"""Rows written at once are the messages that protobuf would have made of them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.serve.answers import RankAnswer
from recsys.types import Fallback, RankedColumns, RankedItem
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.wire import values

row = st.tuples(
    st.text(max_size=300),
    st.floats(width=32, allow_nan=False),
    st.integers(-1, 2**31 - 1),
    st.lists(st.sampled_from(Fallback), unique=True),
)


def columns(rows: list[tuple[str, float, int, list[Fallback]]], *, parts: bool = False) -> RankedColumns:
    return RankedColumns(
        item_ids=[each[0] for each in rows],
        scores=[each[1] for each in rows],
        indices=[each[2] for each in rows],
        fallbacks={place: tuple(each[3]) for place, each in enumerate(rows) if each[3]},
        parts=[{"near": 0.5}] * len(rows) if parts else (),
    )


def written(rows: Sequence[RankedItem]) -> ranking_pb.RankItemsResponse:
    answer = RankAnswer(ranking_pb.RankItemsResponse(ranking_id="r"), rows)
    return ranking_pb.RankItemsResponse.FromString(answer.to_bytes())


@settings(deadline=None)  # the first call compiles
@given(st.lists(row, max_size=150))
def test_equals_the_messages_made_one_by_one(rows: list[tuple[str, float, int, list[Fallback]]]) -> None:
    ranked = columns(rows)
    response = written(ranked)
    assert response == ranking_pb.RankItemsResponse(items=map(values.to_ranked, ranked), ranking_id="r")


def test_parts_and_plain_rows_are_written_too() -> None:
    ranked = columns([("a", 1.0, 0, []), ("b", 0.5, 1, [Fallback.COLD_ITEM])], parts=True)
    for rows in (ranked, tuple(ranked)):
        response = written(rows)
        assert [each.item_id for each in response.items] == ["a", "b"]
        assert [dict(each.parts) for each in response.items] == [{"near": 0.5}] * 2
