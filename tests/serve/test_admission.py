"""Bounded lanes, deadlines, and swaps under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import grpc
import pytest

from recsys.errors import DeadlineExceeded, InvalidInput, Overloaded
from recsys.serve import LaneConfig
from recsys.serve.admission import AdmissionInterceptor, Streams
from recsys.serve.deadline import Deadline, check_deadline
from recsys.serve.handlers import AtOnce
from recsys.serve.lane import Lane
from recsys.serve.message import CallTimer, Reader
from recsys.types import Item, User
from tests.serve.fake import FakeEngine

SMALL = LaneConfig(workers=1, queue=1, default_timeout_s=20, max_timeout_s=20)


def long() -> Deadline:
    """A minute from now: made where it is used, for a suite may take longer than that to come here."""
    return Deadline(time.monotonic() + 60)


class Gate:
    """Holds whoever passes while it is shut."""

    def __init__(self) -> None:
        self.shut, self.open, self.waiting = False, threading.Event(), threading.Semaphore(0)

    def __call__(self) -> None:
        if self.shut:
            self.waiting.release()
            assert self.open.wait(20)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_full_lane_refuses_and_takes_again_when_there_is_room() -> None:
    lane, entered = Lane(SMALL), threading.Event()

    def wait_for_a_turn() -> None:
        with lane.enter(long()):
            entered.set()

    with lane.enter(long()):
        with pytest.raises(DeadlineExceeded, match="waited"), lane.enter(Deadline(0.0)):
            pass
        waiter = threading.Thread(target=wait_for_a_turn)
        waiter.start()
        until(lambda: lane.inside == 2)
        with pytest.raises(Overloaded, match="2 calls"), lane.enter(long()):
            pass
        assert not entered.is_set()
    waiter.join(10)
    assert entered.is_set()
    assert lane.inside == 0


def test_a_failing_call_gives_its_slot_back() -> None:
    lane = Lane(SMALL)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), lane.enter(long()):
            raise ZeroDivisionError
    assert lane.inside == 0


def test_overload_is_refused_at_once_with_a_delay_and_other_lanes_go_on(make_world) -> None:
    gate = Gate()
    full = LaneConfig(workers=1, queue=0, default_timeout_s=20, max_timeout_s=20)
    world = make_world(FakeEngine(before=gate), work=full)
    gate.shut = True
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(world.client.rank_items, User(), ["item-1"])
        assert gate.waiting.acquire(timeout=10)
        with pytest.raises(Overloaded) as caught:
            world.client.rank_items(User(), ["item-1"])
        assert caught.value.retry_after_s == 0.1
        world.client.write_items([Item(item_id="other lane")])
        gate.shut = False
        gate.open.set()
        assert len(held.result().items) == 1
    assert len(world.client.rank_items(User(), ["item-1"]).items) == 1


def test_queued_work_that_expired_is_not_started(make_world) -> None:
    gate = Gate()
    engine = FakeEngine(before=gate)
    world = make_world(engine, work=LaneConfig(workers=1, queue=8, default_timeout_s=20, max_timeout_s=20))
    gate.shut = True
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(world.client.rank_items, User(user_id="first"), ["item-1"])
        assert gate.waiting.acquire(timeout=10)
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                world.client.rank_items(User(user_id="late"), ["item-1"], timeout_s=0.05)
        gate.shut = False
        gate.open.set()
        held.result()
    world.client.rank_items(User(user_id="last"), ["item-1"])
    assert [user.user_id for user in engine.asked] == ["first", "last"]


def test_the_server_sets_a_deadline_where_the_client_has_none(make_world) -> None:
    gate = Gate()
    world = make_world(
        FakeEngine(before=gate),
        work=LaneConfig(workers=1, queue=1, default_timeout_s=1.0, max_timeout_s=1.0, max_wait_s=20.0),
    )
    gate.shut = True
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(world.client.rank_items, User(), ["item-1"])
        assert gate.waiting.acquire(timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            world.channel.unary_unary("/recsys.v1.RankingService/EncodeTexts")(b"\x0a\x01a")
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.open.set()
        held.result()


@pytest.mark.parametrize(
    ("client_s", "expected_s"), [(None, 5.0), (1.0, 1.0), (1e9, 30.0)], ids=["none", "shorter", "longer"]
)
def test_the_shorter_deadline_counts(client_s: float | None, expected_s: float) -> None:
    deadline = Deadline.of(client_s, default_s=5.0, max_s=30.0)
    assert expected_s - 1.0 < deadline.left_s <= expected_s


def test_stages_do_not_start_without_time() -> None:
    Deadline(time.monotonic() + 60).check("rank")
    with pytest.raises(DeadlineExceeded, match="no time left to rank"):
        Deadline(time.monotonic()).check("rank")
    check_deadline("rank")  # outside a call there is no limit


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"queue": -1}, {"default_timeout_s": 0.0}, {"max_timeout_s": 0.5}])
def test_lanes_need_sensible_numbers(wrong: dict[str, float]) -> None:
    values = {"workers": 1, "queue": 1, "default_timeout_s": 1.0, "max_timeout_s": 1.0} | wrong
    with pytest.raises(InvalidInput):
        LaneConfig(**values)  # type: ignore[arg-type]  # wrong on purpose


def test_swaps_under_load_mix_nothing_and_fail_nothing(make_world) -> None:
    engines = [FakeEngine(snapshot_id=f"s{i}", base=1000.0 * i) for i in (1, 2, 3)]
    world = make_world(*engines)
    done = threading.Event()

    def ask() -> int:
        count = 0
        while not done.is_set():
            page = world.client.rank_items(User(), [f"item-{i}" for i in range(30)])
            number = page.serving.snapshot_id.removeprefix("s")
            assert {row.score for row in page.items} == {1000.0 * int(number)}
            assert page.serving.ranker == f"r-s{number}"
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for turn in range(30):
                world.client.activate_snapshot(f"s{turn % 3 + 1}")
                world.client.write_items([Item(item_id=f"new-{turn}")])
        finally:
            done.set()
        assert all(each.result(20) > 0 for each in asking)
    assert world.client.serving_state().num_items == 70


def test_one_activation_at_a_time(make_world) -> None:
    gate = Gate()
    world = make_world(FakeEngine(), FakeEngine(snapshot_id="s2", before=gate))
    gate.shut = True
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.client.activate_snapshot, "s2")
        assert gate.waiting.acquire(timeout=10)
        with pytest.raises(Overloaded, match="another snapshot"):
            world.client.activate_snapshot("s2")
        assert world.client.serving_state().serving.snapshot_id == "s1"
        gate.open.set()
        assert first.result(20).snapshot_id == "s2"


class Details(NamedTuple):
    """What gRPC tells of a call when its headers have come."""

    method: str = "/recsys.v1.RankingService/RankItems"
    invocation_metadata: tuple[tuple[str, str], ...] = ()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_full_lane_refuses_in_the_thread_that_brings_the_call(at_once: bool) -> None:
    """Where credentials come first, a worker does."""
    lane, timer = Lane(replace(SMALL, queue=0)), CallTimer()
    reader, streams = Reader(timer, timeout_s=1.0, most=4), Streams(timer, most=4, idle_s=1.0)
    interceptor = AdmissionInterceptor(
        {"recsys.v1.RankingService": lane}, reader=reader, streams=streams, at_once=at_once
    )
    inner: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: request, request_deserializer=bytes)

    def pool() -> object:
        handler: Any = interceptor.intercept_service(lambda call: inner, Details())  # type: ignore[arg-type]  # as gRPC's
        return getattr(handler.stream_unary, "experimental_thread_pool", None)

    try:
        assert pool() is None
        with lane.enter(long()):
            assert isinstance(pool(), AtOnce) == at_once
        assert pool() is None
    finally:
        timer.stop()


def test_what_is_done_at_once_is_done_when_it_was_submitted() -> None:
    pool = AtOnce(1)
    assert pool.submit(threading.get_ident).result(0) == threading.get_ident()
    assert isinstance(pool.submit(lambda: 1 / 0).exception(0), ZeroDivisionError)
