"""The rules one by one, then anything at all: only INVALID_ARGUMENT and its kin come out, never INTERNAL."""

from __future__ import annotations

import base64
import math
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.client import RecsysClient
from recsys.errors import InvalidInput
from recsys.serve import Server
from recsys.serve.validate import MAX_VIOLATIONS, validate
from recsys.types import Event, User
from recsys.v1 import admin_service_pb2 as admin_pb
from recsys.v1 import ingest_service_pb2 as ingest_pb
from recsys.v1 import memory_service_pb2 as memory_pb
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1 import types_pb2 as pb
from tests.serve.conftest import QUICK
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore

GOOD = pb.Event(user_id="u", item_id="i", event_type="view")
USER = ranking_pb.UserContext(user_id="u")
ONE = [ranking_pb.Candidate(item_id="i")]


def fields(request: Message) -> list[str]:
    try:
        validate(request)
    except InvalidInput as error:
        return [violation.field for violation in error.violations]
    return []


def rank(**values: Any) -> ranking_pb.RankItemsRequest:
    return ranking_pb.RankItemsRequest(**{"user": USER, "candidates": ONE} | values)


def recommend(**values: Any) -> ranking_pb.RecommendItemsRequest:
    return ranking_pb.RecommendItemsRequest(**{"user": USER} | values)


def events(**values: Any) -> ingest_pb.WriteEventsRequest:
    event = pb.Event(user_id="u", item_id="i", event_type="view")
    event.MergeFrom(pb.Event(**values))
    return ingest_pb.WriteEventsRequest(events=[event])


def user(**values: Any) -> ranking_pb.RankItemsRequest:
    return rank(user=ranking_pb.UserContext(**values))


def item(**values: Any) -> ingest_pb.WriteItemsRequest:
    return ingest_pb.WriteItemsRequest(items=[pb.Item(**{"item_id": "i"} | values)])


@pytest.mark.parametrize(
    "request_",
    [
        rank(),
        rank(top_k=2**31 - 1),
        rank(candidates=[ranking_pb.Candidate(text="é" * 4096)]),
        rank(user=ranking_pb.UserContext()),
        user(user_id="u", extra_history=[pb.Event(item_id="i", event_type="v"), GOOD]),
        user(request_time=Timestamp(seconds=-62_135_596_800)),
        recommend(page_size=2**31 - 1, exclude_item_ids=["a"] * 1000),
        events(item_id="ü" * 128, value=-1e38, event_time=Timestamp(seconds=0)),
        item(attributes={"a": "b"}, categories=["c"] * 64),
        item(title="\u202eRTL 🙂 \u0300"),
        ranking_pb.ExplainRankingRequest(ranking_id="r"),
        ranking_pb.ExplainRankingRequest(user=USER, item_ids=["i"]),
    ],
)
def test_good_requests_pass(request_: Message) -> None:
    validate(request_)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (ranking_pb.RankItemsRequest(), ["candidates", "user"]),
        (rank(candidates=[ranking_pb.Candidate()]), ["candidates[0].item_id"]),
        (rank(candidates=ONE * 1001), ["candidates"]),
        (rank(candidates=[*ONE, ranking_pb.Candidate(text="x" * 8193)]), ["candidates[1].text"]),
        (rank(candidates=[ranking_pb.Candidate(item_id="é" * 129)]), ["candidates[0].item_id"]),
        (rank(top_k=-1), ["top_k"]),
        (user(user_id="a\0"), ["user.user_id"]),
        (user(user_id="a", extra_history=[GOOD]), ["user.extra_history[0].user_id"]),
        (user(extra_history=[pb.Event(item_id="i")]), ["user.extra_history[0].event_type"]),
        (user(extra_history=[pb.Event(event_type="v")] * 10_001), ["user.extra_history"]),
        (user(request_time=Timestamp(seconds=2**62)), ["user.request_time"]),
        (user(request_time=Timestamp(nanos=-1)), ["user.request_time"]),
        (recommend(page_size=-(2**31)), ["page_size"]),
        (recommend(exclude_item_ids=["a", ""]), ["exclude_item_ids[1]"]),
        (recommend(exclude_item_ids=["a"] * 1001), ["exclude_item_ids"]),
        (recommend(categories=["a"] * 65), ["categories"]),
        (events(value=math.inf), ["events[0].value"]),
        (events(value=math.nan), ["events[0].value"]),
        (events(event_type="v" * 65), ["events[0].event_type"]),
        (events(event_time=Timestamp(seconds=4_000_000_000)), ["events[0].event_time"]),
        (ingest_pb.WriteEventsRequest(), ["events"]),
        (ingest_pb.WriteEventsRequest(events=[GOOD] * 1001), ["events"]),
        (ingest_pb.WriteEventsRequest(events=[GOOD], request_id="r" * 129), ["request_id"]),
        (ingest_pb.WriteItemsRequest(items=[pb.Item(item_id="a")] * 2), ["items[1].item_id"]),
        (item(attributes={"": "b"}), ["items[0].attributes"]),
        (item(attributes={"a": "b" * 8193}), ["items[0].attributes['a']"]),
        (item(attributes={str(i): "" for i in range(65)}), ["items[0].attributes"]),
        (item(categories=["c" * 257]), ["items[0].categories[0]"]),
        (ranking_pb.ExplainRankingRequest(), ["ranking_id"]),
        (ranking_pb.ExplainRankingRequest(ranking_id="r", user=USER), ["ranking_id"]),
        (ranking_pb.ExplainRankingRequest(user=USER), ["item_ids"]),
        (ranking_pb.ExplainRankingRequest(ranking_id="r", item_ids=["i"] * 51), ["item_ids"]),
        (ranking_pb.ExplainRankingRequest(ranking_id="r", max_memories=-1), ["max_memories"]),
        (ranking_pb.EncodeTextsRequest(texts=["", "a"]), ["texts[0]"]),
        (ranking_pb.EncodeTextsRequest(texts=["a"] * 65), ["texts"]),
        (memory_pb.ListMemoriesRequest(), ["user_id"]),
        (admin_pb.ActivateSnapshotRequest(), ["snapshot_id"]),
        (admin_pb.ListSnapshotsRequest(page_size=-1), ["page_size"]),
    ],
)
def test_each_rule_names_its_field(request_: Message, expected: list[str]) -> None:
    assert sorted(fields(request_)) == expected


