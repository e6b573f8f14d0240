"""How the server listens, how much it takes on, and how it leaves."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from recsys.errors import InvalidInput
from recsys.serve.ops.config import AdminConfig, ReplayConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneConfig:
    """Calls of one kind: `workers` run at a time, `queue` wait for about `max_wait_s`, more are refused at once.

    A call without a deadline gets `default_timeout_s`, none gets more than `max_timeout_s`.
    """

    workers: int
    queue: int
    default_timeout_s: float
    max_timeout_s: float
    max_wait_s: float = 0.05

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InvalidInput.of("workers", self.workers, "at least 1 is needed")
        if self.queue < 0:
            raise InvalidInput.of("queue", self.queue, "must not be negative")
        if not 0 < self.default_timeout_s <= self.max_timeout_s:
            raise InvalidInput.of("default_timeout_s", self.default_timeout_s, "must lie in (0, max_timeout_s]")
        if not self.max_wait_s > 0:
            raise InvalidInput.of("max_wait_s", self.max_wait_s, "must be positive")


def _work_lane() -> LaneConfig:
    # One native thread a call and as many calls as cores; 16 waiting calls of 3 ms a core are 48 ms. Of slower calls
    # fewer wait: `max_wait_s` counts.
    cores = os.cpu_count() or 1
    return LaneConfig(workers=cores, queue=16 * cores, default_timeout_s=1.0, max_timeout_s=10.0)


def _write_lane() -> LaneConfig:
    # Writers wait for the disk, not for a core, and share its syncs.
    return LaneConfig(workers=8, queue=32, default_timeout_s=5.0, max_timeout_s=30.0, max_wait_s=0.5)


def _admin_lane() -> LaneConfig:
    # Loading a snapshot takes as long as it takes; the state can be asked for meanwhile.
    return LaneConfig(workers=2, queue=4, default_timeout_s=60.0, max_timeout_s=600.0, max_wait_s=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Plain text without credentials is for loopback; other hosts need TLS and an access file, or `insecure=True`."""

    host: str = "127.0.0.1"
    port: int = 50051
    insecure: bool = False
    tls_certificate_path: Path | None = None
    tls_key_path: Path | None = None
    # With it, only callers with a certificate of this authority are let in.
    tls_client_ca_path: Path | None = None
    # Credentials, tenants and their limits (`serve/auth/config.py`). Without it: one tenant, and no credential.
    access_path: Path | None = None
    # A second port, for health alone and in plain text: its threads are never waited for by callers of the first, and
    # probes of orchestrators know neither TLS nor tokens. None: there is none, 0: any free one.
    health_port: int | None = None
    reflection: bool = True

    work: LaneConfig = field(default_factory=_work_lane)
    write: LaneConfig = field(default_factory=_write_lane)
    admin: LaneConfig = field(default_factory=_admin_lane)

    # Metrics and the memory page; and what a new snapshot has to stand up to.
    admin_http: AdminConfig = field(default_factory=AdminConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    # Spans by OpenTelemetry, sent as its OTEL_* variables say.
    tracing: bool = False

    # What erased users leave behind: how often the store's files are cleared of it, and the snapshots. Receipts of
    # DeleteUser promise 15 minutes and a day.
    sweep_interval_s: float = 300.0
    rewrite_interval_s: float = 6 * 3600.0

    # How deep the pages of one RecommendItems reach: as far as matchers propose; beyond it stands popularity alone.
    recommend_depth: int = 200
    # Answers kept for their next pages and for ExplainRanking; a row is an item or an event, some 200 bytes.
    ranking_ttl_s: float = 300.0
    max_ranking_rows: int = 200_000

    # After SIGTERM: health says NOT_SERVING for `lame_duck_s` while calls still run, so that balancers turn away first;
    # then calls in flight have `drain_s`. Together within the 10 s that orchestrators commonly grant.
    lame_duck_s: float = 1.0
    drain_s: float = 8.0

    # How long a call may take to send its message, and how many calls are waited for at once: each has a thread.
    message_timeout_s: float = 10.0
    max_unread: int = 128
    # Streams that are open at once, each with a thread, and how long one may be silent.
    max_streams: int = 16
    stream_idle_s: float = 60.0

    max_message_bytes: int = 4 * 1024 * 1024
    max_metadata_bytes: int = 8 * 1024

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise InvalidInput.of("port", self.port, "must lie in 0 to 65535 (0: any free one)")
        if (self.tls_certificate_path is None) != (self.tls_key_path is None):
            raise InvalidInput.of("tls_key_path", self.tls_key_path, "certificate and key come together")
        if self.tls_client_ca_path is not None and self.tls_key_path is None:
            raise InvalidInput.of("tls_client_ca_path", str(self.tls_client_ca_path), "needs TLS: certificate and key")
        if not (self.tls_key_path or self.insecure or is_loopback(self.host)):
            raise InvalidInput.of("host", self.host, "plain text beyond loopback needs TLS or insecure=True")
        if not (self.access_path or self.insecure or is_loopback(self.host)):
            raise InvalidInput.of("access_path", None, "calls from beyond loopback need credentials or insecure=True")
        if self.health_port is not None and not 0 <= self.health_port <= 65_535:
            raise InvalidInput.of("health_port", self.health_port, "must lie in 0 to 65535 (0: any free one)")
        for name in ("message_timeout_s", "max_unread", "max_streams", "stream_idle_s"):
            if not getattr(self, name) > 0:
                raise InvalidInput.of(name, getattr(self, name), "must be positive")
        if not 0 < self.sweep_interval_s <= 450:
            raise InvalidInput.of("sweep_interval_s", self.sweep_interval_s, "must lie in (0, 450]")
        if not self.sweep_interval_s <= self.rewrite_interval_s <= 12 * 3600:
            reason = "must lie between sweep_interval_s and 12 hours"
            raise InvalidInput.of("rewrite_interval_s", self.rewrite_interval_s, reason)
        if self.recommend_depth < 1:
            raise InvalidInput.of("recommend_depth", self.recommend_depth, "at least 1 is needed")

    @property
    def address(self) -> str:
        return self.address_of(self.port)

    def address_of(self, port: int) -> str:
        """HOST:PORT of another port of this host."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    @property
    def max_threads(self) -> int:
        """Every call that runs, waits or is waited for has a thread; the spare ones refuse the others."""
        lanes = (self.work, self.write, self.admin)
        inside = sum(lane.workers + lane.queue for lane in lanes)
        return inside + self.max_unread + self.max_streams + _SPARE_THREADS

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
