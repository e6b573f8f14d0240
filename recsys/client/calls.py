"""The API as values: each function builds one call, request and reader of its response. Both clients run them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from recsys.client import results
from recsys.errors import RecsysError, Unavailable
from recsys.types import Candidate, Event, Explanation, Item, User
from recsys.v1 import admin_service_pb2 as admin_pb
from recsys.v1 import ingest_service_pb2 as ingest_pb
from recsys.v1 import memory_service_pb2 as memory_pb
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1 import types_pb2 as pb
from recsys.wire import values
from recsys.wire.status import from_status
from recsys.wire.values import building

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32

T = TypeVar("T")

# Writes wait for the disk, activating for a snapshot to load, explaining ranks anew without each event: their own
# deadlines, where the caller names none.
WRITE_TIMEOUT_S = 5.0
STREAM_TIMEOUT_S = 3600.0
EXPORT_TIMEOUT_S = 30.0
STREAM_EVENTS = "/recsys.v1.IngestService/StreamEvents"
EXPORT_USER = "/recsys.v1.MemoryService/ExportUser"
ACTIVATE_TIMEOUT_S = 60.0
EXPLAIN_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One unary call. `timeout_s` None takes the client's."""

    service: str
    method: str
    request: Message
    response: type[Message]
    read: Callable[[Any], T]
    timeout_s: float | None = None

    @property
    def path(self) -> str:
        return f"/recsys.v1.{self.service}/{self.method}"


def rank_items(
    user: User, candidates: Iterable[Candidate | str], top_k: int, include_parts: bool
) -> Call[results.RankedPage]:
    with building("request", "RankItems"):
        request = ranking_pb.RankItemsRequest(user=values.to_user(user), top_k=top_k, include_parts=include_parts)
        for index, each in enumerate(candidates):
            with building(f"candidates[{index}]", each):
                request.candidates.append(values.to_candidate(_candidate(each)))
    return Call("RankingService", "RankItems", request, ranking_pb.RankItemsResponse, _ranked)


def recommend_items(
    user: User,
    page_size: int,
    page_token: str,
    exclude: Iterable[str],
    categories: Iterable[str],
    include_seen: bool | None,
    include_parts: bool,
) -> Call[results.RankedPage]:
    with building("request", "RecommendItems"):
        request = ranking_pb.RecommendItemsRequest(
            user=values.to_user(user),
            page_size=page_size,
            page_token=page_token,
            exclude_item_ids=exclude,
            categories=categories,
            include_parts=include_parts,
        )
        if include_seen is not None:
            request.include_seen = include_seen
    return Call("RankingService", "RecommendItems", request, ranking_pb.RecommendItemsResponse, _recommended)


def explain(of: str | User, item_ids: Iterable[str], max_memories: int) -> Call[tuple[Explanation, ...]]:
    with building("request", "ExplainRanking"):
        request = ranking_pb.ExplainRankingRequest(item_ids=item_ids, max_memories=max_memories)
        if isinstance(of, User):
            request.user.CopyFrom(values.to_user(of))
        else:
            request.ranking_id = of
    response, timeout_s = ranking_pb.ExplainRankingResponse, EXPLAIN_TIMEOUT_S
    return Call("RankingService", "ExplainRanking", request, response, _explained, timeout_s)


def encode_texts(texts: Sequence[str]) -> Call[Float32[np.ndarray, "n D"]]:
    with building("texts", texts):
        request = ranking_pb.EncodeTextsRequest(texts=texts)
    return Call("RankingService", "EncodeTexts", request, ranking_pb.EncodeTextsResponse, _vectors)


def write_events(events: Iterable[Event], request_id: str) -> Call[results.Written]:
    with building("request_id", request_id):
        request = ingest_pb.WriteEventsRequest(request_id=request_id or str(uuid.uuid4()))
    for index, event in enumerate(events):
        with building(f"events[{index}]", event):
            request.events.append(values.to_event(event))
    return Call("IngestService", "WriteEvents", request, ingest_pb.WriteEventsResponse, _written, WRITE_TIMEOUT_S)


