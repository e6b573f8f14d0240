"""Both clients against a real server: the same methods, typed errors, retries, deadlines, a light import."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from recsys.client import AsyncRecsysClient, RecsysClient
from recsys.errors import DeadlineExceeded, InvalidInput, NotFound, Unavailable
from recsys.serve import Server
from recsys.types import Event, Item, User
from recsys.v1 import ingest_service_pb2 as ingest_pb
from tests.serve.conftest import QUICK
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore

EVENT = Event(user_id="u", item_id="item-3", timestamp=1.7e9)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(QUICK, shelf=FakeShelf(FakeEngine()), store=FakeStore()) as server:
        yield server


def target(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


def methods(kind: type) -> dict[str, inspect.Signature]:
    return {name: inspect.signature(getattr(kind, name)) for name in vars(kind) if not name.startswith("_")}


def test_the_twins_have_the_same_methods() -> None:
    blocking, awaited = methods(RecsysClient), methods(AsyncRecsysClient)
    assert blocking.keys() == awaited.keys()
    for name, signature in blocking.items():
        assert awaited[name].parameters == signature.parameters
    assert inspect.signature(RecsysClient).parameters == inspect.signature(AsyncRecsysClient).parameters
    public = [getattr(AsyncRecsysClient, name) for name in awaited if name != "from_environment"]
    assert all(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in public)


async def test_the_async_client_does_it_all(server: Server) -> None:
    async with AsyncRecsysClient(target(server), timeout_s=10) as client:
        await client.wait_ready(10)
        assert (await client.write_events([EVENT])).accepted == 1
        assert (await client.write_items([Item(item_id="new", title="N")])).accepted == 1
        ranking = await client.rank_items(User(user_id="u"), ["item-1", "item-3"], top_k=1)
        assert [(row.item_id, row.score) for row in ranking.items] == [("item-3", 101.0)]
        (why,) = await client.explain(ranking.ranking_id)
        assert why.base + sum(why.contributions.values()) == why.score
        pages = [page async for page in client.recommend_pages(User(user_id="u"), page_size=15)]
        assert [len(page.items) for page in pages] == [15, 15, 10]
        assert (await client.recommend_items(User(), categories=["odd"])).items[0].item_id == "item-1"
        assert (await client.encode_texts(["abc"])).tolist() == [[3.0, 1.0]]
        assert (await client.list_memories("u")).memories[0].event == EVENT
        assert (await client.serving_state()).num_items == 41
        assert len((await client.list_snapshots()).snapshots) == 1
        assert (await client.activate_snapshot("s1")).snapshot_id == "s1"
        with pytest.raises(InvalidInput, match="top_k"):
            await client.rank_items(User(), ["item-1"], top_k=-1)
        with pytest.raises(NotFound, match="s9"):
            await client.activate_snapshot("s9")


async def test_the_async_client_says_when_nobody_is_there() -> None:
    async with AsyncRecsysClient("127.0.0.1:1", timeout_s=5) as client:
        with pytest.raises(Unavailable):
            await client.serving_state()
        with pytest.raises(DeadlineExceeded, match="not ready"):
            await client.wait_ready(timeout_s=0.1)


def test_the_client_says_when_nobody_is_there() -> None:
    with RecsysClient("127.0.0.1:1", timeout_s=5) as client:
        with pytest.raises(Unavailable):
            client.serving_state()
        with pytest.raises(DeadlineExceeded, match="not ready"):
            client.wait_ready(timeout_s=0.1)


def test_wait_ready_waits_for_the_snapshot() -> None:
    server = Server(QUICK, shelf=FakeShelf(FakeEngine()), store=FakeStore())
    server.start()
    with RecsysClient(target(server), timeout_s=10) as client:
        with pytest.raises(DeadlineExceeded, match="not ready"):
            client.wait_ready(timeout_s=0.1)
        loading = threading.Timer(0.1, server.load)
        loading.start()
        client.wait_ready(timeout_s=20)
        loading.join()
    server.stop()


def test_every_call_has_a_deadline() -> None:
    go_on = threading.Event()
    stuck: list[bool] = []
    engine = FakeEngine(before=lambda: stuck and go_on.wait(20))
    with (
        Server(QUICK, shelf=FakeShelf(engine), store=FakeStore()) as server,
        RecsysClient(target(server)) as client,
    ):
        client.rank_items(User(), ["item-1"], timeout_s=10)
        stuck.append(True)
        with pytest.raises(DeadlineExceeded):
            client.rank_items(User(), ["item-1"])
        go_on.set()


class Flaky(grpc.GenericRpcHandler):
    """UNAVAILABLE as often as told, then an answer; remembers what it was asked."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked: list[bytes] = []
        self.tokens: list[object] = []

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.asked.append(request)
            self.tokens.append(dict(context.invocation_metadata()).get("authorization"))
            if len(self.asked) <= self.failures:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def flaky() -> Iterator[tuple[Flaky, RecsysClient]]:
    from concurrent.futures import ThreadPoolExecutor

    handler, server = Flaky(failures=2), grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with RecsysClient(f"127.0.0.1:{port}", timeout_s=10, token="t0k") as client:
        yield handler, client
    server.stop(0)


def test_writes_are_retried_under_one_request_id(flaky: tuple[Flaky, RecsysClient]) -> None:
    handler, client = flaky
    client.write_events([EVENT])
    assert len(handler.asked) == 3
    ids = {ingest_pb.WriteEventsRequest.FromString(request).request_id for request in handler.asked}
    assert len(ids) == 1
    assert ids != {""}
    client.write_events([EVENT], request_id="mine")
    assert ingest_pb.WriteEventsRequest.FromString(handler.asked[-1]).request_id == "mine"
    assert set(handler.tokens) == {"Bearer t0k"}


def test_activating_is_not_retried(flaky: tuple[Flaky, RecsysClient]) -> None:
    handler, client = flaky
    with pytest.raises(Unavailable, match="going down"):
        client.activate_snapshot("s1")
    assert len(handler.asked) == 1


def test_a_request_beyond_the_message_limit_is_the_callers_mistake(server: Server) -> None:
    items = [Item(item_id=str(i), description="x" * 8000) for i in range(1000)]
    with RecsysClient(target(server)) as client, pytest.raises(InvalidInput, match="larger than max"):
        client.write_items(items)


@pytest.mark.parametrize(("values", "field"), [({"target": ""}, "target"), ({"timeout_s": 0}, "timeout_s")])
def test_a_client_needs_a_target_and_a_deadline(values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        RecsysClient(**({"target": "127.0.0.1:1"} | values))


def test_the_client_imports_nothing_of_the_engine() -> None:
    heavy = {"torch", "transformers", "faiss", "lightgbm", "polars", "pandas", "scipy", "sklearn", "sqlalchemy"}
    heavy |= {"pyarrow", "jaxtyping", "structlog", "ray", "recsys.serve", "recsys.recommend"}
    code = f"import recsys.client, sys; print(sorted({heavy} & sys.modules.keys()))"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
