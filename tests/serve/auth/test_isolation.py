"""Tenants do not meet: whatever one asks, in whatever way, nothing of another comes back, nor into a log."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc
import pytest
import structlog
from google.protobuf.message import Message

from recsys.serve.access import SCOPES
from recsys.serve.log import configure_logging
from recsys.types import Event, Item
from recsys.v1 import admin_service_pb2 as admin_pb
from recsys.v1 import ingest_service_pb2 as ingest_pb
from recsys.v1 import memory_service_pb2 as memory_pb
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1 import types_pb2 as pb
from tests.serve.auth.conftest import Keep, MakeKeep
from tests.serve.fake import FakeEngine

TENANTS = ("shop", "mall", "fair")
NUM_USERS, NUM_ITEMS = 12, 20
CI, FULL = 500, 10_000


def canary(tenant: str) -> str:
    """Stands in what is a tenant's own: ids of its own items, titles, types of events, names of figures."""
    return f"CANARY{tenant[::-1]}"


def engine(tenant: str) -> FakeEngine:
    """Users, items, snapshots and requests have the same names at every tenant: all of them can be guessed."""
    mark = canary(tenant)
    ids = [*(f"item-{n}" for n in range(NUM_ITEMS)), *(f"own-{n}-{mark}" for n in range(NUM_ITEMS))]
    return FakeEngine(
        catalogue={item_id: Item(item_id=item_id, title=f"Title {mark}") for item_id in ids},
        memory={
            f"user-{n}": tuple(
                Event(user_id=f"user-{n}", item_id=item_id, event_type=f"type-{mark}", timestamp=1.6e9)
                for item_id in ids[n::7]
            )
            for n in range(NUM_USERS)
        },
        metrics={f"figure-{mark}": 0.5},
    )


@pytest.fixture
def logging() -> Iterator[None]:
    """The server's own form of logs, at the most talkative level."""
    before = structlog.get_config()
    configure_logging(level=10)
    structlog.configure(cache_logger_on_first_use=False)  # other tests look at logs in their own way
    yield
    structlog.configure(**before)


@dataclass
class Client:
    """One tenant's caller: knows the names of the others' things, and asks for them, too."""

    tenant: str
    channel: grpc.Channel
    metadata: list[tuple[str, str]]
    rng: random.Random
    learnt: dict[str, list[str]] = field(default_factory=lambda: {"ranking": [], "page": [], "request": []})

    def ask(self, others: list[Client]) -> str:
        """One random call; what came back, errors and their details included, as text."""
        make = self.rng.choice(MAKERS)
        method, request, response = make(self, self.rng.choice(others))
        try:
            if method.endswith("StreamEvents"):
                call = self.channel.stream_stream(method)(
                    iter([request.SerializeToString()]), timeout=30, metadata=self.metadata
                )
                return "".join(str(response.FromString(each)) for each in call)
            if method.endswith("ExportUser"):
                call = self.channel.unary_stream(method)(
                    request.SerializeToString(), timeout=30, metadata=self.metadata
                )
                return "".join(str(response.FromString(each)) for each in call)
            data = self.channel.unary_unary(method)(request.SerializeToString(), timeout=30, metadata=self.metadata)
        except grpc.RpcError as error:
            return f"{error.details()} {error.trailing_metadata()}"
        answer = response.FromString(data)
        for name, kind in (("ranking_id", "ranking"), ("next_page_token", "page")):
            if value := getattr(answer, name, ""):
                self.learnt[kind].append(value)
        return str(answer)

    @property
    def user(self) -> str:
        return f"user-{self.rng.randrange(NUM_USERS)}"

    @property
    def item(self) -> str:
        return f"item-{self.rng.randrange(NUM_ITEMS)}"

    def token(self, other: Client, kind: str) -> str:
        known = self.rng.choice((self, other)).learnt[kind]
        return self.rng.choice(known) if known else ""


Made = tuple[str, Message, type[Message]]
EXPORTED = memory_pb.ExportUserResponse


def _rank(own: Client, other: Client) -> Made:
    request = ranking_pb.RankItemsRequest(
        user=ranking_pb.UserContext(user_id=own.user),
        candidates=[ranking_pb.Candidate(item_id=own.item) for _ in range(3)],
        include_parts=True,
    )
    return "/recsys.v1.RankingService/RankItems", request, ranking_pb.RankItemsResponse


def _recommend(own: Client, other: Client) -> Made:
    # The same arguments for all: another's page token is right in everything but whose it is.
    request = ranking_pb.RecommendItemsRequest(
        user=ranking_pb.UserContext(user_id="user-1"), page_size=3, page_token=own.token(other, "page")
    )
    return "/recsys.v1.RankingService/RecommendItems", request, ranking_pb.RecommendItemsResponse


def _explain(own: Client, other: Client) -> Made:
    request = ranking_pb.ExplainRankingRequest(ranking_id=own.token(other, "ranking"))
    return "/recsys.v1.RankingService/ExplainRanking", request, ranking_pb.ExplainRankingResponse


