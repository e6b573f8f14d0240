"""The callers of the serving benchmark, against servers whose answers are known."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from benchmarks._traffic import UNSENT, Traffic, _offer, arrivals, ask, joined, offer, saturate

TIMEOUT_S = 20.0


@contextmanager
def serving(answer: Callable[[bytes, grpc.ServicerContext], bytes], threads: int = 4) -> Iterator[str]:
    """The address of a server whose RankItems is `answer`."""
    server = grpc.server(ThreadPoolExecutor(threads))
    method = grpc.unary_unary_rpc_method_handler(answer)
    handlers = grpc.method_handlers_generic_handler("recsys.v1.RankingService", {"RankItems": method})
    server.add_generic_rpc_handlers([handlers])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def traffic(*latency_ms: float, **failed: int) -> Traffic:
    return Traffic(latency_ms=np.array(latency_ms), failed=failed, seconds=2.0)


def test_requests_go_out_in_turn_and_come_back_as_they_are() -> None:
    seen: list[bytes] = []

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(request)
        return request + b"!"

    with serving(answer, threads=1) as target:
        assert ask(target, b"once", timeout_s=TIMEOUT_S) == b"once!"
        found = offer(target, [b"a", b"b"], np.linspace(0.0, 0.2, 5), timeout_s=TIMEOUT_S)
    assert sorted(seen[1:]) == [b"a", b"a", b"a", b"b", b"b"]
    assert (len(found.latency_ms), found.failed) == (5, {})


def test_latency_counts_from_the_moment_a_call_was_due() -> None:
    """Four calls due at once at a server that takes one at a time wait for each other, and the wait counts."""
    step_s = 0.05

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(step_s)
        return b""

    with serving(answer, threads=1) as target:
        found = offer(target, [b""], np.zeros(4), timeout_s=TIMEOUT_S)
    latency_s = np.sort(found.latency_ms) / 1e3
    assert (latency_s >= step_s * np.arange(1, 5)).all()


def test_a_slow_server_delays_no_call() -> None:
    """Every call is out before any is answered: the callers wait for nobody."""
    arrived, count = threading.Event(), 6
    inside: list[bytes] = []

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        inside.append(request)
        if len(inside) == count:
            arrived.set()
        assert arrived.wait(TIMEOUT_S)
        return b""

    with serving(answer, threads=count) as target:
        found = offer(target, [b""], np.linspace(0.0, 0.1, count), timeout_s=TIMEOUT_S)
    assert len(found.latency_ms) == count


def test_no_more_than_max_in_flight_are_out() -> None:
    async def call(request: bytes, timeout_s: float) -> bytes:
        for _ in range(100):  # turns of the loop, not time: all five are due long before the first is answered
            await asyncio.sleep(0)
        return b""

    found = asyncio.run(_offer(call, [b""], np.zeros(5), TIMEOUT_S, 3))
    assert (len(found.latency_ms), found.failed) == (3, {UNSENT: 2})


def test_refusals_are_counted_by_status() -> None:
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"bad":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return b""

    with serving(answer) as target:
        found = offer(target, [b"good", b"bad"], np.zeros(6), timeout_s=TIMEOUT_S)
    assert (len(found.latency_ms), found.failed) == (3, {"RESOURCE_EXHAUSTED": 3})


def test_saturating_callers_are_as_many_as_asked_for() -> None:
    lock, inside, most = threading.Lock(), 0, 0

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1
        return b""

    with serving(answer, threads=8) as target:
        found = saturate(target, [b""], callers=3, seconds=0.5, timeout_s=TIMEOUT_S)
    assert most <= 3
    assert found.calls == len(found.latency_ms) >= 3
    assert found.seconds >= 0.5


def test_percentiles_count_failures_as_never_answered() -> None:
    assert traffic(1.0, 2.0, 3.0, 4.0, 5.0).percentile_ms(50) == 3.0
    assert traffic(1.0, 2.0, 3.0, UNAVAILABLE=2).percentile_ms(50) == 3.0
    assert traffic(1.0, 2.0, UNAVAILABLE=3).percentile_ms(50) == np.inf
    assert traffic(1.0, 2.0, UNAVAILABLE=1).calls_per_s == 1.0


def test_joined_measurements_add_up() -> None:
    both = joined([traffic(1.0, UNAVAILABLE=1), traffic(2.0, 3.0, UNAVAILABLE=2, CANCELLED=1)])
    assert sorted(both.latency_ms) == [1.0, 2.0, 3.0]
    assert both.failed == {"UNAVAILABLE": 3, "CANCELLED": 1}
    assert (both.calls, both.calls_per_s) == (7, 0.75)


@pytest.mark.parametrize(("rate_per_s", "seconds", "calls"), [(100.0, 20.0, 2_000), (0.1, 2.0, 1)])
def test_arrivals_are_random_moments_at_a_rate(rate_per_s: float, seconds: float, calls: int) -> None:
    moments = arrivals(rate_per_s, seconds, np.random.default_rng(0))
    assert len(moments) == calls
    assert (np.diff(moments) > 0).all()
    if calls > 1:
        assert np.diff(moments).std() == pytest.approx(1.0 / rate_per_s, rel=0.1)
        assert moments[-1] == pytest.approx(seconds, rel=0.1)
