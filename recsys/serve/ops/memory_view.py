"""What the memory page asks: a user's time line, a search in it, recent rankings, and what each of them used."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recsys.errors import InvalidInput, NotFound, Overloaded
from recsys.serve.backend import Backend
from recsys.serve.engine import Engine
from recsys.serve.ops.admin_http import Query, Reply, Route, to_json
from recsys.types import MAX_ID_BYTES, MAX_TEXT_BYTES, Event, Explanation, Remembered
from recsys.v1 import ranking_service_pb2 as ranking_pb

MAX_SHOWN = 500
_EXPLAINED = 5
_MEMORIES = 8
_MAX_TITLE_CHARS = 200

_STATIC = Path(__file__).parent / "static"
_FILES: Mapping[str, tuple[str, str]] = {
    "/": ("memory.html", "text/html; charset=utf-8"),
    "/memory.js": ("memory.js", "text/javascript; charset=utf-8"),
    "/memory.svg": ("memory.svg", "image/svg+xml"),
    "/memory.css": ("memory.css", "text/css; charset=utf-8"),
}


class MemoryView:
    """Answers for one backend. One question at a time: operators must not take the cores from callers."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._turn = threading.Lock()

    def routes(self) -> dict[str, Route]:
        """The page's files are everybody's; what they show is private."""
        files = {path: Route(_file(*named)) for path, named in _FILES.items()}
        return {
            **files,
            "/api/memories": Route(self._memories, private=True),
            "/api/rankings": Route(self._rankings, private=True),
            "/api/explain": Route(self._explain, private=True),
        }

    def _memories(self, query: Query) -> Reply:
        user_id, text = _text(query, "user", MAX_ID_BYTES), query.get("text", "").strip()
        if len(text.encode()) > MAX_TEXT_BYTES:
            raise InvalidInput.of("text", text, f"at most {MAX_TEXT_BYTES} bytes")
        with self._alone():
            engine = self._backend.live.engine
            user = self._backend.user(ranking_pb.UserContext(user_id=user_id), engine)
            history = engine.history(user)
            found = engine.search_history(user, text, MAX_SHOWN) if text else _newest(engine, history)
        return to_json(
            {
                "user": user_id,
                "snapshot_id": engine.snapshot_id,
                "total": len(history),
                "first": _time(history[0]) if history else None,
                "last": _time(history[-1]) if history else None,
                "months": _months(history),
                "memories": [_memory(each) for each in found],
            }
        )

    def _rankings(self, query: Query) -> Reply:
        user_id, now = _text(query, "user", MAX_ID_BYTES), time.monotonic()
        engine = self._backend.live.engine
        rows = [
            {
                "ranking_id": ranking_id,
                "age_s": round(now - made, 1),
                "snapshot_id": kept.serving.snapshot_id,
                "items": [{"item_id": each, "title": _title(engine, each)} for each in kept.top_ids],
            }
            for ranking_id, made, kept in self._backend.rankings.of_user(user_id)
        ]
        return to_json({"user": user_id, "rankings": rows})

    def _explain(self, query: Query) -> Reply:
        kept = self._backend.rankings.get(_text(query, "ranking", MAX_ID_BYTES))
        with self._alone():
            engine = self._backend.live.engine
            if kept.serving.snapshot_id != engine.snapshot_id:
                raise NotFound("the ranking was made by another snapshot, which no longer serves")
            known = [each for each in kept.top_ids if engine.item(each)][:_EXPLAINED]
            why = engine.explain(kept.user, known, max_memories=_MEMORIES) if known else []
        return to_json({"items": [_explanation(engine, each) for each in why]})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=2.0):
            raise Overloaded("another question is being answered", retry_after_s=1.0)
        try:
            yield
        finally:
            self._turn.release()


def _file(name: str, content_type: str) -> Any:
    body = (_STATIC / name).read_bytes()
    return lambda query: Reply(body, content_type)


def _text(query: Query, name: str, max_bytes: int) -> str:
    value = query.get(name, "")
    if not value or "\0" in value or len(value.encode("utf-8", "replace")) > max_bytes:
        raise InvalidInput.of(name, value, f"1 to {max_bytes} bytes without NUL are wanted")
    return value


def _newest(engine: Engine, history: list[Event]) -> list[Remembered]:
    return [
        Remembered(event=event, title=_title(engine, event.item_id), weight=0.0, source="history")
        for event in reversed(history[-MAX_SHOWN:])
    ]


def _title(engine: Engine, item_id: str) -> str:
    item = engine.item(item_id)
    return item.title[:_MAX_TITLE_CHARS] if item else ""


def _time(event: Event) -> float | None:
    return event.timestamp


def _months(history: list[Event]) -> list[list[Any]]:
    """[[month, events], ...] for the whole life, oldest first; nothing where events have no times."""
    counts: dict[str, int] = {}
    for event in history:
        if event.timestamp is not None and 0 <= event.timestamp < 2**36:
            month = time.strftime("%Y-%m", time.gmtime(event.timestamp))
            counts[month] = counts.get(month, 0) + 1
    return [[month, counts[month]] for month in sorted(counts)]


def _memory(memory: Remembered) -> dict[str, Any]:
    event = asdict(memory.event)
    del event["user_id"]
    return {
        **event,
        "title": memory.title[:_MAX_TITLE_CHARS],
        "weight": round(memory.weight, 4),
        "source": memory.source,
        "score_change": memory.score_change,
    }


def _explanation(engine: Engine, why: Explanation) -> dict[str, Any]:
    heaviest = sorted(why.contributions.items(), key=lambda pair: -abs(pair[1]))[:6]
    return {
        "item_id": why.item_id,
        "title": _title(engine, why.item_id),
        "score": why.score,
        "contributions": [{"feature": name, "share": share} for name, share in heaviest],
        "memories": [_memory(each) for each in why.memories],
    }
