"""Recent ranking requests, asked again: to warm a snapshot up, and to see what a new one changes before it serves."""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import structlog
from google.protobuf.message import DecodeError

from recsys.errors import RecsysError, ReplayRefused
from recsys.serve.engine import Engine
from recsys.serve.ops.config import ReplayConfig
from recsys.serve.questions import RankQuestion
from recsys.types import RankedItem, User
from recsys.v1 import ranking_service_pb2 as ranking_pb
from recsys.wire.values import from_candidate, to_time

_log = structlog.get_logger("recsys.serve")

Request: TypeAlias = ranking_pb.RankItemsRequest | ranking_pb.RecommendItemsRequest
UserOf = Callable[[ranking_pb.UserContext, Engine], User]
"""Who asks, with the stored events that the engine's snapshot does not hold."""

TOP = 10
_KINDS: dict[str, type[Request]] = {
    kind.__name__: kind for kind in (ranking_pb.RankItemsRequest, ranking_pb.RecommendItemsRequest)
}


class RankingLog:
    """The newest ranking requests, bounded in number, bytes and rate. Every method may be called from any thread."""

    def __init__(self, config: ReplayConfig, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._held: deque[tuple[Request, int]] = deque()
        self._size_bytes = 0
        self._last = -np.inf

    def __len__(self) -> int:
        return len(self._held)

    @property
    def size_bytes(self) -> int:
        """Of the requests, as they travel."""
        return self._size_bytes

    def add(self, asked: Request | RankQuestion) -> None:
        """Keeps a copy, dated now where the request names no time. One too soon after the last is left out."""
        now = self._clock()
        if not self._config.enabled or now < self._last + self._config.min_interval_s:
            return
        request = asked.message if isinstance(asked, RankQuestion) else asked
        kept = type(request)()
        kept.MergeFrom(request)  # type: ignore[arg-type]  # both are of one type
        if not kept.user.HasField("request_time"):
            kept.user.request_time.CopyFrom(to_time(now))
        with self._lock:
            self._last = now
            self._push(kept)

    def newest_first(self) -> list[Request]:
        with self._lock:
            return [request for request, _ in reversed(self._held)]

    def forget(self, user_id: str) -> int:
        """Drops a user's requests, in the file as well; returns how many there were."""
        with self._lock:
            kept = [row for row in self._held if row[0].user.user_id != user_id]
            dropped = len(self._held) - len(kept)
            self._held = deque(kept)
            self._size_bytes = sum(size for _, size in kept)
        if dropped:
            self.save()
        return dropped

    def save(self) -> None:
        """Writes the file, if one is configured, for the server's user alone. What cannot be written is logged."""
        path = self._config.path
        if path is None or not self._config.enabled:
            return
        lines = [
            json.dumps({"kind": type(each).__name__, "request": base64.b64encode(each.SerializeToString()).decode()})
            for each in reversed(self.newest_first())
        ]
        aside = path.with_name(f"{path.name}.new")
        with self._saving:
            try:
                aside.unlink(missing_ok=True)  # one left by a crash may have other rights
                with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                    file.writelines(f"{line}\n" for line in lines)
                aside.replace(path)
            except OSError as error:
                _log.error("the log of rankings is not saved", path=str(path), error=type(error).__name__)

    def load(self) -> None:
        """Reads the file, if there is one: not one that others may read, and no line that makes no sense."""
        path = self._config.path
        if path is None or not self._config.enabled or not path.exists():
            return
        try:
            if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                _log.error("the log of rankings is open to others and is not read", path=str(path))
                return
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            _log.error("the log of rankings cannot be read", path=str(path), error=type(error).__name__)
            return
        found = [request for request in map(_parsed, lines) if request is not None]
        with self._lock:
            for request in found:
                self._push(request)
        _log.info("read the log of rankings", requests=len(found), damaged=len(lines) - len(found))

    def _push(self, request: Request) -> None:
        size = request.ByteSize()
        self._held.append((request, size))
        self._size_bytes += size
        while self._held and (len(self._held) > self._config.max_requests or self._size_bytes > self._config.max_bytes):
            self._size_bytes -= self._held.popleft()[1]


def _parsed(line: str) -> Request | None:
    try:
        row = json.loads(line)
        return _KINDS[row["kind"]].FromString(base64.b64decode(row["request"], validate=True))
    except (ValueError, KeyError, TypeError, DecodeError, binascii.Error):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a new snapshot would change. NaN where no request could tell."""

    num_requests: int
    num_errors: int
    """Requests that only the new snapshot fails."""
    overlap: float
    """Mean share of the old first ten that are among the new first ten."""
    correlation: float
    """Mean Spearman correlation between the old and the new order of the same candidates."""
    old_ms: float
    new_ms: float
    """Median of a request."""
    latency_ratio: float
    """Median over requests of new / old."""

    def __str__(self) -> str:
        return (
            f"{self.num_requests} requests replayed: overlap@{TOP} {_shown(self.overlap)}, "
            f"rank correlation {_shown(self.correlation)}, {_shown(self.old_ms)} -> {_shown(self.new_ms)} ms "
            f"(x{_shown(self.latency_ratio)}), {self.num_errors} errors"
        )

    def problems(self, config: ReplayConfig) -> list[str]:
        """The thresholds that are not kept; none where too few requests were replayed to tell."""
        if self.num_requests < config.min_requests:
            return []
        found = []
        if self.num_errors > config.max_errors:
            found.append(f"errors {self.num_errors} > {config.max_errors}")
        if self.overlap < config.min_overlap:
            found.append(f"overlap@{TOP} {self.overlap:.2f} < {config.min_overlap}")
        if self.correlation < config.min_correlation:
            found.append(f"rank correlation {self.correlation:.2f} < {config.min_correlation}")
        if self.new_ms > config.least_latency_ms and self.latency_ratio > config.max_latency_ratio:
            found.append(f"latency ratio {self.latency_ratio:.2f} > {config.max_latency_ratio}")
        return found


class Replay:
    """Asks logged requests again."""

    def __init__(self, config: ReplayConfig, user_of: UserOf) -> None:
        self._config = config
        self._user_of = user_of
        self.last: ReplayReport | None = None
        """The last comparison."""
        self.log = RankingLog(config)

    def warm(self, engine: Engine) -> None:
        """Asks `engine` what was asked of late; a request that fails is only logged."""
        end, failed = time.monotonic() + self._config.max_replay_s, 0
        requests = self.log.newest_first()
        for request in requests:
            if time.monotonic() > end:
                break
            failed += self._answer(engine, request) is None
        if failed:
            _log.error("warm-up requests failed", snapshot_id=engine.snapshot_id, failed=failed, of=len(requests))

    def check(self, old: Engine, new: Engine) -> ReplayReport | None:
        """Compares; None where nothing was logged. Raises ReplayRefused where a threshold is not kept."""
        requests = self.log.newest_first()
        if not requests:
            return None
        report = self._compare(old, new, requests)
        self.last = report
        problems = report.problems(self._config)
        _log.info("replayed", snapshot_id=new.snapshot_id, problems=problems, report=str(report))
        if problems:
            raise ReplayRefused(f"snapshot {new.snapshot_id} is refused ({'; '.join(problems)}). {report}")
        return report

    def _compare(self, old: Engine, new: Engine, requests: Sequence[Request]) -> ReplayReport:
        end = time.monotonic() + self._config.max_replay_s
        overlaps: list[float] = []
        correlations: list[float] = []
        times: list[tuple[float, float]] = []
        errors = asked = 0
        for request in requests:
            start = time.perf_counter()
            if time.monotonic() > end:
                break
            was = self._answer(old, request)
            if was is None:
                continue
            asked += 1
            now = self._answer(new, request)  # not timed: what it loads lazily is loaded by it
            if now is None:
                errors += 1
                continue
            overlaps += _overlap(was, now)
            correlations += _correlation(was, now)
            times.append((self._seconds(old, request), self._seconds(new, request)))
            # Half of one thread's time at most: callers are being served meanwhile.
            time.sleep(min(time.perf_counter() - start, 0.05))
        table = np.array(times).reshape(-1, 2) if times else np.full((1, 2), np.nan)
        old_s, new_s = np.median(table, axis=0)
        return ReplayReport(
            num_requests=asked,
            num_errors=errors,
            overlap=_mean(overlaps),
            correlation=_mean(correlations),
            old_ms=float(old_s * 1e3),
            new_ms=float(new_s * 1e3),
            latency_ratio=float(np.median(table[:, 1] / np.maximum(table[:, 0], 1e-9))),
        )

    def _seconds(self, engine: Engine, request: Request) -> float:
        """The better of two: what else the machine does must not decide."""
        times = []
        for _ in range(2):
            start = time.perf_counter()
            self._answer(engine, request)
            times.append(time.perf_counter() - start)
        return min(times)

    def _answer(self, engine: Engine, request: Request) -> Sequence[RankedItem] | None:
        try:
            return _ask(engine, self._user_of(request.user, engine), request)
        except RecsysError:
            return None
        except Exception as error:  # noqa: BLE001 - whatever a broken snapshot raises is what is looked for
            _log.error("a replayed request failed", snapshot_id=engine.snapshot_id, error=type(error).__name__)
            return None


def _ask(engine: Engine, user: User, request: Request) -> Sequence[RankedItem]:
    if isinstance(request, ranking_pb.RankItemsRequest):
        return engine.rank(user, [from_candidate(each) for each in request.candidates]).items
    return engine.recommend(
        user,
        k=TOP,
        exclude=tuple(request.exclude_item_ids),
        categories=tuple(request.categories),
        include_seen=request.include_seen if request.HasField("include_seen") else None,
    ).items


def _overlap(old: Sequence[RankedItem], new: Sequence[RankedItem]) -> list[float]:
    """Nothing where all candidates are among the first ten anyway."""
    if old and old[0].index >= 0 and len(old) <= TOP:
        return []
    before, after = ({_key(row) for row in rows[:TOP]} for rows in (old, new))
    return [len(before & after) / len(before)] if before else []


def _correlation(old: Sequence[RankedItem], new: Sequence[RankedItem]) -> list[float]:
    """Spearman's, of two orders of the same three candidates or more; there are no ties among places."""
    count = len(old)
    if count < 3 or old[0].index < 0 or len(new) != count:
        return []
    places = np.empty((2, count))
    for row, ranking in enumerate((old, new)):
        places[row, [each.index for each in ranking]] = np.arange(count)
    squares = float(((places[0] - places[1]) ** 2).sum())
    return [1.0 - 6.0 * squares / (count * (count**2 - 1))]


def _key(row: RankedItem) -> str | int:
    return row.item_id if row.index < 0 else row.index


def _shown(value: float) -> str:
    return "unknown" if np.isnan(value) else f"{value:.2f}"


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
