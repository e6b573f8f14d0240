"""Every error has one code, one ErrorInfo, and details that help; nothing inside leaks out."""

from __future__ import annotations

import grpc
import pytest
import structlog.testing
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from recsys import errors
from recsys.types import User
from recsys.v1 import admin_service_pb2 as admin_pb
from recsys.v1 import ingest_service_pb2 as ingest_pb
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1 import types_pb2 as pb
from tests.serve.conftest import World
from tests.serve.fake import FakeEngine

RANK = "/recsys.v1.RankingService/RankItems"
EVENTS = "/recsys.v1.IngestService/WriteEvents"
ACTIVATE = "/recsys.v1.AdminService/ActivateSnapshot"
ASK = ranking_pb.RankItemsRequest(
    user=ranking_pb.UserContext(user_id="u1"), candidates=[ranking_pb.Candidate(item_id="item-1")]
)


def refusal(world: World, path: str, request: Message | bytes) -> tuple[grpc.StatusCode, status_pb2.Status]:
    data = request if isinstance(request, bytes) else request.SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        world.channel.unary_unary(path)(data, timeout=10)
    status = rpc_status.from_call(caught.value)
    return caught.value.code(), status or status_pb2.Status(message=caught.value.details())


def details(status: status_pb2.Status, kind: type[Message]) -> list[Message]:
    found = [kind() for detail in status.details if detail.Is(kind.DESCRIPTOR)]
    for message, detail in zip(found, [d for d in status.details if d.Is(kind.DESCRIPTOR)], strict=True):
        detail.Unpack(message)
    return found


def reason(status: status_pb2.Status) -> str:
    (info,) = details(status, error_details_pb2.ErrorInfo)
    assert info.domain == "recsys"
    return info.reason


def test_all_violations_come_at_once(world: World) -> None:
    bad = ingest_pb.WriteEventsRequest(
        events=[
            pb.Event(user_id="u", item_id="i", event_type="view"),
            pb.Event(user_id="", item_id="a\0b", event_type="v" * 65, value=float("nan")),
        ]
    )
    code, status = refusal(world, EVENTS, bad)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(status) == "INVALID_INPUT"
    (request,) = details(status, error_details_pb2.BadRequest)
    assert {v.field for v in request.field_violations} == {
        "events[1].user_id",
        "events[1].item_id",
        "events[1].event_type",
        "events[1].value",
    }
    assert world.store.rows == []


def test_many_violations_still_fit_into_the_headers(world: World) -> None:
    bad = ingest_pb.WriteEventsRequest(events=[pb.Event(user_id="é" * 200, item_id="ü" * 200) for _ in range(1000)])
    code, status = refusal(world, EVENTS, bad)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(details(status, error_details_pb2.BadRequest)[0].field_violations) > 5


@pytest.mark.parametrize("data", [b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x04\x0a\x02\xed\xa0"])
def test_malformed_bytes_are_invalid_not_internal(world: World, data: bytes) -> None:
    code, status = refusal(world, RANK, data)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details(status, error_details_pb2.BadRequest)[0].field_violations[0].field == "request"


def test_a_message_beyond_the_limit_is_refused(world: World) -> None:
    code, _ = refusal(world, RANK, b"\x0a" * (5 * 1024 * 1024))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_same_request_id_with_another_body_names_the_field(world: World) -> None:
    def write(item_id: str) -> ingest_pb.WriteEventsRequest:
        row = pb.Event(user_id="u", item_id=item_id, event_type="view")
        return ingest_pb.WriteEventsRequest(events=[row], request_id="r1")

    first = world.channel.unary_unary(EVENTS)(write("a").SerializeToString(), timeout=10)
    assert world.channel.unary_unary(EVENTS)(write("a").SerializeToString(), timeout=10) == first
    assert len(world.store.rows) == 1
    code, status = refusal(world, EVENTS, write("b"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(status) == "REQUEST_ID_CONFLICT"
    assert details(status, error_details_pb2.BadRequest)[0].field_violations[0].field == "request_id"


def test_an_unknown_snapshot_is_not_found(world: World) -> None:
    code, status = refusal(world, ACTIVATE, admin_pb.ActivateSnapshotRequest(snapshot_id="s9"))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "s9" in status.message


def test_a_damaged_snapshot_leaves_the_old_one_serving(make_world) -> None:
    world = make_world(FakeEngine(), FakeEngine(snapshot_id="s2"), damaged=("s2",))
    code, status = refusal(world, ACTIVATE, admin_pb.ActivateSnapshotRequest(snapshot_id="s2"))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert reason(status) == "DAMAGED_SNAPSHOT"
    assert world.client.serving_state().serving.snapshot_id == "s1"
    assert world.shelf.now == "s1"


def test_before_loading_calls_are_unavailable_with_a_delay(make_world) -> None:
    world = make_world(load=False)
    code, status = refusal(world, RANK, ASK)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert reason(status) == "NOT_READY"
    assert details(status, error_details_pb2.RetryInfo)[0].retry_delay.seconds == 1


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (errors.StoreError("disk full"), grpc.StatusCode.UNAVAILABLE, "STORE_FAILED"),
        (errors.MixedSnapshot("two encoders"), grpc.StatusCode.FAILED_PRECONDITION, "MIXED_SNAPSHOT"),
        (errors.DeadlineExceeded("no time"), grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        (errors.MissingExtra("faiss", "engine"), grpc.StatusCode.FAILED_PRECONDITION, "MISSING_EXTRA"),
    ],
)
def test_what_the_engine_raises_on_purpose_keeps_its_meaning(make_world, error, code, name) -> None:
    found, status = refusal(_raising(make_world, error), RANK, ASK)
    assert found is code
    assert reason(status) == name
    assert status.message == str(error)


def test_the_unexpected_is_internal_logged_and_not_told(make_world) -> None:
    world = _raising(make_world, ZeroDivisionError("secret text of an item"))
    with structlog.testing.capture_logs() as logs:
        code, status = refusal(world, RANK, ASK)
    assert code is grpc.StatusCode.INTERNAL
    assert reason(status) == "INTERNAL"
    assert "secret" not in str(status)
    assert "Traceback" not in str(status)
    (entry,) = [log for log in logs if log["event"] == "failed"]
    assert entry["error"] == "ZeroDivisionError"
    assert any("RankItems" in frame for frame in entry["where"])
    assert "secret" not in str(logs)


def test_unknown_methods_are_unimplemented(world: World) -> None:
    code, _ = refusal(world, "/recsys.v1.RankingService/Nothing", b"")
    assert code is grpc.StatusCode.UNIMPLEMENTED


def _raising(make_world, error: Exception) -> World:
    def fail() -> None:
        if serving:
            raise error

    serving: list[bool] = []
    world = make_world(FakeEngine(before=fail))
    serving.append(True)
    return world


def test_the_client_gets_the_typed_error_back(make_world) -> None:
    world = _raising(make_world, errors.Overloaded("full", retry_after_s=2.5))
    with pytest.raises(errors.Overloaded, match="full") as caught:
        world.client.rank_items(User(), ["item-1"])
    assert caught.value.retry_after_s == 2.5
