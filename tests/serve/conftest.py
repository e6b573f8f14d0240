from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest

from recsys.client import RecsysClient
from recsys.serve import Server, ServerConfig
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore

QUICK = ServerConfig(port=0, lame_duck_s=0.0, drain_s=2.0)


@dataclass
class World:
    """A server on a free port and everything behind it."""

    server: Server
    store: FakeStore
    shelf: FakeShelf
    channel: grpc.Channel
    client: RecsysClient

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(*engines: FakeEngine, load: bool = True, damaged: tuple[str, ...] = (), **config: Any) -> World:
        store, shelf = FakeStore(), FakeShelf(*(engines or (FakeEngine(),)), damaged=damaged)
        server = Server(replace(QUICK, **config), shelf=shelf, store=store)
        target = f"127.0.0.1:{server.port}"
        # Ten seconds: no test here is about time unless it sets its own.
        made.append(World(server, store, shelf, grpc.insecure_channel(target), RecsysClient(target, timeout_s=10)))
        server.start()
        if load:
            server.load()
        return made[-1]

    yield make
    for world in made:
        world.client.close()
        world.channel.close()
        world.server.stop()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
