"""The operators' port, tracing, and what a new snapshot has to stand up to."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """An HTTP port for metrics, health and the memory page; `port` None: there is none, 0: any free one.

    The page shows what is remembered of users. On loopback it needs no token unless `token_path` names one; beyond
    loopback it is there with a token only. The token's file belongs to the server's user, with nobody else's rights.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    token_path: Path | None = None

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65_535:
            raise InvalidInput.of("admin.port", self.port, "must lie in 0 to 65535 (0: any free one)")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """Recent ranking requests, kept to warm a snapshot up and to compare a new one with the old before it serves.

    The log takes at most one request every `min_interval_s`, the newest `max_requests` of at most `max_bytes` together.
    `path` keeps it over a restart, in a file that only the server's user may read: it holds user ids and texts.

    A snapshot is refused (`force` overrides) where replayed requests, all of the newest, show on the mean less than
    `min_overlap` of the old first ten, less than `min_correlation` (Spearman) between the old and the new order of the
    same candidates, more than `max_latency_ratio` times the old time a request (median of pairs; below
    `least_latency_ms` a ratio says nothing), or more than `max_errors` requests that only the new one fails. The
    thresholds are wide: they stop what is broken, not what is better. Fewer than `min_requests` prove nothing, and
    nothing is refused. A replay ends after `max_replay_s`.
    """

    enabled: bool = True
    path: Path | None = None
    max_requests: int = 200
    max_bytes: int = 4 * 1024 * 1024
    min_interval_s: float = 0.05

    min_requests: int = 20
    min_overlap: float = 0.3
    min_correlation: float = 0.3
    max_latency_ratio: float = 3.0
    least_latency_ms: float = 5.0
    max_errors: int = 0
    max_replay_s: float = 20.0

    # After a swap the snapshot before stays loaded for so long, so that going back takes no time.
    keep_previous_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("min_overlap", "min_correlation"):
            if not -1.0 <= (value := getattr(self, name)) <= 1.0:
                raise InvalidInput.of(f"replay.{name}", value, "must lie in -1 to 1")
        for name in ("max_requests", "max_bytes", "min_requests", "max_errors", "keep_previous_s", "min_interval_s"):
            if (value := getattr(self, name)) < 0:
                raise InvalidInput.of(f"replay.{name}", value, "must not be negative")
        for name in ("max_latency_ratio", "max_replay_s"):
            if (value := getattr(self, name)) <= 0:
                raise InvalidInput.of(f"replay.{name}", value, "must be positive")
