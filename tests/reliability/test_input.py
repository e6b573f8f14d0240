"""Anything at all, sent to a trained engine over its store: answered, or refused with a word on which field and why.

`tests/serve/test_validate.py` asks every method of an engine that looks at nothing; here what passes the door reaches
the real parts. What is refused names fields that the request has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.model import Model
from recsys.serve import Server
from recsys.store import EventStore
from recsys.v1 import ingest_service_pb2 as ingest_pb
from recsys.v1 import memory_service_pb2 as memory_pb
from recsys.v1 import ranking_service_pb2 as pb
from recsys.v1 import types_pb2
from tests.reliability.small import publish_all, shelf_of
from tests.serve.conftest import QUICK
from tests.serve.test_validate import KIN, METHODS, messages

UNARY = sorted(
    set(METHODS) - {"IngestService/StreamEvents", "MemoryService/ExportUser", "AdminService/ActivateSnapshot"}
)
ANYBODY = pb.UserContext(user_id="u1")
NASTY = {
    "1 MB": "x" * 1_000_000,
    "NUL": "a\0b",
    "right to left": "\u202eabc",
    "emoji": "🙂" * 20,
    "marks": "e" + "\u0301" * 60,
    "line ends": "a\r\n\u2028b",
    "not normal": "\ufeff\ufdfa",
    "a path": "../../etc/passwd",
    "a format": "%s%n{0}${jndi:ldap://x}",
    "a statement": "'; DROP TABLE longrec_events; --",
}


@pytest.fixture(scope="module")
def channel(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    folder = tmp_path_factory.mktemp("input")
    publish_all(model, folder / "snapshots", 1)
    store = EventStore.open(folder / "events.db")
    with (
        Server(QUICK, shelf=shelf_of(folder / "snapshots"), store=store) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield channel


def outcome(channel: grpc.Channel, path: str, request: Message) -> grpc.StatusCode:
    """The code; of a refusal for what was asked, only after its details have named fields of the request."""
    try:
        channel.unary_unary(f"/recsys.v1.{path}")(request.SerializeToString(), timeout=20)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            _names_fields(error, request)
        return error.code()
    return grpc.StatusCode.OK


def _names_fields(refusal: grpc.RpcError, request: Message) -> None:
    status, bad = rpc_status.from_call(refusal), error_details_pb2.BadRequest()
    assert status is not None
    assert any(detail.Unpack(bad) for detail in status.details), status
    assert bad.field_violations
    for violation in bad.field_violations:
        first = re.split(r"[.\[ ]", violation.field)[0]
        assert first in type(request).DESCRIPTOR.fields_by_name, violation
        assert violation.description


def known(request: Message, data: st.DataObject) -> Message:
    """Half of the time about users and items that there are, so that requests come through the door."""
    if data.draw(st.booleans()):
        if isinstance(request, pb.RankItemsRequest | pb.RecommendItemsRequest | pb.ExplainRankingRequest):
            request.user.user_id = "u1"
            del request.user.extra_history[2:]
        if isinstance(request, pb.RankItemsRequest):
            request.candidates.add(item_id="i1")
        if isinstance(request, pb.ExplainRankingRequest):
            request.ranking_id = ""
            request.item_ids[:] = ["i1"]
        if isinstance(request, memory_pb.ListMemoriesRequest | memory_pb.DeleteUserRequest):
            request.user_id = "u2"
    return request


def _any(channel: grpc.Channel, path: str, data: st.DataObject) -> None:
    assert outcome(channel, path, known(data.draw(messages(METHODS[path])), data)) in KIN


@pytest.mark.parametrize("path", UNARY)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_anything_is_answered_or_refused_by_field(channel: grpc.Channel, path: str, data: st.DataObject) -> None:
    _any(channel, path, data)


@pytest.mark.full
@pytest.mark.parametrize("path", UNARY)
@settings(max_examples=1_500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_great_deal_of_anything(channel: grpc.Channel, path: str, data: st.DataObject) -> None:
    _any(channel, path, data)


@pytest.mark.parametrize("name", NASTY)
def test_nasty_texts_in_every_place(channel: grpc.Channel, name: str) -> None:
    text = NASTY[name]
    for path, request in (
        ("RankingService/RankItems", ranked(text=text)),
        ("RankingService/RankItems", ranked(item_id=text)),
        ("RankingService/RecommendItems", pb.RecommendItemsRequest(user=pb.UserContext(user_id=text))),
        (
            "RankingService/RecommendItems",
            recommended(categories=[text], exclude_item_ids=[text]),
        ),
        ("RankingService/EncodeTexts", pb.EncodeTextsRequest(texts=[text])),
        ("MemoryService/ListMemories", memory_pb.ListMemoriesRequest(user_id="u1", query_text=text)),
        ("IngestService/WriteEvents", written(user_id=text, item_id=text, session_id=text, event_id=text)),
        ("IngestService/WriteItems", ingest_pb.WriteItemsRequest(items=[types_pb2.Item(item_id="n", title=text)])),
    ):
        assert outcome(channel, path, request) in KIN, path


def ranked(**fields: str) -> pb.RankItemsRequest:
    return pb.RankItemsRequest(user=ANYBODY, candidates=[pb.Candidate(**fields)])


def recommended(**fields: list[str]) -> pb.RecommendItemsRequest:
    return pb.RecommendItemsRequest(user=ANYBODY, **fields)


def written(**fields: object) -> ingest_pb.WriteEventsRequest:
    return ingest_pb.WriteEventsRequest(events=[types_pb2.Event(event_type="view", **fields)])  # type: ignore[arg-type]  # of any kind


def test_numbers_beyond_all_bounds(channel: grpc.Channel) -> None:
    rank = pb.RankItemsRequest(user=pb.UserContext(user_id="u1"), candidates=[pb.Candidate(item_id="i1")])
    for top_k, code in ((2**31 - 1, "OK"), (-1, "INVALID_ARGUMENT"), (-(2**31), "INVALID_ARGUMENT")):
        rank.top_k = top_k
        assert outcome(channel, "RankingService/RankItems", rank).name == code
    for value in (float("nan"), float("inf"), -float("inf"), 1e308):
        assert outcome(channel, "IngestService/WriteEvents", written(user_id="u", item_id="i1", value=value)).name == (
            "INVALID_ARGUMENT"
        )
    for seconds in (2**63 - 1, -(2**63), 253_402_300_799, 4_102_444_800):
        request = written(user_id="u", item_id="i1")
        request.events[0].event_time.seconds = seconds
        assert outcome(channel, "IngestService/WriteEvents", request) is grpc.StatusCode.INVALID_ARGUMENT
    for item_id in ("-1", str(2**63), "1e999", "NaN"):  # ids are names: any will do
        assert outcome(channel, "IngestService/WriteEvents", written(user_id="u", item_id=item_id)).name == "OK"


def test_events_twice_and_in_any_order(channel: grpc.Channel) -> None:
    request = ingest_pb.WriteEventsRequest()
    for seconds in (1_650_000_300, 1_650_000_100, 1_650_000_200, 1_650_000_100, -1_000_000):
        event = request.events.add(user_id="late", item_id="i1", event_type="view", event_id=f"e{seconds}")
        event.event_time.seconds = seconds
    answer = channel.unary_unary(
        "/recsys.v1.IngestService/WriteEvents", response_deserializer=ingest_pb.WriteEventsResponse.FromString
    )(request.SerializeToString(), timeout=20)
    assert (answer.accepted_count, answer.duplicate_count) == (4, 1)
    rank = pb.RankItemsRequest(user=pb.UserContext(user_id="late"), candidates=[pb.Candidate(item_id="i2")])
    assert outcome(channel, "RankingService/RankItems", rank) is grpc.StatusCode.OK


def test_half_a_surrogate_and_half_a_message(channel: grpc.Channel) -> None:
    """A string field of bytes that are no UTF-8, which no client of ours can send."""
    for data in (b"\x0a\x05\x0a\x03\xed\xa0\x80", b"\x0a\xff\xff\xff\xff\x7f", b"\xff" * 9, b"\x0a\x7f"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/recsys.v1.RankingService/RankItems")(data, timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
