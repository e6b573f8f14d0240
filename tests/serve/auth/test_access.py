"""Who may call what: everything is denied but what the table allows, and the table names everything."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest
import structlog.testing

from recsys.errors import Forbidden, InvalidInput, LimitExceeded, Unauthenticated
from recsys.serve import LaneConfig
from recsys.serve.access import OPEN, SCOPES, check_complete
from recsys.serve.auth.limits import QuotaConfig
from recsys.serve.auth.tokens import remove_token
from recsys.serve.caller import Scope
from recsys.types import Event, Item, User
from recsys.v1 import admin_service_pb2, ingest_service_pb2, memory_service_pb2, ranking_service_pb2
from tests.serve.auth.conftest import MakeKeep, code_of
from tests.serve.fake import FakeEngine

FILES = (ranking_service_pb2, ingest_service_pb2, memory_service_pb2, admin_service_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
OURS = sorted(METHODS)
EVENT = Event(user_id="u", item_id="item-1", event_type="view", timestamp=1.7e9)


def test_the_table_names_every_method_of_the_api_and_no_other() -> None:
    check_complete(METHODS)
    assert METHODS.keys() == {method for method in SCOPES if method.startswith("/recsys.")}
    assert not OPEN & METHODS.keys()


def test_a_method_without_an_entry_stops_the_start(make_keep: MakeKeep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SCOPES, "/recsys.v1.MemoryService/DeleteUser")  # type: ignore[arg-type]  # a dict
    with pytest.raises(InvalidInput, match=r"DeleteUser.*has no scope"):
        make_keep({"shop": FakeEngine()})


@pytest.mark.parametrize("method", OURS)
def test_nothing_is_answered_without_a_credential(make_keep: MakeKeep, method: str) -> None:
    keep = make_keep({"shop": FakeEngine()})
    wrong = [
        None,
        [("authorization", "Bearer lr_x_y")],
        [("authorization", "Basic dTpw")],
        [("authorization", "Bearer")],
        [("authorization", f"Bearer {keep.token('shop')} ")],
        [("authorization", f"Bearer {keep.token('shop')}"), ("authorization", "Bearer x")],
        [("x-tenant", "shop")],
    ]
    for metadata in wrong if method == OURS[0] else wrong[:2]:
        assert code_of(keep.target, method, metadata) is grpc.StatusCode.UNAUTHENTICATED, metadata
    assert keep.stores["shop"].rows == []


def test_each_scope_opens_its_methods_and_no_others(make_keep: MakeKeep, at_once: None) -> None:
    keep = make_keep({"shop": FakeEngine()})
    for scope in Scope:
        metadata = [("authorization", f"Bearer {keep.token('shop', scope)}")]
        for method in OURS:
            code = code_of(keep.target, method, metadata)
            assert (code is grpc.StatusCode.PERMISSION_DENIED) == (SCOPES[method] is not scope), (scope, method)


def test_refusals_come_before_the_message_is_waited_for(make_keep: MakeKeep) -> None:
    keep = make_keep({"shop": FakeEngine()}, message_timeout_s=60.0)
    done = threading.Event()

    def never() -> Iterator[bytes]:
        done.wait(60)
        yield from ()

    with grpc.insecure_channel(keep.target) as channel:
        call = channel.stream_unary("/recsys.v1.IngestService/WriteEvents").future(never())
        try:
            with pytest.raises(grpc.RpcError) as caught:
                call.result(timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        finally:
            done.set()


def test_health_is_open_and_reflection_is_not(make_keep: MakeKeep) -> None:
    keep = make_keep({"shop": FakeEngine()})
    assert code_of(keep.target, "/grpc.health.v1.Health/Check") is grpc.StatusCode.OK
    with grpc.insecure_channel(keep.target) as channel:
        call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b""]), timeout=20))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_client_raises_what_it_was_and_nothing_says_why(make_keep: MakeKeep, at_once: None) -> None:
    keep = make_keep({"shop": FakeEngine()})
    stranger = keep.client("lr_000000000000_guess")
    with structlog.testing.capture_logs() as logs, pytest.raises(Unauthenticated) as caught:
        stranger.rank_items(User(), ["item-1"])
    assert str(caught.value) == "a valid credential is needed"
    (denied,) = [log for log in logs if log["event"] == "denied"]
    assert denied["reason"] == "no such token"
    assert "guess" not in str(logs)
    reader = keep.client(keep.token("shop", Scope.READ))
    with pytest.raises(Forbidden, match="RankItems"):
        reader.rank_items(User(), ["item-1"])
    assert reader.serving_state().num_items == 40


def test_denials_do_not_fill_the_log(make_keep: MakeKeep) -> None:
    keep = make_keep({"shop": FakeEngine()})
    with structlog.testing.capture_logs() as logs, grpc.insecure_channel(keep.target) as channel:
        method = channel.unary_unary(OURS[0])
        for _ in range(6):
            for call in [method.future(b"", timeout=20) for _ in range(50)]:
                assert call.code() is grpc.StatusCode.UNAUTHENTICATED
    denied = [log for log in logs if log["event"] == "denied"]
    assert 10 <= len(denied) < 300
    assert sum(log["untold"] for log in denied) <= 300 - len(denied)


def test_a_revoked_token_is_refused_and_a_new_one_taken_without_a_restart(make_keep: MakeKeep, at_once: None) -> None:
    keep = make_keep({"shop": FakeEngine()})
    token = keep.token("shop")
    client = keep.client(token)
    assert client.serving_state().num_items == 40
    remove_token(keep.tokens, token.split("_")[1])
    with pytest.raises(Unauthenticated):
        client.serving_state()


def test_a_token_of_no_tenant_changes_nothing(make_keep: MakeKeep, at_once: None) -> None:
    """A file that names a tenant there is not is wrong as a whole, and the earlier one holds."""
    keep = make_keep({"shop": FakeEngine()})
    good = keep.client(keep.token("shop"))
    assert good.serving_state().num_items == 40
    bad = keep.client(keep.token("mall"))
    with pytest.raises(Unauthenticated):
        bad.serving_state()
    assert good.serving_state().num_items == 40


def test_rates_are_of_a_tenant_and_a_scope(make_keep: MakeKeep, at_once: None) -> None:
    keep = make_keep({"shop": FakeEngine(), "mall": FakeEngine()}, homes={"shop": {"rates": {Scope.RANK: 0.01}}})
    shop, mall = keep.client(keep.token("shop")), keep.client(keep.token("mall"))
    shop.rank_items(User(), ["item-1"])
    with pytest.raises(LimitExceeded) as caught:
        shop.rank_items(User(), ["item-1"])
    assert 90 < caught.value.retry_after_s <= 100
    shop.write_events([EVENT])
    for _ in range(3):
        mall.rank_items(User(), ["item-1"])


def test_quotas_hold_for_events_and_items(make_keep: MakeKeep, at_once: None) -> None:
    homes = {"shop": {"quotas": QuotaConfig(events_per_day=5, items=42)}}
    keep = make_keep({"shop": FakeEngine(), "mall": FakeEngine()}, homes=homes)
    shop, mall = keep.client(keep.token("shop")), keep.client(keep.token("mall"))
    shop.write_events([EVENT] * 3)
    with pytest.raises(LimitExceeded, match="3 of 5"):
        shop.write_events([EVENT] * 3)
    shop.write_events([EVENT] * 2)
    with pytest.raises(LimitExceeded):
        shop.write_events([EVENT])
    shop.write_items([Item(item_id="new-1"), Item(item_id="item-1")])
    with pytest.raises(LimitExceeded, match="41 of 42"):
        shop.write_items([Item(item_id="new-2"), Item(item_id="new-3")])
    shop.write_items([Item(item_id="new-2")])
    shop.write_items([Item(item_id="new-1", title="again"), Item(item_id="new-2", title="again")])
    mall.write_events([EVENT] * 6)
    assert len([row for _, row in keep.stores["shop"].rows if isinstance(row, Event)]) == 5


def test_what_was_used_today_outlives_a_restart(make_keep: MakeKeep, at_once: None, tmp_path) -> None:
    homes = {"shop": {"quotas": QuotaConfig(events_per_day=5), "usage": tmp_path / "shop.json"}}
    first = make_keep({"shop": FakeEngine()}, homes=homes)
    first.client(first.token("shop")).write_events([EVENT] * 4)
    first.server.stop()
    second = make_keep({"shop": FakeEngine()}, homes=homes)
    with pytest.raises(LimitExceeded, match="4 of 5"):
        second.client(second.token("shop")).write_events([EVENT] * 2)


def test_a_flooding_tenant_leaves_the_others_their_turns(make_keep: MakeKeep, at_once: None) -> None:
    entered, go_on = threading.Semaphore(0), threading.Event()
    stuck: list[bool] = []

    def hold() -> None:
        if stuck:
            entered.release()
            assert go_on.wait(20)

    lane = LaneConfig(workers=1, queue=8, default_timeout_s=20, max_timeout_s=20, max_wait_s=10.0)
    keep = make_keep({"greedy": FakeEngine(before=hold), "modest": FakeEngine()}, work=lane)
    greedy, modest = keep.token("greedy"), keep.client(keep.token("modest"))
    for client in (keep.client(greedy), modest):
        client.rank_items(User(), ["item-1"])  # while one call reads the changed file, others go by the one before
    stuck.append(True)
    with grpc.insecure_channel(keep.target) as channel:
        method = channel.unary_unary("/recsys.v1.RankingService/RankItems")
        body = ranking_service_pb2.RankItemsRequest(
            user=ranking_service_pb2.UserContext(user_id="u"),
            candidates=[ranking_service_pb2.Candidate(item_id="item-1")],
        )
        metadata = [("authorization", f"Bearer {greedy}")]
        calls = [method.future(body.SerializeToString(), timeout=20, metadata=metadata) for _ in range(20)]
        assert entered.acquire(timeout=20)
        while sum(call.done() for call in calls) < 15:  # one runs, and four wait in half of the queue
            time.sleep(0.01)
        waiting = threading.Thread(target=modest.rank_items, args=(User(), ["item-1"]))
        waiting.start()
        go_on.set()
        waiting.join(20)
        assert not waiting.is_alive()
        codes = [call.code() for call in calls]
    assert Counter(codes) == {grpc.StatusCode.OK: 5, grpc.StatusCode.RESOURCE_EXHAUSTED: 15}
