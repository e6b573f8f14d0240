"""MemoryService: what is remembered of a user; all that is held of one; and forgetting one."""

# ruff: noqa: N802 - gRPC calls methods by the names that the .proto files give them

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import grpc

from recsys.serve import pages
from recsys.serve.admission import turn
from recsys.serve.backend import Backend
from recsys.serve.deadline import check_deadline
from recsys.serve.engine import Engine
from recsys.serve.pages import Cursor
from recsys.serve.sweep import LIVE_FILES_CLEAN_S, SNAPSHOTS_CLEAN_S
from recsys.serve.validate import validate
from recsys.store.once import KEEP_S
from recsys.types import Event, Remembered, User
from recsys.v1 import memory_service_pb2 as memory_pb
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.v1.memory_service_pb2_grpc import MemoryServiceServicer
from recsys.wire import values

MAX_SEARCH = 1_000
"""How far a search in a user's memory reaches."""

_EXPORTED_ROWS = 1_000
# Events that only a snapshot holds have no number of the store: theirs lie below all of those.
_UNNUMBERED = -(2**40)


class MemoryServicer(MemoryServiceServicer):
    """ListMemories, DeleteUser, ExportUser."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def ListMemories(
        self, request: memory_pb.ListMemoriesRequest, context: grpc.ServicerContext
    ) -> memory_pb.ListMemoriesResponse:
        validate(request)
        engine = self._backend.live.engine
        size = pages.page_size(request.page_size, default=50, most=1_000)
        key = pages.digest(request)
        check_deadline("read the memory")
        stored = self._backend.store.numbered_events(request.user_id)
        if not request.query_text:
            past = engine.history(User(user_id=request.user_id))
            return _listed(engine, merged(past, stored), pages.cursor_in(request.page_token, key), size, key)
        place = pages.place_in(request.page_token, key)
        user = self._backend.user(ranking_pb.UserContext(user_id=request.user_id), engine)
        found = engine.search_history(user, request.query_text, MAX_SEARCH)
        return _found(as_written(found, stored), place or 0, size, key)

    def DeleteUser(
        self, request: memory_pb.DeleteUserRequest, context: grpc.ServicerContext
    ) -> memory_pb.DeleteUserResponse:
        validate(request)
        check_deadline("erase")
        backend = self._backend
        erasure, held = backend.live.delete_user(request.user_id)
        # After the store and the engine: a call that read the user before finds out, and drops what it kept.
        num_rankings = backend.rankings.forget(request.user_id)
        backend.replay.log.forget(request.user_id)
        return memory_pb.DeleteUserResponse(
            event_count=erasure.num_events,
            memory_count=held,
            ranking_count=num_rankings,
            delete_time=values.to_time(erasure.time_s),
            live_files_clean_time=values.to_time(erasure.time_s + LIVE_FILES_CLEAN_S),
            snapshots_clean_time=values.to_time(erasure.time_s + SNAPSHOTS_CLEAN_S),
            request_digests_expire_time=values.to_time(erasure.time_s + KEEP_S),
        )

    def ExportUser(
        self, request: memory_pb.ExportUserRequest, context: grpc.ServicerContext
    ) -> Iterator[memory_pb.ExportUserResponse]:
        validate(request)
        with turn():
            engine = self._backend.live.engine
            erasure = self._backend.store.erasure(request.user_id)
            past = engine.history(User(user_id=request.user_id))
            stored = self._backend.store.numbered_events(request.user_id)
            kept = self._backend.rankings.of_user(request.user_id)
        rows = [*(("store", event) for _, event in stored), *((engine.snapshot_id, event) for event in past)]
        delete_time = values.to_time(erasure.time_s) if erasure else None
        # The first message comes in any case: nothing held is an answer, too.
        for start in range(0, max(len(rows), len(kept), 1), _EXPORTED_ROWS):
            part = slice(start, start + _EXPORTED_ROWS)
            yield memory_pb.ExportUserResponse(
                events=(
                    memory_pb.ExportedEvent(event=values.to_event(event), source=source) for source, event in rows[part]
                ),
                rankings=(
                    memory_pb.ExportedRanking(
                        ranking_id=id_, item_ids=[row.item_id for row in each.items] or each.top_ids
                    )
                    for id_, _, each in kept[part]
                ),
                delete_time=None if start else delete_time,
            )


@dataclass(frozen=True, slots=True)
class Row:
    """An event, and where it stands among its user's."""

    cursor: Cursor
    event: Event


def merged(past: Sequence[Event], stored: Sequence[tuple[int, Event]]) -> list[Row]:
    """What a snapshot and the store hold of one user, oldest first, each event once: as it was written where the store
    has it, with its id and its value in full. Events without a time come first, in their order."""
    left = _Stored(stored)
    rows = [Row(_cursor(event, number), event) for number, event in stored]
    seen: defaultdict[float, int] = defaultdict(int)
    for event in past:
        if left.take(event) is None:
            at = -math.inf if event.timestamp is None else event.timestamp
            rows.append(Row((at, _UNNUMBERED + seen[at]), event))
            seen[at] += 1
    return sorted(rows, key=lambda row: row.cursor)


def as_written(memories: Sequence[Remembered], stored: Sequence[tuple[int, Event]]) -> list[Remembered]:
    """`memories` with their events as the store has them."""
    left = _Stored(stored)
    return [replace(each, event=left.take(each.event) or each.event) for each in memories]


class _Stored:
    """The store's events of one user, to be found again by what a snapshot keeps of an event: item, type and time."""

    def __init__(self, stored: Sequence[tuple[int, Event]]) -> None:
        self._left: defaultdict[object, list[Event]] = defaultdict(list)
        for _, event in reversed(stored):
            self._left[_said(event)].append(event)

    def take(self, event: Event) -> Event | None:
        """The oldest such event that was not taken yet."""
        left = self._left.get(_said(event))
        return left.pop() if left else None


def _said(event: Event) -> tuple[str, str, float | None]:
    return event.item_id, event.event_type, event.timestamp


def _cursor(event: Event, number: int) -> Cursor:
    return (-math.inf if event.timestamp is None else event.timestamp, number)


def _listed(
    engine: Engine, rows: list[Row], before: Cursor | None, size: int, key: bytes
) -> memory_pb.ListMemoriesResponse:
    """Newest first; a page goes on below the last row of the one before, whatever was written since."""
    end = len(rows) if before is None else bisect_left(rows, before, key=lambda row: row.cursor)
    start = max(end - size, 0)
    return memory_pb.ListMemoriesResponse(
        memories=(values.to_memory(_remembered(engine, row.event)) for row in reversed(rows[start:end])),
        next_page_token=pages.to_cursor(key, rows[start].cursor) if start else "",
        total_size=len(rows),
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
