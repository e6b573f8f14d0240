"""One part after the other fails, in a trained engine behind gRPC: an answer comes, is not empty, and says what it did
without; and what it did without is counted."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from recsys.client import RecsysClient
from recsys.flow import allowed_mask
from recsys.match import States
from recsys.model import Model
from recsys.recommend import Recommender
from recsys.serve import Server
from recsys.serve.ops.config import AdminConfig
from recsys.serve.shelf import SnapshotShelf
from recsys.states import user_state
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


class Failing:
    """A matcher, and its own reading, that fails where it is told to."""

    def __init__(self, inner: Any, what: str, reading: Any = None) -> None:
        self._inner, self._what, self._reading = inner, what, reading
        self.name, self.signals = inner.name, inner.signals

    def read(self, states: States) -> Failing:
        self._at("read")
        return Failing(self._inner, self._what, self._inner.read(states))

    def propose(self, allowed: Any) -> Any:
        self._at("propose")
        return self._reading.propose(allowed)

    def score(self, candidates: Any) -> Any:
        self._at("score")
        return self._reading.score(candidates)

    def _at(self, what: str) -> None:
        if what == self._what:
            raise ZeroDivisionError


def with_failing(model: Model, what: str) -> Model:
    matchers = tuple(Failing(each, what) if each.name == "linear" else each for each in model.flow.matchers)
    return replace(model, flow=replace(model.flow, matchers=matchers))  # type: ignore[arg-type]  # all that is asked


@dataclass(frozen=True)
class SickShelf(SnapshotShelf):
    """Its snapshots have a matcher that fails."""

    failing: str = ""

    def open(self, snapshot_id: str) -> Recommender:
        sound = super().open(snapshot_id)
        return replace(sound, model=with_failing(sound.model, self.failing))


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

    def start(*, ranker: bool = True, encoder: Any = ENCODER, failing: str = "") -> World:
        held = model if ranker else replace(model, ranker=None)
        publish_all(held, tmp_path / "snapshots", 1)
        server = Server(
            replace(QUICK, admin_http=AdminConfig(port=0)),
            shelf=SickShelf(tmp_path / "snapshots", encoder=encoder, failing=failing)
            if failing
            else replace(shelf_of(tmp_path / "snapshots"), encoder=encoder),
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


@pytest.mark.parametrize("what", ["read", "propose", "score"])
def test_without_a_matcher_the_others_decide(make: Callable[..., World], what: str) -> None:
    world = make(failing=what)
    for _ in range(2):  # the second time with what was kept of the others
        page = world.client.rank_items(User(user_id="u1"), ["i1", "i2", "i3"], include_parts=True)
        assert page.fallbacks == (Fallback.MATCHER_UNAVAILABLE,)
        assert {row.parts["linear_all"] for row in page.items} == {0.0}
        assert any(row.parts["popularity_ever"] for row in page.items)
    assert len(world.client.recommend_items(User(user_id="u1"), page_size=5).items) == 5
    assert world.counted(Fallback.MATCHER_UNAVAILABLE) > 0


def test_training_does_without_no_matcher(model: Model) -> None:
    flow = with_failing(model, "read").flow
    states = user_state(model, model.items, User(user_id="u1"))
    with pytest.raises(ZeroDivisionError):
        flow.field(states, allowed_mask(states, include_seen=True))


def test_a_stranger_gets_what_is_popular(make: Callable[..., World]) -> None:
    world = make()
    page = world.client.recommend_items(User(user_id="nobody"), page_size=5)
    assert len(page.items) == 5
    assert Fallback.UNKNOWN_USER in page.fallbacks
    assert world.counted(Fallback.UNKNOWN_USER) > 0
