"""The methods of the API. Each one validates, decodes, calls the engine, encodes."""

# ruff: noqa: N802 - gRPC calls methods by the names that the .proto files give them

from __future__ import annotations

import time
import uuid

import grpc

from recsys.errors import InvalidInput, NotFound
from recsys.serve import pages
from recsys.serve.backend import Backend, to_serving
from recsys.serve.deadline import check_deadline
from recsys.serve.engine import Engine, SnapshotSummary
from recsys.serve.rankings import Kept
from recsys.serve.validate import validate
from recsys.types import Event, Ranking, Remembered, User
from recsys.v1 import admin_service_pb2 as admin_pb
from recsys.v1 import ingest_service_pb2 as ingest_pb
from recsys.v1 import memory_service_pb2 as memory_pb
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1.admin_service_pb2_grpc import AdminServiceServicer
from recsys.v1.ingest_service_pb2_grpc import IngestServiceServicer
from recsys.v1.memory_service_pb2_grpc import MemoryServiceServicer
from recsys.v1.ranking_service_pb2_grpc import RankingServiceServicer
from recsys.wire import values

MAX_SEARCH = 1_000
"""How far a search in a user's memory reaches."""

_TOP_IDS = 10


class RankingServicer(RankingServiceServicer):
    """RankItems, RecommendItems, ExplainRanking, EncodeTexts."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def RankItems(
        self, request: ranking_pb.RankItemsRequest, context: grpc.ServicerContext
    ) -> ranking_pb.RankItemsResponse:
        validate(request)
        engine = self._backend.live.engine
        user = self._backend.user(request.user, engine)
        candidates = [values.from_candidate(each) for each in request.candidates]
        check_deadline("rank")
        ranking = engine.rank(user, candidates, top_k=request.top_k, parts=request.include_parts)
        kept = self._kept(user, engine, ranking)
        return ranking_pb.RankItemsResponse(
            items=map(values.to_ranked, ranking.items),
            ranking_id=self._keep(kept),
            serving=kept.serving,
            fallbacks=values.to_fallbacks(ranking.fallbacks),
        )

    def RecommendItems(
        self, request: ranking_pb.RecommendItemsRequest, context: grpc.ServicerContext
    ) -> ranking_pb.RecommendItemsResponse:
        validate(request)
        size = pages.page_size(request.page_size, default=10, most=200)
        ranking_id, start = self._place(request)
        kept = self._backend.rankings.get(ranking_id) if ranking_id else self._recommend(request)
        if ranking_id and kept.digest != pages.digest(request):
            raise pages.bad_token(request.page_token, "was made for other arguments")
        ranking_id = ranking_id or self._keep(kept)
        more = start + size < len(kept.items)
        return ranking_pb.RecommendItemsResponse(
            items=map(values.to_ranked, kept.items[start : start + size]),
            next_page_token=pages.to_token(ranking_id.encode(), start + size) if more else "",
            ranking_id=ranking_id,
            serving=kept.serving,
            fallbacks=values.to_fallbacks(kept.fallbacks),
        )

    def ExplainRanking(
        self, request: ranking_pb.ExplainRankingRequest, context: grpc.ServicerContext
    ) -> ranking_pb.ExplainRankingResponse:
        validate(request)
        engine = self._backend.live.engine
        user, item_ids = self._to_explain(request, engine)
        most = pages.page_size(request.max_memories, default=5, most=20)
        check_deadline("explain")
        return ranking_pb.ExplainRankingResponse(
            items=map(values.to_explanation, engine.explain(user, item_ids, max_memories=most)),
            serving=self._backend.serving(engine),
        )

    def EncodeTexts(
        self, request: ranking_pb.EncodeTextsRequest, context: grpc.ServicerContext
    ) -> ranking_pb.EncodeTextsResponse:
        validate(request)
        engine = self._backend.live.engine
        vectors = values.to_vectors(engine.encode_texts(list(request.texts)))
        return ranking_pb.EncodeTextsResponse(vectors=vectors, serving=self._backend.serving(engine))

    def _recommend(self, request: ranking_pb.RecommendItemsRequest) -> Kept:
        engine = self._backend.live.engine
        user = self._backend.user(request.user, engine)
        check_deadline("recommend")
        ranking = engine.recommend(
            user,
            k=self._backend.recommend_depth,
            exclude=tuple(request.exclude_item_ids),
            categories=tuple(request.categories),
            include_seen=request.include_seen if request.HasField("include_seen") else None,
            parts=request.include_parts,
        )
        return self._kept(user, engine, ranking, digest=pages.digest(request))

    def _kept(self, user: User, engine: Engine, ranking: Ranking, digest: bytes = b"") -> Kept:
        return Kept(
            user=user,
            serving=self._backend.serving(engine),
            top_ids=tuple(row.item_id for row in ranking.items[:_TOP_IDS] if row.item_id),
            items=ranking.items if digest else (),
            fallbacks=ranking.fallbacks,
            digest=digest,
        )

    def _keep(self, kept: Kept) -> str:
        ranking_id = uuid.uuid4().hex
        self._backend.rankings.keep(ranking_id, kept)
        return ranking_id

    def _place(self, request: ranking_pb.RecommendItemsRequest) -> tuple[str, int]:
        """(the ranking a page token goes on with, where); without a token a new one from its start."""
        if not request.page_token:
            return "", 0
        key, place = pages.from_token(request.page_token)
        return key.decode("ascii", "replace"), place

    def _to_explain(self, request: ranking_pb.ExplainRankingRequest, engine: Engine) -> tuple[User, list[str]]:
        if not request.ranking_id:
            return self._backend.user(request.user, engine), list(request.item_ids)
        kept = self._backend.rankings.get(request.ranking_id)
        if kept.serving.snapshot_id != engine.snapshot_id:
            raise NotFound(f"the ranking was made by snapshot {kept.serving.snapshot_id}, which no longer serves")
        item_ids = list(request.item_ids) or [each for each in kept.top_ids if engine.item(each)]
        if not item_ids:
            raise InvalidInput.of("item_ids", [], "no known item is among the ranking's first ten: name the items")
        return kept.user, item_ids


class IngestServicer(IngestServiceServicer):
    """WriteEvents, WriteItems."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def WriteEvents(
        self, request: ingest_pb.WriteEventsRequest, context: grpc.ServicerContext
    ) -> ingest_pb.WriteEventsResponse:
        validate(request)
        received = time.time()
        events = [values.from_event(event, received=received) for event in request.events]
        check_deadline("write")
        receipt = self._backend.store.write_events(
            events, request_id=request.request_id, digest=pages.body_digest(request)
        )
        self._backend.live.wrote(receipt)
        return ingest_pb.WriteEventsResponse(
            accepted_count=receipt.accepted,
            duplicate_count=receipt.duplicates,
            memory_watermark=values.to_time(receipt.watermark),
        )

    def WriteItems(
        self, request: ingest_pb.WriteItemsRequest, context: grpc.ServicerContext
    ) -> ingest_pb.WriteItemsResponse:
        validate(request)
        items = [values.from_item(item) for item in request.items]
        check_deadline("write")
        receipt = self._backend.live.write_items(items, request.request_id, pages.body_digest(request))
        return ingest_pb.WriteItemsResponse(
            accepted_count=receipt.accepted,
            duplicate_count=receipt.duplicates,
            memory_watermark=values.to_time(receipt.watermark),
        )


