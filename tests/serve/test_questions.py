"""A question read at once is the message that protobuf reads; what is not usual is left to protobuf."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InvalidInput
from recsys.serve.questions import RankQuestion, read_question
from recsys.types import MAX_CANDIDATES, MAX_ID_BYTES
from recsys.v1 import ranking_service_pb2 as pb

USER = pb.UserContext(user_id="ada")
plain = st.text(st.characters(min_codepoint=1, max_codepoint=127), min_size=1, max_size=20)
candidate = st.builds(pb.Candidate, item_id=st.one_of(plain, st.text(max_size=5)), text=st.sampled_from(["", "", "a"]))
requests = st.builds(
    pb.RankItemsRequest,
    user=st.just(USER),
    candidates=st.lists(st.one_of(st.builds(pb.Candidate, item_id=plain), candidate), max_size=20),
    top_k=st.integers(-(2**31), 2**31 - 1),
    include_parts=st.booleans(),
)


def told(question: RankQuestion) -> object:
    """What comes of a question: its candidates, or all that is wrong with it."""
    try:
        return [(each.item_id, each.text) for each in question.checked()]
    except InvalidInput as error:
        return [str(each) for each in error.violations]


@settings(deadline=None)  # the first call compiles
@given(requests)
def test_equals_the_message_of_protobuf(request: pb.RankItemsRequest) -> None:
    question = read_question(request.SerializeToString())
    assert question.message == request
    assert question.num_candidates == len(request.candidates)
    assert told(question) == told(RankQuestion(request))
    assert (question.fields.user, question.fields.top_k) == (request.user, request.top_k)
    assert question.fields.include_parts == request.include_parts


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60), st.lists(plain, min_size=1, max_size=3))
def test_any_bytes_are_read_or_refused_as_protobuf_does(noise: bytes, at: int, ids: list[str]) -> None:
    sound = pb.RankItemsRequest(user=USER, candidates=[pb.Candidate(item_id=each) for each in ids]).SerializeToString()
    data = sound[:at] + noise + sound[at:]
    try:
        wanted = pb.RankItemsRequest.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            read_question(data)
        return
    assert read_question(data).message == wanted
    assert told(read_question(data)) == told(RankQuestion(wanted))


def test_the_usual_request_is_read_at_once() -> None:
    ids = [f"item-{row}" for row in range(MAX_CANDIDATES)]
    request = pb.RankItemsRequest(user=USER, candidates=[pb.Candidate(item_id=each) for each in ids], top_k=5)
    question = read_question(request.SerializeToString())
    assert question.ids == ids
    assert len(question.fields.candidates) == 1


@pytest.mark.parametrize(
    "odd",
    [
        [pb.Candidate(item_id="a", text="b")],
        [pb.Candidate(text="b")],
        [pb.Candidate()],
        [pb.Candidate(item_id="é")],
        [pb.Candidate(item_id="a\0")],
        [pb.Candidate(item_id="a" * (MAX_ID_BYTES + 1))],
        [pb.Candidate(item_id="a")] * (MAX_CANDIDATES + 1),
        [],
    ],
)
def test_the_others_are_left_to_protobuf(odd: list[pb.Candidate]) -> None:
    request = pb.RankItemsRequest(user=USER, candidates=odd)
    question = read_question(request.SerializeToString())
    assert question.ids is None
    assert question.fields == request
