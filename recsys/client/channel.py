"""How both clients connect: channel options, retries by service config, TLS, credentials."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from recsys.errors import InvalidInput

Token = str | Callable[[], str] | None
"""A bearer token, or what gives the present one: it is asked at each call, and so may be renewed."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a client shows of itself, and whom it trusts; `tls` None is plain text."""

    token: Token = None
    tls: TlsConfig | None = None


def credentials_from_environment() -> Credentials:
    """The credentials that the command line uses, so that no secret stands among a process's arguments.

    RECSYS_TOKEN, or RECSYS_TOKEN_FILE, which is read at each call; RECSYS_CA, RECSYS_CERTIFICATE and RECSYS_KEY name
    PEM files, and RECSYS_TLS=1 trusts the roots of gRPC. Without any of those four: plain text.
    """
    token, file = os.environ.get("RECSYS_TOKEN"), os.environ.get("RECSYS_TOKEN_FILE")
    ca, certificate, key = (
        Path(value) if (value := os.environ.get(f"RECSYS_{name}")) else None for name in ("CA", "CERTIFICATE", "KEY")
    )
    wanted = ca or certificate or key or os.environ.get("RECSYS_TLS", "") not in ("", "0")
    return Credentials(
        token=token or ((lambda: _read_token(Path(file))) if file else None),
        tls=TlsConfig(ca_path=ca, certificate_path=certificate, key_path=key) if wanted else None,
    )


def metadata(token: Token) -> list[tuple[str, str]]:
    """Raises InvalidInput for a token that no header can carry."""
    found = token() if callable(token) else token
    if not found:
        return []
    if not (found.isascii() and found.isprintable()) or " " in found:
        raise InvalidInput.of("token", "(not shown)", "must be printable ASCII without spaces")
    return [("authorization", f"Bearer {found}")]


def check(target: str, timeout_s: float, *, token: Token = None, tls: TlsConfig | None = None) -> None:
    if not target:
        raise InvalidInput.of("target", target, "an address such as localhost:50051 is needed")
    if not timeout_s > 0:
        raise InvalidInput.of("timeout_s", timeout_s, "must be positive: every call has a deadline")
    if token is not None and tls is None and not _stays_here(target):
        raise InvalidInput.of("tls", None, f"a token would travel to {target} in plain text: whoever reads it, has it")


def _stays_here(target: str) -> bool:
    """Whether only this machine is between the client and `target`."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = target.rpartition("/")[2]
    host = address.rpartition(":")[0].strip("[]") or address
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_token(path: Path) -> str:
    found = _read("RECSYS_TOKEN_FILE", path)
    return (found or b"").decode("ascii", "replace").strip()


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