def stream_events(batch: Iterable[Event] | results.EventBatch) -> ingest_pb.StreamEventsRequest:
    """One batch of a stream."""
    events, request_id = (batch.events, batch.request_id) if isinstance(batch, results.EventBatch) else (batch, "")
    with building("request_id", request_id):
        request = ingest_pb.StreamEventsRequest(request_id=request_id or str(uuid.uuid4()))
    for index, event in enumerate(events):
        with building(f"events[{index}]", event):
            request.events.append(values.to_event(event))
    return request


def acknowledged(response: ingest_pb.StreamEventsResponse) -> results.Written:
    """That of one batch."""
    return results.Written(
        accepted=response.accepted_count,
        duplicates=response.duplicate_count,
        watermark=values.from_time(response.memory_watermark),
        request_id=response.request_id,
    )


def write_items(items: Iterable[Item], request_id: str) -> Call[results.Written]:
    with building("request_id", request_id):
        request = ingest_pb.WriteItemsRequest(request_id=request_id or str(uuid.uuid4()))
    for index, item in enumerate(items):
        with building(f"items[{index}]", item):
            request.items.append(values.to_item(item))
    return Call("IngestService", "WriteItems", request, ingest_pb.WriteItemsResponse, _written, WRITE_TIMEOUT_S)


def list_memories(user_id: str, query_text: str, page_size: int, page_token: str) -> Call[results.MemoryPage]:
    with building("request", "ListMemories"):
        request = memory_pb.ListMemoriesRequest(
            user_id=user_id, query_text=query_text, page_size=page_size, page_token=page_token
        )
    return Call("MemoryService", "ListMemories", request, memory_pb.ListMemoriesResponse, _memories)


def delete_user(user_id: str) -> Call[results.Erased]:
    with building("user_id", user_id):
        request = memory_pb.DeleteUserRequest(user_id=user_id)
    return Call("MemoryService", "DeleteUser", request, memory_pb.DeleteUserResponse, _erased, WRITE_TIMEOUT_S)


def export_user(user_id: str) -> memory_pb.ExportUserRequest:
    with building("user_id", user_id):
        return memory_pb.ExportUserRequest(user_id=user_id)


def exported(parts: Sequence[memory_pb.ExportUserResponse]) -> results.UserExport:
    """The messages of one export as one value."""
    times = (values.optional_time(part, "delete_time") for part in parts)
    return results.UserExport(
        events=tuple(
            results.HeldEvent(event=values.from_event(row.event), source=row.source)
            for part in parts
            for row in part.events
        ),
        rankings=tuple(
            results.HeldRanking(ranking_id=row.ranking_id, item_ids=tuple(row.item_ids))
            for part in parts
            for row in part.rankings
        ),
        erased_at=next((time for time in times if time is not None), None),
    )


def serving_state() -> Call[results.ServingState]:
    request = admin_pb.GetServingStateRequest()
    return Call("AdminService", "GetServingState", request, admin_pb.GetServingStateResponse, _state)


def list_snapshots(page_size: int, page_token: str) -> Call[results.SnapshotPage]:
    with building("request", "ListSnapshots"):
        request = admin_pb.ListSnapshotsRequest(page_size=page_size, page_token=page_token)
    return Call("AdminService", "ListSnapshots", request, admin_pb.ListSnapshotsResponse, _snapshots)


def activate_snapshot(snapshot_id: str, force: bool) -> Call[results.Activated]:
    with building("snapshot_id", snapshot_id):
        request = admin_pb.ActivateSnapshotRequest(snapshot_id=snapshot_id, force=force)
    response, timeout_s = admin_pb.ActivateSnapshotResponse, ACTIVATE_TIMEOUT_S
    return Call("AdminService", "ActivateSnapshot", request, response, _activated, timeout_s)


def rollback_snapshot() -> Call[results.ServingInfo]:
    request = admin_pb.RollbackSnapshotRequest()
    response, timeout_s = admin_pb.RollbackSnapshotResponse, ACTIVATE_TIMEOUT_S
    return Call("AdminService", "RollbackSnapshot", request, response, _rolled_back, timeout_s)