class MemoryServicer(MemoryServiceServicer):
    """ListMemories."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def ListMemories(
        self, request: memory_pb.ListMemoriesRequest, context: grpc.ServicerContext
    ) -> memory_pb.ListMemoriesResponse:
        validate(request)
        engine = self._backend.live.engine
        size = pages.page_size(request.page_size, default=50, most=1_000)
        user = self._backend.user(ranking_pb.UserContext(user_id=request.user_id), engine)
        key = pages.digest(request)
        place = pages.place_in(request.page_token, key)
        check_deadline("read the memory")
        if request.query_text:
            return _found(engine.search_history(user, request.query_text, MAX_SEARCH), place or 0, size, key)
        return _listed(engine, engine.history(user), place, size, key)


class AdminServicer(AdminServiceServicer):
    """GetServingState, ListSnapshots, ActivateSnapshot."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def GetServingState(
        self, request: admin_pb.GetServingStateRequest, context: grpc.ServicerContext
    ) -> admin_pb.GetServingStateResponse:
        engine = self._backend.live.engine
        return admin_pb.GetServingStateResponse(
            serving=self._backend.serving(engine),
            user_count=engine.num_users,
            memory_count=engine.num_memories,
            item_count=engine.num_items,
            create_time=values.to_time(engine.created),
            metrics=engine.metrics,
        )

    def ListSnapshots(
        self, request: admin_pb.ListSnapshotsRequest, context: grpc.ServicerContext
    ) -> admin_pb.ListSnapshotsResponse:
        validate(request)
        size = pages.page_size(request.page_size, default=50, most=1_000)
        key = pages.digest(request)
        start = pages.place_in(request.page_token, key) or 0
        found = self._backend.shelf.summaries()
        active = self._backend.live.snapshot_id
        return admin_pb.ListSnapshotsResponse(
            snapshots=(_snapshot(each, active) for each in found[start : start + size]),
            next_page_token=pages.to_token(key, start + size) if start + size < len(found) else "",
        )

    def ActivateSnapshot(
        self, request: admin_pb.ActivateSnapshotRequest, context: grpc.ServicerContext
    ) -> admin_pb.ActivateSnapshotResponse:
        validate(request)
        before, after = self._backend.live.activate(request.snapshot_id)
        return admin_pb.ActivateSnapshotResponse(
            previous=self._backend.serving(before) if before else None, serving=self._backend.serving(after)
        )


def _listed(
    engine: Engine, history: list[Event], place: int | None, size: int, key: bytes
) -> memory_pb.ListMemoriesResponse:
    """Newest first. A place counts from the oldest event, so events written between two pages shift nothing."""
    end = len(history) if place is None else min(place, len(history))
    start = max(end - size, 0)
    return memory_pb.ListMemoriesResponse(
        memories=(values.to_memory(_remembered(engine, event)) for event in reversed(history[start:end])),
        next_page_token=pages.to_token(key, start) if start else "",
        total_size=len(history),
    )


def _found(memories: list[Remembered], start: int, size: int, key: bytes) -> memory_pb.ListMemoriesResponse:
    more = start + size < len(memories)
    return memory_pb.ListMemoriesResponse(
        memories=map(values.to_memory, memories[start : start + size]),
        next_page_token=pages.to_token(key, start + size) if more else "",
        total_size=len(memories),
    )


def _remembered(engine: Engine, event: Event) -> Remembered:
    item = engine.item(event.item_id)
    return Remembered(event=event, title=item.title if item else "", weight=0.0, source="history")


def _snapshot(summary: SnapshotSummary, active: str) -> admin_pb.Snapshot:
    return admin_pb.Snapshot(
        serving=to_serving(summary.snapshot_id, summary.fingerprints),
        create_time=values.to_time(summary.created),
        metrics=summary.metrics,
        active=summary.snapshot_id == active,
    )