def test_violations_are_bounded_and_say_value_and_reason() -> None:
    bad = ingest_pb.WriteEventsRequest(events=[pb.Event(user_id="u", item_id="x" * 9999, event_type="v")] * 1000)
    with pytest.raises(InvalidInput) as caught:
        validate(bad)
    assert len(caught.value.violations) == MAX_VIOLATIONS
    first = caught.value.violations[0]
    assert first.value.startswith("'xxx")
    assert len(first.value) <= 80
    assert first.reason == "is 9999 bytes long, at most 256 are allowed"


# Methods by path; anything their requests can hold.

METHODS = {
    "RankingService/RankItems": ranking_pb.RankItemsRequest,
    "RankingService/RecommendItems": ranking_pb.RecommendItemsRequest,
    "RankingService/ExplainRanking": ranking_pb.ExplainRankingRequest,
    "RankingService/EncodeTexts": ranking_pb.EncodeTextsRequest,
    "IngestService/WriteEvents": ingest_pb.WriteEventsRequest,
    "IngestService/WriteItems": ingest_pb.WriteItemsRequest,
    "MemoryService/ListMemories": memory_pb.ListMemoriesRequest,
    "MemoryService/DeleteUser": memory_pb.DeleteUserRequest,
    "MemoryService/ExportUser": memory_pb.ExportUserRequest,
    "IngestService/StreamEvents": ingest_pb.StreamEventsRequest,
    "AdminService/GetServingState": admin_pb.GetServingStateRequest,
    "AdminService/ListSnapshots": admin_pb.ListSnapshotsRequest,
    "AdminService/ActivateSnapshot": admin_pb.ActivateSnapshotRequest,
    "AdminService/RollbackSnapshot": admin_pb.RollbackSnapshotRequest,
}
KIN = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
TEXT = st.sampled_from(["", "u", "item-1", "\0", "é" * 300, "🙂", "\u202e\u0300", "x" * 9000, "s1"]) | st.text(
    max_size=8
)
PLAIN = {
    FieldDescriptor.TYPE_STRING: TEXT,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.sampled_from([0, 1, 7, -1, 2**31 - 1, -(2**31)]),
    FieldDescriptor.TYPE_INT64: st.sampled_from([0, 1_700_000_000, -1, 2**63 - 1, -(2**63)]),
    FieldDescriptor.TYPE_DOUBLE: st.floats(width=64),
}


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Any message of a kind, each field present or not."""

    def field(each: FieldDescriptor) -> st.SearchStrategy[Any]:
        if each.message_type is not None and each.message_type.GetOptions().map_entry:
            return st.dictionaries(TEXT, TEXT, max_size=2)
        one = PLAIN[each.type] if each.message_type is None else messages(each.message_type._concrete_class)
        return st.lists(one, max_size=3) if each.is_repeated else one

    parts = {each.name: field(each) for each in kind.DESCRIPTOR.fields}
    return st.fixed_dictionaries({}, optional=parts).map(lambda values: kind(**values))


@pytest.fixture(scope="module")
def channel():
    server = Server(QUICK, shelf=FakeShelf(FakeEngine()), store=FakeStore())
    with server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


def code_of(channel: grpc.Channel, path: str, data: bytes) -> grpc.StatusCode:
    method = f"/recsys.v1.{path}"
    try:
        if path == "IngestService/StreamEvents":
            list(channel.stream_stream(method)(iter([data]), timeout=20))
        elif path == "MemoryService/ExportUser":
            list(channel.unary_stream(method)(data, timeout=20))
        else:
            channel.unary_unary(method)(data, timeout=20)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("path", METHODS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_value_is_answered_or_refused_by_name(channel: grpc.Channel, path: str, data: st.DataObject) -> None:
    request = data.draw(messages(METHODS[path]))
    assert code_of(channel, path, request.SerializeToString()) in KIN


@pytest.mark.parametrize("path", METHODS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_bytes_are_answered_or_refused_by_name(channel: grpc.Channel, path: str, data: st.DataObject) -> None:
    good = data.draw(messages(METHODS[path])).SerializeToString()
    cut = data.draw(st.integers(0, len(good)))
    assert code_of(channel, path, good[:cut] + data.draw(st.binary(max_size=40))) in KIN


@settings(max_examples=30, deadline=None)
@given(token=st.text(max_size=20) | st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()))
def test_any_page_token_is_answered_or_refused_by_name(channel: grpc.Channel, token: str) -> None:
    for path, request in {
        "RankingService/RecommendItems": recommend(page_token=token),
        "MemoryService/ListMemories": memory_pb.ListMemoriesRequest(user_id="u", page_token=token),
        "AdminService/ListSnapshots": admin_pb.ListSnapshotsRequest(page_token=token),
    }.items():
        assert code_of(channel, path, request.SerializeToString()) in KIN


def test_every_field_of_every_method_has_a_rule() -> None:
    files = (ranking_pb, ingest_pb, memory_pb, admin_pb)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    methods = {f"{service.name}/{method.name}": method for service in services for method in service.methods}
    assert methods.keys() == METHODS.keys()
    for method in methods.values():
        fields(method.input_type._concrete_class())  # a field without a rule is a KeyError here


def test_the_client_refuses_what_protobuf_cannot_hold() -> None:
    with RecsysClient("127.0.0.1:1") as client:
        for call in (
            lambda: client.rank_items(User(user_id="\udc80"), ["i"]),
            lambda: client.rank_items(User(), ["ok", "\ud800"]),
            lambda: client.rank_items(User(), ["i"], top_k=2**31),
            lambda: client.write_events([Event(user_id="u", item_id="i", timestamp=math.nan)]),
            lambda: client.write_events([Event(user_id="u", item_id="i", timestamp=1e300)]),
            lambda: client.encode_texts(["\udc80"]),
        ):
            with pytest.raises(InvalidInput):
                call()


def test_what_a_rebuild_would_refuse_is_refused_at_the_door() -> None:
    """Each part within its bound, the joined text beyond what data files may hold; a value no float32 holds."""
    item = pb.Item(item_id="i", title="t" * 8_000, description="d" * 8_000)
    assert fields(ingest_pb.WriteItemsRequest(items=[item])) == ["items[0].description"]
    assert fields(events(value=1e300)) == ["events[0].value"]
    assert fields(events(value=-3e38)) == []


def test_texts_of_one_request_are_bounded_together() -> None:
    candidates = [ranking_pb.Candidate(text="x" * 8_000)] * 20
    assert fields(rank(candidates=candidates)) == ["candidates"]
    assert fields(rank(candidates=candidates[:10])) == []
    assert fields(ranking_pb.EncodeTextsRequest(texts=["x" * 8_000] * 20)) == ["texts"]
