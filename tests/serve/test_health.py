"""Health before loading, after it, while every worker is busy, and in the drain; reflection by flag; TLS; SIGTERM."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from recsys.client import RecsysClient, TlsConfig
from recsys.errors import DamagedSnapshot, InvalidInput, NotFound, RecsysError, Unavailable
from recsys.serve import LaneConfig, Server, ServerConfig
from recsys.types import User
from tests.serve.conftest import World
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
)
NAMES = ("", *(f"recsys.v1.{name}Service" for name in ("Ranking", "Memory", "Ingest", "Admin")))


def health(channel: grpc.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


def test_ready_means_loaded_and_warmed(make_world) -> None:
    world = make_world(load=False)
    assert {health(world.channel, name) for name in NAMES} == {NOT_SERVING}
    assert health(world.channel, "recsys.live") == SERVING
    with pytest.raises(Unavailable):
        world.client.serving_state()
    world.server.load()
    assert {health(world.channel, name) for name in NAMES} == {SERVING}
    world.client.wait_ready(timeout_s=10)


def test_without_a_sound_snapshot_loading_fails_and_leaves_nothing_open() -> None:
    for shelf, kind in ((FakeShelf(), NotFound), (FakeShelf(FakeEngine(), damaged=["s1"]), DamagedSnapshot)):
        store = FakeStore()
        with pytest.raises(kind), Server(ServerConfig(port=0), shelf=shelf, store=store):
            pass
        assert store.closed


def test_a_damaged_current_snapshot_falls_back_to_a_sound_one(make_world) -> None:
    world = make_world(FakeEngine(), FakeEngine(snapshot_id="s0", created=1e9), damaged=("s1",))
    assert world.client.serving_state().serving.snapshot_id == "s0"


def test_health_and_reflection_answer_while_all_workers_are_busy(make_world) -> None:
    busy, go_on = threading.Semaphore(0), threading.Event()
    stuck: list[bool] = []

    def hold() -> None:
        if stuck:
            busy.release()
            assert go_on.wait(20)

    one = LaneConfig(workers=2, queue=3, default_timeout_s=20, max_timeout_s=20)
    world = make_world(FakeEngine(before=hold), work=one, max_ranking_rows=10)
    stuck.append(True)
    asking = [threading.Thread(target=world.client.rank_items, args=(User(), ["item-1"])) for _ in range(5)]
    for thread in asking:
        thread.start()
    try:
        assert busy.acquire(timeout=10)
        assert busy.acquire(timeout=10)
        assert health(world.channel, "") == SERVING
        assert "recsys.v1.RankingService" in reflected(world)
        assert world.client.serving_state().num_items == 40
    finally:
        go_on.set()
        for thread in asking:
            thread.join(20)


def test_watchers_see_the_drain_and_calls_in_flight_end(make_world) -> None:
    inside, go_on = threading.Event(), threading.Event()
    stuck: list[bool] = []

    def hold() -> None:
        if stuck:
            inside.set()
            assert go_on.wait(20)

    world = make_world(FakeEngine(before=hold), lame_duck_s=0.2)
    stuck.append(True)
    watch = health_pb2_grpc.HealthStub(world.channel).Watch(health_pb2.HealthCheckRequest(service=""), timeout=20)
    assert next(watch).status == SERVING
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(len(world.client.rank_items(User(), ["item-1"]).items)))
    asking.start()
    assert inside.wait(10)
    stopping = threading.Thread(target=world.server.stop)
    stopping.start()
    assert next(watch).status == NOT_SERVING
    assert not world.store.closed
    go_on.set()
    stopping.join(20)
    asking.join(20)
    assert answers == [1]
    assert world.store.closed


def test_live_stays_serving_in_the_drain(make_world) -> None:
    world = make_world(lame_duck_s=2.0, drain_s=60.0)
    watch = health_pb2_grpc.HealthStub(world.channel).Watch(health_pb2.HealthCheckRequest(service=""), timeout=20)
    assert next(watch).status == SERVING
    stopping = threading.Thread(target=world.server.stop)
    stopping.start()
    assert next(watch).status == NOT_SERVING
    assert health(world.channel, "recsys.live") == SERVING
    stopping.join(20)
    assert not stopping.is_alive(), "an open watch must not hold up the drain"


def reflected(world: World) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(world.channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([ask]), timeout=10)
    return {service.name for service in answer.list_services_response.service}


def test_reflection_is_on_by_default_and_can_be_off(make_world) -> None:
    assert set(NAMES[1:]) <= reflected(make_world())
    with pytest.raises(grpc.RpcError) as caught:
        reflected(make_world(reflection=False))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_plain_text_beyond_loopback_must_be_spelled_out(host: str) -> None:
    with pytest.raises(InvalidInput, match="host"):
        ServerConfig(host=host)
    assert ServerConfig(host=host, insecure=True).host == host


def test_a_taken_port_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidInput, match=r"port=\d+: cannot listen"):
            Server(ServerConfig(port=taken.getsockname()[1]), shelf=FakeShelf(), store=FakeStore())


def test_tls(make_world, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [*MAKE_CERTIFICATE.split(), "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    world = make_world(host="localhost", tls_key_path=key, tls_certificate_path=certificate)
    with RecsysClient(f"localhost:{world.server.port}", tls=TlsConfig(ca_path=certificate), timeout_s=10) as client:
        assert client.serving_state().num_items == 40
    with RecsysClient(f"localhost:{world.server.port}", timeout_s=10) as plain, pytest.raises(Unavailable):
        plain.serving_state()
    with pytest.raises(InvalidInput, match="ca_path"):
        TlsConfig(ca_path=tmp_path / "none.pem").credentials()


SERVE = """
import sys
from recsys.serve import Server, ServerConfig
from recsys.serve.log import configure_logging
sys.path.insert(0, "tests/serve")
from fake import FakeEngine, FakeShelf, FakeStore
configure_logging()
store = FakeStore()
Server(ServerConfig(port=0, lame_duck_s=0.1), shelf=FakeShelf(FakeEngine()), store=store).run(
    ready=lambda port: print(port, flush=True)
)
print("closed", store.closed)
"""


def test_sigterm_drains_and_closes_the_store() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        with RecsysClient(f"127.0.0.1:{int(process.stdout.readline())}", timeout_s=10) as client:
            client.wait_ready(10)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out.strip()) == (0, "closed True")
    assert '"event": "draining"' in err


def test_a_call_that_outlasts_the_drain_is_told(make_world) -> None:
    """`recsys serve` then ends the process, for Python would wait for the thread."""
    inside, go_on = threading.Event(), threading.Event()
    stuck: list[bool] = []

    def hold() -> None:
        if stuck:
            inside.set()
            assert go_on.wait(20)

    world = make_world(FakeEngine(before=hold), lame_duck_s=0.0, drain_s=0.2)
    assert not world.server.busy
    stuck.append(True)
    refused: list[RecsysError] = []

    def ask() -> None:
        try:
            world.client.rank_items(User(), ["item-1"])
        except RecsysError as error:
            refused.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert inside.wait(10)
    world.server.stop()
    assert world.server.busy
    go_on.set()
    asking.join(20)
    assert len(refused) == 1
