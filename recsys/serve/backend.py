"""What the handlers share: the live engine, the store, kept rankings, and how a caller's context becomes a user."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recsys.lives import Told
from recsys.serve.engine import Engine, Shelf, Store
from recsys.serve.live import Live
from recsys.serve.ops.replay import Replay
from recsys.serve.rankings import Rankings
from recsys.types import Event, User
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1 import types_pb2 as pb
from recsys.wire.values import from_event, optional_time, to_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    live: Live
    store: Store
    shelf: Shelf
    rankings: Rankings
    replay: Replay
    recommend_depth: int
    erased: dict[int, int] = field(default_factory=dict)
    """By the store's last number, that of the last erasure."""

    def user(self, context: ranking_pb.UserContext, engine: Engine) -> User:
        """The stored events that `engine`'s snapshot does not hold, then the request's own."""
        received = time.time()
        asked = optional_time(context, "request_time")
        user_id, replace = context.user_id, context.replace_history
        extra = [from_event(event, received=received, user_id=user_id) for event in context.extra_history]
        return User(
            user_id=user_id,
            events=extra if replace or not user_id else self._told(user_id, engine, extra),
            replace_history=replace,
            now=received if asked is None else asked,
        )

    def _told(self, user_id: str, engine: Engine, extra: Sequence[Event]) -> Told:
        upto_seq = self.store.seq
        if upto_seq not in self.erased:  # erasures have numbers of the same sequence
            erased_seq = self.store.last_erased_seq
            self.erased.clear()
            self.erased[upto_seq] = erased_seq
        return Told(
            self.store,
            user_id,
            after_seq=engine.store_seq,
            upto_seq=upto_seq,
            erased_seq=self.erased.get(upto_seq, upto_seq),
            extra=extra,
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
