"""A small honest engine, store and shelf in memory: they keep the contracts, so that the transport can be judged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recsys.errors import Conflict, DamagedSnapshot, InvalidInput, NotFound
from recsys.serve import SnapshotSummary
from recsys.types import (
    Candidate,
    Event,
    Explanation,
    Fallback,
    Item,
    RankedItem,
    Ranking,
    Remembered,
    User,
)

CATALOGUE = {
    f"item-{i}": Item(item_id=f"item-{i}", title=f"Title {i}", categories=("even" if i % 2 == 0 else "odd",))
    for i in range(40)
}


@dataclass(frozen=True)
class FakeEngine:
    """A row scores `base` plus how often the user met the item; `base` tells snapshots apart."""

    snapshot_id: str = "s1"
    base: float = 100.0
    store_seq: int = 0
    created: float = 1_700_000_000.0
    catalogue: Mapping[str, Item] = field(default_factory=lambda: dict(CATALOGUE))
    memory: Mapping[str, tuple[Event, ...]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=lambda: {"ndcg@10": 0.25})
    before: Callable[[], None] = lambda: None
    asked: list[User] = field(default_factory=list)
    num_memories: int = 7

    @property
    def fingerprints(self) -> Mapping[str, str]:
        return {"encoder": f"e-{self.snapshot_id}", "index": f"i-{self.snapshot_id}", "ranker": f"r-{self.snapshot_id}"}

    @property
    def num_users(self) -> int:
        return len(self.memory)

    @property
    def num_items(self) -> int:
        return len(self.catalogue)

    def history(self, user: User) -> list[Event]:
        return [*(() if user.replace_history else self.memory.get(user.user_id, ())), *user.events]

    def rank(self, user: User, candidates: Sequence[Candidate], *, top_k: int = 0, parts: bool = False) -> Ranking:
        self.before()
        self.asked.append(user)
        history = self.history(user)
        scored = [
            (self._score(history, each.item_id), -index, each, self._fallbacks(each))
            for index, each in enumerate(candidates)
        ]
        scored.sort(key=lambda row: row[:2], reverse=True)
        rows = tuple(
            RankedItem(
                item_id=each.item_id,
                score=score,
                rank=rank,
                index=-place,
                parts={"met": score - self.base} if parts else {},
                fallbacks=fallbacks,
            )
            for rank, (score, place, each, fallbacks) in enumerate(scored[: top_k or None], 1)
        )
        unknown = () if history else (Fallback.UNKNOWN_USER,)
        return Ranking(items=rows, snapshot_id=self.snapshot_id, fallbacks=unknown)

    def recommend(
        self,
        user: User,
        *,
        k: int = 10,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        include_seen: bool | None = None,
        parts: bool = False,
    ) -> Ranking:
        out = set(exclude) | (set() if include_seen else {event.item_id for event in self.history(user)})
        found = [
            Candidate(item_id=item_id)
            for item_id, item in self.catalogue.items()
            if item_id not in out and (not categories or set(categories) & set(item.categories))
        ]
        ranking = self.rank(user, found, top_k=k, parts=parts)
        return replace(ranking, items=tuple(replace(row, index=-1) for row in ranking.items))

    def explain(self, user: User, item_ids: Sequence[str], *, max_memories: int = 5) -> list[Explanation]:
        for index, item_id in enumerate(item_ids):
            if item_id not in self.catalogue:
                raise InvalidInput.of(f"item_ids[{index}]", item_id, "unknown")
        history = self.history(user)
        return [self._explain(history, item_id, max_memories) for item_id in item_ids]

    def search_history(self, user: User, text: str, k: int) -> list[Remembered]:
        found = [event for event in self.history(user) if text in event.item_id]
        return [Remembered(event=event, title="", weight=1.0, source="search") for event in found][:k]

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    def with_items(self, items: Sequence[Item]) -> FakeEngine:
        return replace(self, catalogue={**self.catalogue, **{item.item_id: item for item in items}})

    def item(self, item_id: str) -> Item | None:
        return self.catalogue.get(item_id)

    def without_users(self, user_ids: Sequence[str]) -> FakeEngine:
        return replace(self, memory={who: past for who, past in self.memory.items() if who not in user_ids})

    @property
    def user_ids(self) -> Sequence[str]:
        return list(self.memory)

    def warm_up(self) -> None:
        self.before()

    def _score(self, history: Sequence[Event], item_id: str) -> float:
        return self.base + sum(event.item_id == item_id for event in history)

    def _fallbacks(self, each: Candidate) -> tuple[Fallback, ...]:
        if each.item_id in self.catalogue:
            return ()
        return (Fallback.COLD_ITEM,) if each.text else (Fallback.UNKNOWN_ITEM,)

    def _explain(self, history: Sequence[Event], item_id: str, max_memories: int) -> Explanation:
        score = self._score(history, item_id)
        spoke = [event for event in history if event.item_id == item_id][:max_memories]
        return Explanation(
            item_id=item_id,
            score=score,
            base=self.base,
            contributions={"met": score - self.base},
            memories=tuple(Remembered(event=event, title="t", weight=1.0, source="repeat") for event in spoke),
        )


@dataclass(frozen=True)
class FakeErasure:
    num_events: int
    seq: int
    time_s: float


@dataclass(frozen=True)
class FakeReceipt:
    accepted: int
    duplicates: int
    watermark: float
    seq: int


class FakeStore:
    def __init__(self) -> None:
        self.rows: list[tuple[int, Event | Item]] = []
        self.requests: dict[str, tuple[bytes, FakeReceipt]] = {}
        self.seq = 0
        self.watermark = 0.0
        self.erased: dict[str, FakeErasure] = {}
        self.reclaimed = 0
        self.closed = False
        self.lock = threading.Lock()

    def write_events(self, events: Sequence[Event], *, request_id: str = "", digest: bytes = b"") -> FakeReceipt:
        return self._write(events, request_id, digest)

    def write_items(self, items: Sequence[Item], *, request_id: str = "", digest: bytes = b"") -> FakeReceipt:
        return self._write(items, request_id, digest)

    def enqueue_events(
        self, events: Sequence[Event], *, request_id: str = "", digest: bytes = b""
    ) -> Future[FakeReceipt]:
        done: Future[FakeReceipt] = Future()
        try:
            done.set_result(self.write_events(events, request_id=request_id, digest=digest))
        except Conflict as error:
            done.set_exception(error)
        return done

    def delete_user(self, user_id: str) -> FakeErasure:
        with self.lock:
            gone = len(self.user_events(user_id))
            if gone or user_id not in self.erased:
                self.rows = [row for row in self.rows if getattr(row[1], "user_id", None) != user_id]
                self.seq += 1
                self.watermark += 1.0
                self.erased[user_id] = FakeErasure(gone, self.seq, self.watermark)
            return self.erased[user_id]

    def erasure(self, user_id: str) -> FakeErasure | None:
        return self.erased.get(user_id)

    def erased_among(self, user_ids: Iterable[str], *, after_seq: int) -> frozenset[str]:
        return frozenset(who for who in user_ids if who in self.erased and self.erased[who].seq > after_seq)

    @property
    def last_erased_seq(self) -> int:
        return max((each.seq for each in self.erased.values()), default=0)

    def reclaim(self) -> bool:
        self.reclaimed += 1
        return True

    def user_events(self, user_id: str, *, after_seq: int = 0) -> list[Event]:
        return [event for _, event in self.numbered_events(user_id, after_seq=after_seq)]

    def numbered_events(self, user_id: str, *, after_seq: int = 0) -> list[tuple[int, Event]]:
        found = [(seq, row) for seq, row in self.rows if isinstance(row, Event) and row.user_id == user_id]
        return sorted(((seq, row) for seq, row in found if seq > after_seq), key=lambda row: (row[1].timestamp, row[0]))

    def items(self, *, after_seq: int = 0) -> list[Item]:
        return [row for seq, row in self.rows if seq > after_seq and isinstance(row, Item)]

    def close(self) -> None:
        self.closed = True

    def _write(self, rows: Sequence[Any], request_id: str, digest: bytes) -> FakeReceipt:
        with self.lock:
            if request_id in self.requests:
                known, receipt = self.requests[request_id]
                if known != digest:
                    raise Conflict(f"request_id {request_id!r} came with another body")
                return receipt
            for row in rows:
                self.seq += 1
                self.rows.append((self.seq, row))
            self.watermark += 1.0
            receipt = FakeReceipt(len(rows), 0, self.watermark, self.seq)
            if request_id:
                self.requests[request_id] = (digest, receipt)
            return receipt


class FakeShelf:
    def __init__(self, *engines: FakeEngine, damaged: Sequence[str] = ()) -> None:
        self.engines = {engine.snapshot_id: engine for engine in engines}
        self.damaged = set(damaged)
        self.now = next(iter(self.engines), "")

    def summaries(self) -> list[SnapshotSummary]:
        return [
            SnapshotSummary(
                snapshot_id=e.snapshot_id, created=e.created, fingerprints=e.fingerprints, metrics=e.metrics
            )
            for e in sorted(self.engines.values(), key=lambda e: -e.created)
        ]

    def current(self) -> str:
        return self.now

    def open(self, snapshot_id: str) -> FakeEngine:
        if snapshot_id in self.damaged:
            raise DamagedSnapshot(f"snapshot {snapshot_id}: ranker.txt has another SHA-256")
        if snapshot_id not in self.engines:
            raise NotFound(f"there is no snapshot {snapshot_id!r}")
        return self.engines[snapshot_id]

    def make_current(self, snapshot_id: str) -> None:
        self.now = snapshot_id

    def holding_erased(self, store: FakeStore) -> list[str]:
        return [
            id_ for id_, each in self.engines.items() if store.erased_among(each.user_ids, after_seq=each.store_seq)
        ]

    def rewrite_erased(self) -> dict[str, str]:
        """Makes every snapshot anew, without anybody."""
        renamed = {id_: f"{id_}-clean" for id_ in self.engines}
        self.engines = {
            renamed[id_]: replace(each, snapshot_id=renamed[id_], memory={}) for id_, each in self.engines.items()
        }
        self.now = renamed[self.now]
        return renamed

    def stop_rewriting(self) -> None:
        self.stopped = True
