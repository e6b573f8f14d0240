from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from recsys.serve.ops.config import AdminConfig
from tests.serve.conftest import World, make_world

__all__ = ["make_world"]

WITH_PORT = AdminConfig(port=0)


@pytest.fixture
def open_world(make_world: Callable[..., World]) -> Callable[..., World]:
    """A world whose operators' port is open."""

    def make(*engines: Any, **config: Any) -> World:
        return make_world(*engines, **{"admin_http": WITH_PORT, **config})

    return make


def fetch(world: World, path: str, **headers: str) -> tuple[int, Any, Any]:
    """(status, body, headers); JSON is parsed."""
    request = urllib.request.Request(f"http://127.0.0.1:{world.server.admin_port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            status, body, found = reply.status, reply.read(), reply.headers
    except urllib.error.HTTPError as error:
        status, body, found = error.code, error.read(), error.headers
    kind = found["Content-Type"] or ""
    return status, json.loads(body) if kind == "application/json" else body.decode(), found
