"""What the handlers share: the live engine, the store, kept rankings, and how a caller's context becomes a user."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from recsys.serve.engine import Engine, Shelf, Store
from recsys.serve.live import Live
from recsys.serve.rankings import Rankings
from recsys.types import User
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1 import types_pb2 as pb
from recsys.wire.values import from_event, optional_time, to_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    live: Live
    store: Store
    shelf: Shelf
    rankings: Rankings
    recommend_depth: int

    def user(self, context: ranking_pb.UserContext, engine: Engine) -> User:
        """The stored events that `engine`'s snapshot does not hold, then the request's own."""
        received = time.time()
        asked = optional_time(context, "request_time")
        user_id, replace = context.user_id, context.replace_history
        stored = [] if replace or not user_id else self.store.user_events(user_id, after_seq=engine.store_seq)
        extra = [from_event(event, received=received, user_id=user_id) for event in context.extra_history]
        return User(
            user_id=user_id,
            events=(*stored, *extra),
            replace_history=replace,
            now=received if asked is None else asked,
        )

    def serving(self, engine: Engine) -> pb.ServingInfo:
        info = to_serving(engine.snapshot_id, engine.fingerprints)
        if self.live.watermark:
            info.memory_watermark.CopyFrom(to_time(self.live.watermark))
        return info


def to_serving(snapshot_id: str, fingerprints: Mapping[str, str]) -> pb.ServingInfo:
    return pb.ServingInfo(
        snapshot_id=snapshot_id,
        encoder_fingerprint=fingerprints.get("encoder", ""),
        index_fingerprint=fingerprints.get("index", ""),
        ranker_fingerprint=fingerprints.get("ranker", ""),
    )
