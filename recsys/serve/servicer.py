"""RankingService and AdminService: each method validates, decodes, calls the engine, encodes."""

# ruff: noqa: N802 - gRPC calls methods by the names that the .proto files give them

from __future__ import annotations

import math
import uuid

import grpc

from recsys.errors import InvalidInput, NotFound
from recsys.serve import pages
from recsys.serve.answers import RankAnswer, warm_up
from recsys.serve.backend import Backend, to_serving
from recsys.serve.deadline import check_deadline
from recsys.serve.engine import Engine, SnapshotSummary
from recsys.serve.ops.replay import ReplayReport
from recsys.serve.questions import RankQuestion
from recsys.serve.rankings import Kept
from recsys.serve.validate import validate
from recsys.types import Ranking, User
from recsys.v1 import admin_service_pb2 as admin_pb
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1.admin_service_pb2_grpc import AdminServiceServicer
from recsys.v1.ranking_service_pb2_grpc import RankingServiceServicer
from recsys.wire import values

_TOP_IDS = 10


class RankingServicer(RankingServiceServicer):
    """RankItems, RecommendItems, ExplainRanking, EncodeTexts."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        warm_up()

    def RankItems(self, request: RankQuestion, context: grpc.ServicerContext) -> RankAnswer:  # type: ignore[override]
        candidates = request.checked()
        fields, moment = request.fields, self._backend.rankings.moment
        engine = self._backend.live.engine
        user = self._backend.user(fields.user, engine)
        check_deadline("rank")
        ranking = engine.rank(user, candidates, top_k=fields.top_k, parts=fields.include_parts)
        self._backend.replay.log.add(request)
        kept = self._kept(user, engine, ranking)
        response = ranking_pb.RankItemsResponse(
            ranking_id=self._keep(kept, moment),
            serving=kept.serving,
            fallbacks=values.to_fallbacks(ranking.fallbacks),
        )
        return RankAnswer(response, ranking.items)

    def RecommendItems(
        self, request: ranking_pb.RecommendItemsRequest, context: grpc.ServicerContext
    ) -> ranking_pb.RecommendItemsResponse:
        validate(request)
        size = pages.page_size(request.page_size, default=10, most=200)
        ranking_id, start = self._place(request)
        moment = self._backend.rankings.moment
        kept = self._backend.rankings.get(ranking_id) if ranking_id else self._recommend(request)
        if ranking_id and kept.digest != pages.digest(request):
            raise pages.bad_token(request.page_token, "was made for other arguments")
        ranking_id = ranking_id or self._keep(kept, moment)
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
        self._backend.replay.log.add(request)
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

    def _keep(self, kept: Kept, moment: int) -> str:
        """The answer's id. `moment` was taken before the user was read: who was erased since is not kept."""
        ranking_id, rankings = uuid.uuid4().hex, self._backend.rankings
        rankings.keep(ranking_id, kept)
        if rankings.forgotten_since(moment, kept.user.user_id):
            self._backend.replay.log.forget(kept.user.user_id)
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


class AdminServicer(AdminServiceServicer):
    """GetServingState, ListSnapshots, ActivateSnapshot, RollbackSnapshot."""

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
        report: ReplayReport | None = None

        def check(old: Engine, new: Engine) -> None:
            nonlocal report
            report = None if request.force else self._backend.replay.check(old, new)

        before, after = self._backend.live.activate(request.snapshot_id, check)
        return admin_pb.ActivateSnapshotResponse(
            previous=self._backend.serving(before) if before else None,
            serving=self._backend.serving(after),
            replay=None if report is None else _replay(report),
        )

    def RollbackSnapshot(
        self, request: admin_pb.RollbackSnapshotRequest, context: grpc.ServicerContext
    ) -> admin_pb.RollbackSnapshotResponse:
        before, after = self._backend.live.roll_back()
        return admin_pb.RollbackSnapshotResponse(
            previous=self._backend.serving(before), serving=self._backend.serving(after)
        )


def _replay(report: ReplayReport) -> admin_pb.Replay:
    return admin_pb.Replay(
        request_count=report.num_requests,
        error_count=report.num_errors,
        mean_overlap=_number(report.overlap),
        mean_rank_correlation=_number(report.correlation),
        old_latency_ms=_number(report.old_ms),
        new_latency_ms=_number(report.new_ms),
    )


def _number(value: float) -> float | None:
    """NaN stays unset."""
    return None if math.isnan(value) else value


def _snapshot(summary: SnapshotSummary, active: str) -> admin_pb.Snapshot:
    return admin_pb.Snapshot(
        serving=to_serving(summary.snapshot_id, summary.fingerprints),
        create_time=values.to_time(summary.created),
        metrics=summary.metrics,
        active=summary.snapshot_id == active,
    )
