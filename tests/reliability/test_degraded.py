"""One part after the other fails, in a trained engine behind gRPC: an answer comes, is not empty, and says what it did
without; and what it did without is counted."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys.client import RecsysClient
from recsys.model import Model
from recsys.serve import Server
from recsys.serve.ops.config import AdminConfig
from recsys.store import EventStore
from recsys.types import Candidate, Fallback, User
from tests.reliability.small import publish_all, shelf_of
from tests.serve.conftest import QUICK
from tests.world import ENCODER


class Broken:
    """An encoder whose device has gone."""

    fingerprint = ENCODER.fingerprint

    def encode(self, texts: list[str], *, progress: object = None) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    def warm_up(self) -> None:
        raise RuntimeError("CUDA error: out of memory")


class World:
    def __init__(self, server: Server, client: RecsysClient) -> None:
        self.server, self.client = server, client

    def counted(self, fallback: Fallback) -> float:
        """Of `recsys_fallbacks_total`, by reason."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.admin_port}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        found = [
            each for each in lines if each.startswith("recsys_fallbacks_total{") and fallback.value in each.lower()
        ]
        return sum(float(each.rsplit(" ", 1)[1]) for each in found)


@pytest.fixture
def make(model: Model, tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def start(*, ranker: bool = True, encoder: Any = ENCODER) -> World:
        held = model if ranker else replace(model, ranker=None)
        publish_all(held, tmp_path / "snapshots", 1)
        server = Server(
            replace(QUICK, admin_http=AdminConfig(port=0)),
            shelf=replace(shelf_of(tmp_path / "snapshots"), encoder=encoder),
            store=EventStore.open(tmp_path / "events.db"),
        )
        server.start()
        made.append(World(server, RecsysClient(f"127.0.0.1:{server.port}", timeout_s=20)))
        server.load()
        return made[-1]

    yield start
    for world in made:
        world.client.close()
        world.server.stop()


def test_whole_it_does_without_nothing(make: Callable[..., World]) -> None:
    world = make()
    page = world.client.rank_items(User(user_id="u1"), ["i1", "i2"])
    assert not page.fallbacks
    assert not any(row.fallbacks for row in page.items)


def test_without_an_encoder_texts_are_ranked_by_their_words(make: Callable[..., World]) -> None:
    world = make(encoder=Broken())
    page = world.client.rank_items(User(user_id="u1"), ["i1", Candidate(text="maker1 thing"), "i2"])
    assert len(page.items) == 3
    notes = {row.index: row.fallbacks for row in page.items}
    assert Fallback.ENCODER_UNAVAILABLE in notes[1]
    assert not notes[0]  # vectors of known items are the snapshot's
    assert len(world.client.recommend_items(User(user_id="u1"), page_size=5).items) == 5
    assert world.counted(Fallback.ENCODER_UNAVAILABLE) > 0


def test_without_a_ranker_the_matchers_decide(make: Callable[..., World]) -> None:
    world = make(ranker=False)
    page = world.client.recommend_items(User(user_id="u1"), page_size=5)
    assert page.fallbacks == (Fallback.RANKER_UNAVAILABLE,)
    assert len({row.score for row in page.items}) > 1
    assert world.counted(Fallback.RANKER_UNAVAILABLE) > 0


def test_a_stranger_gets_what_is_popular(make: Callable[..., World]) -> None:
    world = make()
    page = world.client.recommend_items(User(user_id="nobody"), page_size=5)
    assert len(page.items) == 5
    assert Fallback.UNKNOWN_USER in page.fallbacks
    assert world.counted(Fallback.UNKNOWN_USER) > 0
