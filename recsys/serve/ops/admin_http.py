"""A small HTTP server for operators: few threads, short requests, no state, nothing but GET.

A page in somebody's browser must not reach it through a name that was made to point here (DNS rebinding): where it
listens on loopback, the Host header has to be a loopback's.
"""

from __future__ import annotations

import hmac
import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import structlog

from recsys.errors import InvalidInput, NotFound, Overloaded, RecsysError, Unavailable
from recsys.serve.ops.config import AdminConfig

_log = structlog.get_logger("recsys.serve")

THREADS = 2
MAX_WAITING = 8
TIMEOUT_S = 5.0
_LEAST_TOKEN_CHARS = 32

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200


Query = Mapping[str, str]
Answer = Callable[[Query], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """`private`: tells of users."""

    answer: Answer
    private: bool = False


def to_json(value: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(value, allow_nan=False).encode(), status=status)


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may ask: names and, for what is private, a token."""

    config: AdminConfig
    token: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, config: AdminConfig) -> Guard:
        """Reads the token's file. Raises InvalidInput where it cannot be used."""
        return cls(config, _read_token(config.token_path) if config.token_path else b"")

    def refusal(self, route: Route, host: str, authorization: str) -> Reply | None:
        """Why not; None to let pass."""
        if self.config.on_loopback and not _is_local(host):
            return to_json({"error": "the Host header does not name this machine"}, 403)
        if not route.private:
            return None
        if not self.token:
            if self.config.on_loopback:
                return None
            return to_json({"error": "beyond loopback the memory page needs a token: set admin_http.token_path"}, 403)
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token):
            return None
        return to_json({"error": "a token is needed"}, 401)


def _read_token(path: Path) -> bytes:
    try:
        rights = path.stat()
        token = path.read_bytes().strip()
    except OSError as error:
        raise InvalidInput.of("admin_http.token_path", str(path), f"cannot be read: {error.strerror}") from error
    if rights.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or rights.st_uid not in (os.geteuid(), 0):
        raise InvalidInput.of("admin_http.token_path", str(path), "must be the server's own, with mode 0600")
    if len(token) < _LEAST_TOKEN_CHARS:
        raise InvalidInput.of("admin_http.token_path", str(path), f"the token needs {_LEAST_TOKEN_CHARS} characters")
    return token


def _is_local(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname
    return name is not None and AdminConfig(host=name).on_loopback


class AdminHttp:
    """Listens once made, answers between `start` and `stop`. Raises InvalidInput where the address cannot be had."""

    def __init__(self, config: AdminConfig, routes: Mapping[str, Route]) -> None:
        self._server = _listen(config, routes, Guard.of(config))
        self._thread = threading.Thread(target=self._server.serve_forever, name="admin-http", daemon=True)
        self.port: int = self._server.server_address[1]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _listen(config: AdminConfig, routes: Mapping[str, Route], guard: Guard) -> _Server:
    class Family(_Server):
        address_family = socket.AF_INET6 if ":" in config.host else socket.AF_INET

    try:
        return Family((config.host, config.port or 0), routes, guard)
    except OSError as error:
        raise InvalidInput.of(
            "admin_http.port", config.port, f"cannot listen on {config.host}: {error.strerror or error}"
        ) from error


class _Server(HTTPServer):
    """Two threads answer; a few connections wait, more are closed."""

    request_queue_size = MAX_WAITING

    def __init__(self, address: tuple[str, int], routes: Mapping[str, Route], guard: Guard) -> None:
        self.routes = routes
        self.guard = guard
        self._pool = ThreadPoolExecutor(THREADS, "admin-http")
        self._room = threading.BoundedSemaphore(THREADS + MAX_WAITING)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: that one looks the host's name up, which may wait for a name server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._pool.submit(self._answer, request, client_address)

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the caller went away, or was too slow
        except Exception as error:  # noqa: BLE001 - the boundary: one request, not the server
            _log.error("an admin request failed", error=type(error).__name__)
        finally:
            self.shutdown_request(request)
            self._room.release()

    def server_close(self) -> None:
        super().server_close()
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    server: _Server
    timeout = TIMEOUT_S
    protocol_version = "HTTP/1.0"
    server_version = "recsys"
    sys_version = ""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        route = self.server.routes.get(parts.path)
        self._send(to_json({"error": "no such page"}, 404) if route is None else self._reply(route, parts.query))

    def _reply(self, route: Route, query: str) -> Reply:
        host, authorization = self.headers.get("Host", ""), self.headers.get("Authorization", "")
        refused = self.server.guard.refusal(route, host, authorization)
        if refused is not None:
            return refused
        try:
            return route.answer({key: values[-1] for key, values in parse_qs(query, max_num_fields=20).items()})
        except (InvalidInput, ValueError) as error:
            return to_json({"error": str(error)}, 400)
        except NotFound as error:
            return to_json({"error": str(error)}, 404)
        except (Unavailable, Overloaded) as error:
            return to_json({"error": str(error)}, 503)
        except RecsysError as error:
            return to_json({"error": str(error)}, 500)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *arguments: object) -> None:
        """Paths hold user ids: nothing is logged."""
