"""How both clients connect: channel options, retries by service config, TLS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

from recsys.errors import InvalidInput

MAX_MESSAGE_BYTES = 4 * 1024 * 1024

# Reads, and writes that carry a request_id: doing them twice does no harm. Activating is left to whoever asked for it.
_IDEMPOTENT = {
    "recsys.v1.RankingService": [""],
    "recsys.v1.MemoryService": [""],
    "recsys.v1.IngestService": [""],
    "recsys.v1.AdminService": ["GetServingState", "ListSnapshots"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Files of PEM blocks; without `ca_path` the roots of gRPC are trusted."""

    ca_path: Path | None = None
    certificate_path: Path | None = None
    key_path: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            _read("ca_path", self.ca_path),
            _read("key_path", self.key_path),
            _read("certificate_path", self.certificate_path),
        )


def channel_options() -> list[tuple[str, str | int]]:
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.service_config", json.dumps(_service_config())),
    ]


def metadata(token: str | None) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")] if token else []


def check(target: str, timeout_s: float) -> None:
    if not target:
        raise InvalidInput.of("target", target, "an address such as localhost:50051 is needed")
    if not timeout_s > 0:
        raise InvalidInput.of("timeout_s", timeout_s, "must be positive: every call has a deadline")


def _service_config() -> dict[str, object]:
    names = [
        {"service": service, **({"method": method} if method else {})}
        for service, methods in _IDEMPOTENT.items()
        for method in methods
    ]
    retry = {
        "maxAttempts": 3,
        "initialBackoff": "0.02s",
        "maxBackoff": "0.2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return {"methodConfig": [{"name": names, "retryPolicy": retry}]}


def _read(field: str, path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise InvalidInput.of(field, str(path), f"cannot be read: {error.strerror}") from error