def _encode(own: Client, other: Client) -> Made:
    request = ranking_pb.EncodeTextsRequest(texts=[own.item])
    return "/recsys.v1.RankingService/EncodeTexts", request, ranking_pb.EncodeTextsResponse


def _event(own: Client) -> pb.Event:
    return pb.Event(user_id=own.user, item_id=own.item, event_type=f"type-{canary(own.tenant)}")


def _write(own: Client, other: Client) -> Made:
    request = ingest_pb.WriteEventsRequest(events=[_event(own)], request_id=f"r{own.rng.randrange(50)}")
    return "/recsys.v1.IngestService/WriteEvents", request, ingest_pb.WriteEventsResponse


def _stream(own: Client, other: Client) -> Made:
    request = ingest_pb.StreamEventsRequest(events=[_event(own)], request_id=f"s{own.rng.randrange(50)}")
    return "/recsys.v1.IngestService/StreamEvents", request, ingest_pb.StreamEventsResponse


def _write_items(own: Client, other: Client) -> Made:
    item = pb.Item(item_id=own.item, title=f"Title {canary(own.tenant)}")
    return (
        "/recsys.v1.IngestService/WriteItems",
        ingest_pb.WriteItemsRequest(items=[item]),
        ingest_pb.WriteItemsResponse,
    )


def _memories(own: Client, other: Client) -> Made:
    request = memory_pb.ListMemoriesRequest(user_id=own.user, page_size=2, query_text=own.rng.choice(("", "own")))
    return "/recsys.v1.MemoryService/ListMemories", request, memory_pb.ListMemoriesResponse


def _export(own: Client, other: Client) -> Made:
    return "/recsys.v1.MemoryService/ExportUser", memory_pb.ExportUserRequest(user_id=own.user), EXPORTED


def _delete(own: Client, other: Client) -> Made:
    # The last one only: all others would be gone after the first hundred calls.
    request = memory_pb.DeleteUserRequest(user_id=f"user-{NUM_USERS - 1}")
    return "/recsys.v1.MemoryService/DeleteUser", request, memory_pb.DeleteUserResponse


def _state(own: Client, other: Client) -> Made:
    return (
        "/recsys.v1.AdminService/GetServingState",
        admin_pb.GetServingStateRequest(),
        admin_pb.GetServingStateResponse,
    )


def _snapshots(own: Client, other: Client) -> Made:
    return "/recsys.v1.AdminService/ListSnapshots", admin_pb.ListSnapshotsRequest(), admin_pb.ListSnapshotsResponse


def _activate(own: Client, other: Client) -> Made:
    request = admin_pb.ActivateSnapshotRequest(snapshot_id="s1")
    return "/recsys.v1.AdminService/ActivateSnapshot", request, admin_pb.ActivateSnapshotResponse


def _rollback(own: Client, other: Client) -> Made:
    return (
        "/recsys.v1.AdminService/RollbackSnapshot",
        admin_pb.RollbackSnapshotRequest(),
        admin_pb.RollbackSnapshotResponse,
    )


MAKERS: list[Callable[[Client, Client], Made]] = [
    *(_rank, _recommend, _recommend, _explain, _encode, _write, _stream, _write_items),
    *(_memories, _export, _delete, _state, _snapshots, _activate, _rollback),
]


def test_every_method_is_asked() -> None:
    client = Client("shop", None, [], random.Random(0))  # type: ignore[arg-type]  # nothing is sent
    asked = {make(client, client)[0] for make in MAKERS}
    assert asked == {method for method in SCOPES if method.startswith("/recsys.")}


@pytest.mark.parametrize("operations", [CI, pytest.param(FULL, marks=pytest.mark.full)])
def test_no_operation_brings_anything_of_another_tenant(
    make_keep: MakeKeep, logging: None, capsys: pytest.CaptureFixture[str], operations: int
) -> None:
    keep, seed = make_keep({tenant: engine(tenant) for tenant in TENANTS}), operations
    clients = _clients(keep, random.Random(seed))
    seen = dict.fromkeys(TENANTS, 0)
    for _ in range(operations):
        own = clients[0].rng.choice(clients)
        answer = own.ask([each for each in clients if each is not own])
        foreign = [tenant for tenant in TENANTS if tenant != own.tenant and canary(tenant) in answer]
        assert foreign == [], f"seed {seed}: {own.tenant} was told {answer}"
        seen[own.tenant] += canary(own.tenant) in answer
    assert min(seen.values()) > operations / 20, "the answers were full of what is to be kept apart"
    for client in clients:
        client.channel.close()
    for tenant, store in keep.stores.items():
        held = repr([row for _, row in store.rows])
        assert canary(tenant) in held
        assert not any(canary(other) in held for other in TENANTS if other != tenant)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > operations / 20, "the log was talkative"
    assert not any("CANARY" in line or "user-" in line for line in lines)
    assert all(json.loads(line) for line in lines)


def _clients(keep: Keep, rng: random.Random) -> list[Client]:
    return [
        Client(tenant, grpc.insecure_channel(keep.target), [("authorization", f"Bearer {keep.given[tenant]}")], rng)
        for tenant in TENANTS
    ]
