"""The operators' port: who may ask what, and that it stays small."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.errors import InvalidInput
from recsys.serve.ops.admin_http import MAX_WAITING, THREADS, AdminHttp, Guard, Route, to_json
from recsys.serve.ops.config import AdminConfig
from tests.serve.conftest import World
from tests.serve.ops.conftest import WITH_PORT, fetch

TOKEN = "t" * 40
PRIVATE = Route(lambda query: to_json({}), private=True)


@pytest.fixture
def token_path(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(f"{TOKEN}\n")
    return path


def test_health_tells_loading_from_serving(open_world: Callable[..., World]) -> None:
    world = open_world(load=False)
    assert fetch(world, "/healthz")[0] == 200
    assert fetch(world, "/readyz")[0] == 503
    assert fetch(world, "/api/memories?user=u1")[0] == 503
    world.server.load()
    assert fetch(world, "/readyz")[0] == 200


def test_every_answer_forbids_what_a_page_does_not_need(open_world: Callable[..., World]) -> None:
    world = open_world()
    for path in ("/", "/metrics", "/api/memories?user=u1", "/nosuch"):
        _, _, headers = fetch(world, path)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


def test_what_does_not_exist_is_not_found(open_world: Callable[..., World]) -> None:
    world = open_world()
    for path in ("/nosuch", "/../memory.js", "/static/memory.js", "/memory.js/", "//etc/passwd"):
        assert fetch(world, path)[0] == 404


def test_a_name_that_was_made_to_point_here_is_refused(open_world: Callable[..., World]) -> None:
    world = open_world()
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "10.0.0.1"):
        assert fetch(world, "/api/memories?user=u1", Host=host)[0] == 403
        assert fetch(world, "/metrics", Host=host)[0] == 403
    for host in ("localhost", "127.0.0.1:9090", "[::1]:80"):
        assert fetch(world, "/metrics", Host=host)[0] == 200


def test_with_a_token_what_is_private_wants_it(open_world: Callable[..., World], token_path: Path) -> None:
    world = open_world(admin_http=replace(WITH_PORT, token_path=token_path))
    assert fetch(world, "/metrics")[0] == 200
    assert fetch(world, "/")[0] == 200
    assert fetch(world, "/api/memories?user=u1")[0] == 401
    assert fetch(world, "/api/memories?user=u1", Authorization=f"Bearer {TOKEN}x")[0] == 401
    assert fetch(world, "/api/memories?user=u1", Authorization=f"Basic {TOKEN}")[0] == 401
    assert fetch(world, "/api/memories?user=u1", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_beyond_loopback_nothing_private_without_a_token(token_path: Path) -> None:
    bare = Guard.of(AdminConfig(host="0.0.0.0", port=0))
    refused = bare.refusal(PRIVATE, "recsys:9090", "")
    assert refused is not None
    assert refused.status == 403
    assert bare.refusal(replace(PRIVATE, private=False), "recsys:9090", "") is None
    guarded = Guard.of(AdminConfig(host="0.0.0.0", port=0, token_path=token_path))
    assert guarded.refusal(PRIVATE, "recsys:9090", f"Bearer {TOKEN}") is None
    assert TOKEN not in repr(guarded)


@pytest.mark.parametrize(("mode", "text", "reason"), [(0o644, TOKEN, "0600"), (0o600, "short", "32 characters")])
def test_a_careless_token_is_refused(tmp_path: Path, mode: int, text: str, reason: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(InvalidInput, match=reason):
        Guard.of(AdminConfig(port=0, token_path=path))
    with pytest.raises(InvalidInput, match="cannot be read"):
        Guard.of(AdminConfig(port=0, token_path=tmp_path / "nosuch"))


def test_a_taken_port_is_named(open_world: Callable[..., World]) -> None:
    world = open_world()
    with pytest.raises(InvalidInput, match=r"admin_http\.port"):
        AdminHttp(AdminConfig(port=world.server.admin_port), {})
    with pytest.raises(InvalidInput, match="65535"):
        AdminConfig(port=70_000)


def test_connections_that_say_nothing_are_few_and_take_no_thread_of_the_service(
    open_world: Callable[..., World],
) -> None:
    world = open_world()
    address = ("127.0.0.1", world.server.admin_port)
    idle = [socket.create_connection(address, timeout=10) for _ in range(3 * (THREADS + MAX_WAITING))]
    try:
        threads = [each for each in threading.enumerate() if each.name.startswith("admin-http")]
        assert len(threads) <= THREADS + 1
        assert world.client.serving_state().serving.snapshot_id == "s1"
    finally:
        for each in idle:
            each.close()
    assert patient(lambda: fetch(world, "/healthz")[0]) == 200


def patient(ask: Callable[[], int]) -> int:
    """Until the connections that were closed have been noticed."""
    end = time.monotonic() + 20
    while True:
        try:
            return ask()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_other_methods_are_refused(open_world: Callable[..., World]) -> None:
    world = open_world()
    with socket.create_connection(("127.0.0.1", world.server.admin_port), timeout=10) as raw:
        raw.sendall(b"POST /api/memories HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b" 501 " in raw.recv(4096).split(b"\r\n")[0]