def to_error(error: grpc.RpcError, target: str) -> RecsysError:
    """The typed error behind what gRPC raised: from its details, or from its code where it has none."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # what a call raises is that call, too
    if status is None and error.code() is grpc.StatusCode.UNAVAILABLE:  # gRPC's own: nobody was reached
        return Unavailable(f"no server answers at {target}; start one with `recsys serve` ({error.details()})")
    return from_status(status or status_pb2.Status(code=error.code().value[0], message=error.details() or ""))


def _candidate(each: Candidate | str) -> Candidate:
    return Candidate(item_id=each) if isinstance(each, str) else each


def _serving(info: pb.ServingInfo) -> results.ServingInfo:
    return results.ServingInfo(
        snapshot_id=info.snapshot_id,
        encoder=info.encoder_fingerprint,
        index=info.index_fingerprint,
        ranker=info.ranker_fingerprint,
        memory_watermark=values.optional_time(info, "memory_watermark"),
    )


def _ranked(response: ranking_pb.RankItemsResponse) -> results.RankedPage:
    return results.RankedPage(
        items=tuple(map(values.from_ranked, response.items)),
        ranking_id=response.ranking_id,
        serving=_serving(response.serving),
        fallbacks=values.from_fallbacks(response.fallbacks),
    )


def _recommended(response: ranking_pb.RecommendItemsResponse) -> results.RankedPage:
    return results.RankedPage(
        items=tuple(map(values.from_ranked, response.items)),
        ranking_id=response.ranking_id,
        serving=_serving(response.serving),
        fallbacks=values.from_fallbacks(response.fallbacks),
        next_page_token=response.next_page_token,
    )


def _explained(response: ranking_pb.ExplainRankingResponse) -> tuple[Explanation, ...]:
    return tuple(map(values.from_explanation, response.items))


def _vectors(response: ranking_pb.EncodeTextsResponse) -> Float32[np.ndarray, "n D"]:
    return values.from_vectors(response.vectors)


def _written(response: ingest_pb.WriteEventsResponse | ingest_pb.WriteItemsResponse) -> results.Written:
    return results.Written(
        accepted=response.accepted_count,
        duplicates=response.duplicate_count,
        watermark=values.from_time(response.memory_watermark),
    )


def _erased(response: memory_pb.DeleteUserResponse) -> results.Erased:
    return results.Erased(
        events=response.event_count,
        memories=response.memory_count,
        rankings=response.ranking_count,
        at=values.from_time(response.delete_time),
        live_files_clean=values.from_time(response.live_files_clean_time),
        snapshots_clean=values.from_time(response.snapshots_clean_time),
        request_digests_expire=values.from_time(response.request_digests_expire_time),
    )


def _memories(response: memory_pb.ListMemoriesResponse) -> results.MemoryPage:
    return results.MemoryPage(
        memories=tuple(map(values.from_memory, response.memories)),
        total=response.total_size,
        next_page_token=response.next_page_token,
    )


def _state(response: admin_pb.GetServingStateResponse) -> results.ServingState:
    return results.ServingState(
        serving=_serving(response.serving),
        num_users=response.user_count,
        num_items=response.item_count,
        num_memories=response.memory_count,
        created=values.from_time(response.create_time),
        metrics=dict(response.metrics),
    )


def _snapshots(response: admin_pb.ListSnapshotsResponse) -> results.SnapshotPage:
    return results.SnapshotPage(
        snapshots=tuple(map(_snapshot, response.snapshots)), next_page_token=response.next_page_token
    )


def _snapshot(snapshot: admin_pb.Snapshot) -> results.SnapshotInfo:
    return results.SnapshotInfo(
        serving=_serving(snapshot.serving),
        created=values.from_time(snapshot.create_time),
        metrics=dict(snapshot.metrics),
        active=snapshot.active,
    )


def _activated(response: admin_pb.ActivateSnapshotResponse) -> results.Activated:
    return results.Activated(
        serving=_serving(response.serving),
        previous=_serving(response.previous) if response.HasField("previous") else None,
        replay=_replay(response.replay) if response.HasField("replay") else None,
    )


def _replay(replay: admin_pb.Replay) -> results.Replay:
    def number(name: str) -> float | None:
        return getattr(replay, name) if replay.HasField(name) else None

    return results.Replay(
        num_requests=replay.request_count,
        num_errors=replay.error_count,
        overlap=number("mean_overlap"),
        correlation=number("mean_rank_correlation"),
        old_ms=number("old_latency_ms"),
        new_ms=number("new_latency_ms"),
    )


def _rolled_back(response: admin_pb.RollbackSnapshotResponse) -> results.ServingInfo:
    return _serving(response.serving)
