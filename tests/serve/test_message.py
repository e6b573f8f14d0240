"""Calls that are begun and not finished: others do not notice, and they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from recsys.errors import InvalidInput, Overloaded
from recsys.serve import Server, ServerConfig
from recsys.types import User
from tests.serve.conftest import World
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore

SERVING = health_pb2.HealthCheckResponse.SERVING
RANK = "/recsys.v1.RankingService/RankItems"
CHECK = "/grpc.health.v1.Health/Check"


class Rude:
    """Connections that begin calls and send no message."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._done = threading.Event()
        self._channels: list[grpc.Channel] = []

    def begin(self, method: str, calls: int) -> list[grpc.Future]:
        # An argument of its own: gRPC shares one connection among channels that are made alike.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(self._target, options)
        self._channels.append(channel)
        return [channel.stream_unary(method).future(self._never()) for _ in range(calls)]

    def _never(self) -> Iterator[bytes]:
        self._done.wait(60)
        yield from ()

    def close(self) -> None:
        self._done.set()
        for channel in self._channels:
            channel.close()


@pytest.fixture
def rude() -> Iterator[Callable[[World], Rude]]:
    made: list[Rude] = []

    def make(world: World) -> Rude:
        made.append(Rude(world.target))
        return made[-1]

    yield make
    for each in made:
        each.close()


def check(channel: grpc.Channel) -> int:
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20).status


def codes(calls: list[grpc.Future]) -> set[grpc.StatusCode]:
    return {call.code() for call in calls if call.done()}


def test_one_connection_holds_half_and_others_go_on(make_world, rude) -> None:
    world = make_world(max_unread=8)
    held = rude(world).begin(RANK, 95)
    for _ in range(5):
        assert len(world.client.rank_items(User(), ["item-1"]).items) == 1
        assert check(world.channel) == SERVING
    refused = [call for call in held if call.done()]
    assert len(refused) <= 95 - 4
    assert codes(held) <= {grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_many_connections_hold_no_more_than_there_is_and_health_goes_on(make_world, rude) -> None:
    world = make_world(max_unread=8, message_timeout_s=1.0)
    several = rude(world)
    for _ in range(6):
        several.begin(RANK, 60)
    assert check(world.channel) == SERVING
    # What they hold is given back, whatever they do.
    end = time.monotonic() + 30
    while True:
        try:
            assert len(world.client.rank_items(User(), ["item-1"], timeout_s=20).items) == 1
            return
        except Overloaded:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_message_that_does_not_come_ends_the_call(make_world, rude) -> None:
    world = make_world(message_timeout_s=0.2)
    (held,) = rude(world).begin(RANK, 1)
    with pytest.raises(grpc.RpcError) as caught:
        held.result(timeout=30)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert not world.server.busy


def test_a_call_without_a_message_is_told_so(world: World) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        world.channel.stream_unary(RANK)(iter(()), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_probes_that_send_nothing_do_not_silence_health(make_world, rude) -> None:
    world = make_world(health_port=0)
    held = rude(world).begin(CHECK, 50)
    assert check(world.channel) == SERVING
    with grpc.insecure_channel(f"127.0.0.1:{world.server.health_port}") as door:
        assert check(door) == SERVING
    for call in held:
        with pytest.raises(grpc.RpcError):
            call.result(timeout=30)
    assert codes(held) <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}


def test_idle_reflection_streams_end_and_free_their_threads(world: World) -> None:
    done = threading.Event()

    def never() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        done.wait(60)
        yield from ()

    stub = reflection_pb2_grpc.ServerReflectionStub(world.channel)
    idle = [stub.ServerReflectionInfo(never()) for _ in range(4)]
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([ask]), timeout=40)
    assert answer.list_services_response.service
    done.set()
    for call in idle:
        call.cancel()


def test_the_second_port_knows_health_alone_and_follows_it() -> None:
    shelf = FakeShelf(FakeEngine())
    server = Server(ServerConfig(port=0, health_port=0, lame_duck_s=0.0), shelf=shelf, store=FakeStore())
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.health_port}") as door:
            assert check(door) == health_pb2.HealthCheckResponse.NOT_SERVING
            server.load()
            assert check(door) == SERVING
            with pytest.raises(grpc.RpcError) as caught:
                door.unary_unary(RANK)(b"", timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            watch = health_pb2_grpc.HealthStub(door).Watch(health_pb2.HealthCheckRequest(), timeout=30)
            assert next(watch).status == SERVING
            server.stop()
            assert [update.status for update in _until_it_ends(watch)][:1] == [
                health_pb2.HealthCheckResponse.NOT_SERVING
            ]
    finally:
        server.stop()


def _until_it_ends(watch: Iterator[health_pb2.HealthCheckResponse]) -> Iterator[health_pb2.HealthCheckResponse]:
    try:
        yield from watch
    except grpc.RpcError:
        return


def test_a_taken_health_port_is_a_clear_error() -> None:
    with Server(ServerConfig(port=0, lame_duck_s=0.0), shelf=FakeShelf(FakeEngine()), store=FakeStore()) as server:
        config = ServerConfig(port=0, health_port=server.port)
        with pytest.raises(InvalidInput, match="health_port"):
            Server(config, shelf=FakeShelf(), store=FakeStore())


@pytest.mark.parametrize(
    "wrong",
    [{"health_port": 70000}, {"message_timeout_s": 0}, {"max_unread": 0}, {"max_streams": 0}, {"stream_idle_s": -1}],
)
def test_the_limits_are_sensible(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        ServerConfig(**wrong)  # type: ignore[arg-type]  # wrong on purpose
