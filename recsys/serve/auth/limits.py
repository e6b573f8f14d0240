"""How much a tenant may ask for: calls a second by scope, events a day, items in the catalogue."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from recsys.errors import InvalidInput, LimitExceeded
from recsys.serve.caller import Scope

_log = structlog.get_logger("recsys.serve")

DAY_S = 86_400
_SAVE_S = 1.0
"""A crash forgets at most so much of what was used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaConfig:
    """None: as much as the disk holds. A day is a day of UTC."""

    events_per_day: int | None = None
    items: int | None = None

    def __post_init__(self) -> None:
        for name in ("events_per_day", "items"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InvalidInput.of(f"quotas.{name}", value, "must not be negative")


class Bucket:
    """A token bucket: `rate` calls a second, and as many at once as come together in one second."""

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._most = max(rate, 1.0)
        self._clock = clock
        self._lock = threading.Lock()
        self._left = self._most
        self._at_s = clock()

    def take(self) -> float:
        """0 where a call may go; else the seconds until one may."""
        with self._lock:
            now = self._clock()
            self._left = min(self._most, self._left + (now - self._at_s) * self._rate)
            self._at_s = now
            if self._left < 1.0:
                return (1.0 - self._left) / self._rate
            self._left -= 1.0
            return 0.0


class Rates:
    """One tenant's buckets by scope; no limit where there is none."""

    def __init__(self, rates: Mapping[Scope, float], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets = {scope: Bucket(rate, clock=clock) for scope, rate in rates.items()}

    def take(self, scope: Scope) -> None:
        """Counts a call; raises LimitExceeded where there are too many."""
        bucket = self._buckets.get(scope)
        if bucket is not None and (wait_s := bucket.take()):
            raise LimitExceeded(f"the tenant's rate of {scope} calls is used up", retry_after_s=max(wait_s, 0.001))


@dataclass(slots=True)
class EventQuota:
    """Events that a tenant wrote today, by what the store accepted: duplicates and retries are free.

    `path` keeps the count over a restart; it is written at most once a second, and at `close`.
    """

    most: int | None
    path: Path | None = None
    clock: Callable[[], float] = time.time
    _day: int = 0
    _used: int = 0
    _saved_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.most is not None and self.path is not None and self.path.exists():
            try:
                found = json.loads(self.path.read_text("utf-8"))
                self._day, self._used = int(found["day"]), int(found["events"])
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidInput.of("usage", str(self.path), "is damaged: remove it to begin anew") from error

    @property
    def used(self) -> int:
        """Events of today, those of writes under way among them."""
        return self._used

    @contextmanager
    def taking(self, count: int) -> Iterator[Callable[[int], None]]:
        """Takes `count` events for a write; `accepted(n)` says how many it was, none where the write failed.

        Raises LimitExceeded where they are more than is left of the day.
        """
        if self.most is None:
            yield lambda accepted: None
            return
        day = self._take(count)
        unused = count

        def accepted(number: int) -> None:
            nonlocal unused
            unused = count - number

        try:
            yield accepted
        finally:
            self._give_back(day, unused)

    def close(self) -> None:
        with self._lock:
            self._save()

    def _take(self, count: int) -> int:
        assert self.most is not None, "without a quota nothing is counted"
        with self._lock:
            now = self.clock()
            if (today := int(now // DAY_S)) != self._day:
                self._day, self._used = today, 0
            if self._used + count > self.most:
                left_s = (today + 1) * DAY_S - now
                message = f"{self._used} of {self.most} events are written today, no room for {count}"
                raise LimitExceeded(message, retry_after_s=max(left_s, 1.0))
            self._used += count
            return today

    def _give_back(self, day: int, count: int) -> None:
        with self._lock:
            if day == self._day:
                self._used -= count
            if self.clock() - self._saved_s >= _SAVE_S:
                self._save()

    def _save(self) -> None:
        if self.path is None or self.most is None:
            return
        self._saved_s = self.clock()
        body = json.dumps({"day": self._day, "events": self._used})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
                file.write(body)
            Path(file.name).replace(self.path)
        except OSError as error:  # counted on in memory: a full disk must not stop what is not a write to it
            _log.error("quota not kept", error=type(error).__name__)
