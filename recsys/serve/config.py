"""How the server listens, how much it takes on, and how it leaves."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from recsys.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneConfig:
    """Calls of one kind: `workers` run at a time, `queue` wait, more are refused at once.

    A call without a deadline gets `default_timeout_s`, none gets more than `max_timeout_s`.
    """

    workers: int
    queue: int
    default_timeout_s: float
    max_timeout_s: float

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InvalidInput.of("workers", self.workers, "at least 1 is needed")
        if self.queue < 0:
            raise InvalidInput.of("queue", self.queue, "must not be negative")
        if not 0 < self.default_timeout_s <= self.max_timeout_s:
            raise InvalidInput.of("default_timeout_s", self.default_timeout_s, "must lie in (0, max_timeout_s]")


def _work_lane() -> LaneConfig:
    # One native thread a call and as many calls as cores; 16 waiting calls of 3 ms a core are 48 ms.
    cores = os.cpu_count() or 1
    return LaneConfig(workers=cores, queue=16 * cores, default_timeout_s=1.0, max_timeout_s=10.0)


def _write_lane() -> LaneConfig:
    # Writers wait for the disk, not for a core, and share its syncs.
    return LaneConfig(workers=8, queue=32, default_timeout_s=5.0, max_timeout_s=30.0)


def _admin_lane() -> LaneConfig:
    # Loading a snapshot takes as long as it takes; the state can be asked for meanwhile.
    return LaneConfig(workers=2, queue=4, default_timeout_s=60.0, max_timeout_s=600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Plain text is for loopback; other hosts need a certificate, or `insecure=True` spelled out."""

    host: str = "127.0.0.1"
    port: int = 50051
    insecure: bool = False
    tls_certificate_path: Path | None = None
    tls_key_path: Path | None = None
    reflection: bool = True

    work: LaneConfig = field(default_factory=_work_lane)
    write: LaneConfig = field(default_factory=_write_lane)
    admin: LaneConfig = field(default_factory=_admin_lane)

    # How deep the pages of one RecommendItems reach: as far as matchers propose; beyond it stands popularity alone.
    recommend_depth: int = 200
    # Answers kept for their next pages and for ExplainRanking; a row is an item or an event, some 200 bytes.
    ranking_ttl_s: float = 300.0
    max_ranking_rows: int = 200_000

    # After SIGTERM: health says NOT_SERVING for `lame_duck_s` while calls still run, so that balancers turn away first;
    # then calls in flight have `drain_s`. Together within the 10 s that orchestrators commonly grant.
    lame_duck_s: float = 1.0
    drain_s: float = 8.0

    max_message_bytes: int = 4 * 1024 * 1024
    max_metadata_bytes: int = 8 * 1024

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise InvalidInput.of("port", self.port, "must lie in 0 to 65535 (0: any free one)")
        if (self.tls_certificate_path is None) != (self.tls_key_path is None):
            raise InvalidInput.of("tls_key_path", self.tls_key_path, "certificate and key come together")
        if not (self.tls_key_path or self.insecure or is_loopback(self.host)):
            raise InvalidInput.of("host", self.host, "plain text beyond loopback needs TLS or insecure=True")
        if self.recommend_depth < 1:
            raise InvalidInput.of("recommend_depth", self.recommend_depth, "at least 1 is needed")

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def max_threads(self) -> int:
        """Every admitted call has a thread, running or waiting; the spare ones refuse the others."""
        lanes = (self.work, self.write, self.admin)
        return sum(lane.workers + lane.queue for lane in lanes) + _SPARE_THREADS

    def grpc_options(self) -> list[tuple[str, int]]:
        """One hundred streams a connection cure a client that resets streams; pings are limited for the same reason."""
        return [
            ("grpc.max_concurrent_streams", 100),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_idle_ms", 300_000),
            ("grpc.max_connection_age_ms", 1_800_000),
            ("grpc.max_connection_age_grace_ms", 30_000),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.server_handshake_timeout_ms", 10_000),
        ]


_SPARE_THREADS = 4


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
