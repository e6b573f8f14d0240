"""Callers. `saturate` keeps a few of them busy and finds the most a server answers; `offer` sends at moments fixed
beforehand, whatever the server does, and measures each answer from the moment it should have been asked for.

A caller that waits for its answer before asking again is slowed down by a slow server and so leaves out the very calls
that would have waited longest (Tene, "How NOT to measure latency", names it coordinated omission): no latency is taken
from `saturate`. Requests are bytes already and answers stay bytes, for the callers share the machine with the server.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import numpy as np

T = TypeVar("T")

RANK = "/recsys.v1.RankingService/RankItems"
UNSENT = "UNSENT"
"""A call whose moment came while `max_in_flight` others were still out."""

_HEAD_START_S = 0.05
_MAX_BYTES = 16 * 1024 * 1024

Call = Callable[[bytes, float], Awaitable[bytes]]
"""(request, timeout_s) -> answer"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """`latency_ms` of the calls that were answered, the others counted by status; `seconds` from first to last."""

    latency_ms: np.ndarray
    failed: Mapping[str, int]
    seconds: float

    @property
    def calls(self) -> int:
        """Calls that were due, answered or not."""
        return len(self.latency_ms) + sum(self.failed.values())

    @property
    def calls_per_s(self) -> float:
        """Answers a second."""
        return len(self.latency_ms) / self.seconds

    def percentile_ms(self, q: float) -> float:
        """The latency that `q` % of all calls kept to; infinite where more than the rest of them failed."""
        unanswered = np.full(self.calls - len(self.latency_ms), np.inf)
        return float(np.percentile(np.append(self.latency_ms, unanswered), q, method="higher"))


def joined(parts: Sequence[Traffic]) -> Traffic:
    """Several measurements as one, one after the other."""
    failed = sum((Counter(part.failed) for part in parts), Counter[str]())
    return Traffic(
        latency_ms=np.concatenate([part.latency_ms for part in parts]),
        failed=dict(failed),
        seconds=sum(part.seconds for part in parts),
    )


@dataclass(slots=True)
class _Log:
    latency_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)

    async def write(self, call: Call, request: bytes, due: float, timeout_s: float) -> None:
        try:
            await call(request, timeout_s)
        except grpc.aio.AioRpcError as error:
            self.failed[error.code().name] += 1
        else:
            self.latency_s.append(time.monotonic() - due)

    def traffic(self, seconds: float) -> Traffic:
        return Traffic(latency_ms=np.array(self.latency_s) * 1e3, failed=dict(self.failed), seconds=seconds)


def arrivals(rate_per_s: float, seconds: float, rng: np.random.Generator, *, least: int = 1) -> np.ndarray:
    """Moments in seconds, ascending: those of many callers who know nothing of each other (a Poisson process)."""
    count = max(int(rate_per_s * seconds), least)
    return np.cumsum(rng.exponential(1.0 / rate_per_s, count))


def offer(
    target: str, requests: Sequence[bytes], moments_s: np.ndarray, *, timeout_s: float, max_in_flight: int = 256
) -> Traffic:
    """Sends one of `requests` after the other at `moments_s` from now; at most `max_in_flight` at a time."""
    return asyncio.run(_with_channel(target, lambda call: _offer(call, requests, moments_s, timeout_s, max_in_flight)))


def saturate(target: str, requests: Sequence[bytes], *, callers: int, seconds: float, timeout_s: float) -> Traffic:
    """`callers` ask again as soon as they are answered, for `seconds`; every call under way then is waited for."""
    return asyncio.run(_with_channel(target, lambda call: _saturate(call, requests, callers, seconds, timeout_s)))


def ask(target: str, request: bytes, *, timeout_s: float) -> bytes:
    """One answer. Raises grpc.aio.AioRpcError."""
    return asyncio.run(_with_channel(target, lambda call: call(request, timeout_s)))


async def _with_channel(target: str, work: Callable[[Call], Awaitable[T]]) -> T:
    """`work` with a connected channel of its own."""
    options = [("grpc.max_receive_message_length", _MAX_BYTES), ("grpc.max_send_message_length", _MAX_BYTES)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        await channel.channel_ready()
        method: Any = channel.unary_unary(
            RANK
        )  # without serializers it takes and gives bytes, unlike what its stub says

        async def call(request: bytes, timeout_s: float) -> bytes:
            return bytes(await method(request, timeout=timeout_s))

        return await work(call)


async def _offer(
    call: Call, requests: Sequence[bytes], moments_s: np.ndarray, timeout_s: float, max_in_flight: int
) -> Traffic:
    log, out, start = _Log(), set[asyncio.Task[None]](), time.monotonic() + _HEAD_START_S
    for moment_s, request in zip(moments_s, itertools.cycle(requests), strict=False):
        due = start + float(moment_s)
        await asyncio.sleep(max(due - time.monotonic(), 0.0))
        if len(out) >= max_in_flight:
            log.failed[UNSENT] += 1
            continue
        task = asyncio.create_task(log.write(call, request, due, timeout_s))
        out.add(task)
        task.add_done_callback(out.discard)
    await asyncio.gather(*out)
    return log.traffic(time.monotonic() - start)


async def _saturate(call: Call, requests: Sequence[bytes], callers: int, seconds: float, timeout_s: float) -> Traffic:
    log, supply, start = _Log(), itertools.cycle(requests), time.monotonic()

    async def caller() -> None:
        while (now := time.monotonic()) < start + seconds:
            await log.write(call, next(supply), now, timeout_s)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return log.traffic(time.monotonic() - start)
