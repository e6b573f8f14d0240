"""Twice what the server can do, offered by a clock that waits for nobody."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from recsys.serve import LaneConfig
from recsys.types import User
from recsys.v1 import ranking_service_pb2 as pb
from tests.serve.fake import FakeEngine

WORKERS, TAKES_S, DEADLINE_S = 4, 0.1, 1.0
CAPACITY_PER_S = WORKERS / TAKES_S
SECONDS = 2.5
BODY = pb.RankItemsRequest(
    user=pb.UserContext(user_id="u"), candidates=[pb.Candidate(item_id="item-1")]
).SerializeToString()


@dataclass
class Outcome:
    """What became of the calls."""

    codes: Counter[grpc.StatusCode] = field(default_factory=Counter)
    refused_s: list[float] = field(default_factory=list)
    with_retry: int = 0


async def offer(target: str, calls_per_s: float) -> Outcome:
    outcome = Outcome()
    async with grpc.aio.insecure_channel(target) as channel:
        method = channel.unary_unary("/recsys.v1.RankingService/RankItems")
        await method(BODY, timeout=20)

        async def one() -> None:
            start_s = time.monotonic()
            try:
                await method(BODY, timeout=DEADLINE_S)
                outcome.codes[grpc.StatusCode.OK] += 1
            except grpc.aio.AioRpcError as error:
                outcome.codes[error.code()] += 1
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    outcome.refused_s.append(time.monotonic() - start_s)
                    outcome.with_retry += _retry_s(error) > 0

        begin_s, calls = time.monotonic(), []
        for number in range(int(calls_per_s * SECONDS)):
            await asyncio.sleep(begin_s + number / calls_per_s - time.monotonic())
            calls.append(asyncio.create_task(one()))
        await asyncio.gather(*calls)
    return outcome


def _retry_s(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has what is looked at
    retry = error_details_pb2.RetryInfo()
    assert status is not None
    assert any(detail.Unpack(retry) for detail in status.details)
    return retry.retry_delay.ToTimedelta().total_seconds()


async def test_twice_the_load_costs_the_refused_and_not_the_others(make_world) -> None:
    engine = FakeEngine(before=lambda: time.sleep(TAKES_S))
    lane = LaneConfig(workers=WORKERS, queue=64, default_timeout_s=1.0, max_timeout_s=10.0)
    world = make_world(engine, work=lane)
    outcome = await offer(world.target, 2 * CAPACITY_PER_S)
    good, refused = outcome.codes[grpc.StatusCode.OK], outcome.codes[grpc.StatusCode.RESOURCE_EXHAUSTED]
    offered = outcome.codes.total()
    assert good > 0.3 * CAPACITY_PER_S * SECONDS, outcome.codes
    assert refused > 0
    assert outcome.with_retry == refused
    # None of those refused waited as long as they had, and hardly any work was done for nobody.
    assert sorted(outcome.refused_s)[int(0.9 * refused)] < DEADLINE_S
    assert len(engine.asked) <= 1 + good + 0.05 * offered, outcome.codes
    # And right after it the server does as before.
    assert len(world.client.rank_items(User(), ["item-1"]).items) == 1
