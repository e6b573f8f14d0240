"""A new snapshot is asked what was asked of late: what is worse does not serve, and going back takes no time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import InvalidInput, NotFound, ReplayRefused
from recsys.serve.ops.config import ReplayConfig
from recsys.serve.ops.replay import RankingLog, Replay
from recsys.types import Candidate, Ranking, User
from recsys.v1 import ranking_service_pb2 as pb
from tests.serve.conftest import World
from tests.serve.fake import FakeEngine

ALL = ReplayConfig(min_interval_s=0.0)
"""Logs every request."""
IDS = [f"item-{i}" for i in range(20)]


@dataclass(frozen=True)
class Upside(FakeEngine):
    """Ranks everything the other way round."""

    def rank(self, user: User, candidates: Sequence[Candidate], *, top_k: int = 0, parts: bool = False) -> Ranking:
        ranking = super().rank(user, candidates, parts=parts)
        turned = tuple(replace(row, rank=rank) for rank, row in enumerate(ranking.items[::-1], 1))
        return replace(ranking, items=turned[: top_k or None])


@dataclass(frozen=True)
class Failing(FakeEngine):
    def rank(self, *arguments: Any, **named: Any) -> Ranking:
        raise ZeroDivisionError("a broken snapshot")

    def warm_up(self) -> None:
        """Nothing shows."""


def ask(world: World, times: int = 25) -> None:
    for turn in range(times):
        world.client.rank_items(User(user_id=f"u{turn}"), IDS)


def test_an_equal_snapshot_passes_with_its_figures(make_world: Callable[..., World]) -> None:
    world = make_world(FakeEngine("s1"), FakeEngine("s2"), replay=ALL)
    ask(world)
    world.client.recommend_items(User(user_id="u1"))
    done = world.client.activate_snapshot("s2")
    assert (done.snapshot_id, done.previous.snapshot_id) == ("s2", "s1")
    replay = done.replay
    assert (replay.num_requests, replay.num_errors) == (26, 0)
    assert (replay.overlap, replay.correlation) == (1.0, 1.0)
    assert replay.old_ms > 0
    assert replay.new_ms > 0


@pytest.mark.parametrize(
    ("broken", "figure"),
    [(Upside("s2"), "rank correlation -1.00 < 0.3"), (Failing("s2"), "errors 25 > 0")],
    ids=["upside down", "failing"],
)
def test_a_broken_snapshot_is_refused_with_figures(
    make_world: Callable[..., World], broken: FakeEngine, figure: str
) -> None:
    world = make_world(FakeEngine("s1"), broken, replay=ALL)
    ask(world)
    with pytest.raises(ReplayRefused, match="snapshot s2 is refused") as refused:
        world.client.activate_snapshot("s2")
    assert figure in str(refused.value)
    assert "25 requests replayed" in str(refused.value)
    assert world.client.serving_state().serving.snapshot_id == "s1"
    assert world.shelf.now == "s1"


def test_force_overrides(make_world: Callable[..., World]) -> None:
    world = make_world(FakeEngine("s1"), Upside("s2"), replay=ALL)
    ask(world)
    done = world.client.activate_snapshot("s2", force=True)
    assert done.snapshot_id == world.shelf.now == "s2"
    assert done.replay is None


def test_few_requests_prove_nothing(make_world: Callable[..., World]) -> None:
    world = make_world(FakeEngine("s1"), Upside("s2"), replay=ALL)
    ask(world, times=3)
    done = world.client.activate_snapshot("s2")
    assert done.replay.num_requests == 3
    assert done.replay.correlation == -1.0


def test_slow_is_refused_too(make_world: Callable[..., World]) -> None:
    slow = FakeEngine("s2", before=lambda: time.sleep(0.02))
    world = make_world(FakeEngine("s1"), slow, replay=replace(ALL, max_latency_ratio=2.0, min_requests=5))
    ask(world, times=6)
    with pytest.raises(ReplayRefused, match="latency ratio"):
        world.client.activate_snapshot("s2")


def test_what_both_fail_is_no_error_of_the_new_one() -> None:
    replay = Replay(ALL, lambda context, engine: User(user_id=context.user_id))
    replay.log.add(pb.RankItemsRequest(candidates=[pb.Candidate(item_id="item-1")]))
    report = replay.check(Failing("s1"), Failing("s2"))
    assert report is not None
    assert (report.num_requests, report.num_errors) == (0, 0)


def test_rolling_back_and_forth(make_world: Callable[..., World]) -> None:
    opened: list[str] = []
    world = make_world(FakeEngine("s1"), FakeEngine("s2"), replay=ALL)
    inner = world.shelf.open
    world.shelf.open = lambda snapshot_id: (opened.append(snapshot_id), inner(snapshot_id))[1]
    with pytest.raises(NotFound, match="activate one by its id"):
        world.client.rollback_snapshot()
    world.client.activate_snapshot("s2")
    assert world.client.rollback_snapshot().snapshot_id == world.shelf.now == "s1"
    assert world.client.serving_state().serving.snapshot_id == "s1"
    assert world.client.rollback_snapshot().snapshot_id == "s2"
    assert world.client.activate_snapshot("s1").snapshot_id == "s1"
    assert opened == ["s2"]  # loaded once; what is kept is not loaded again


def test_items_written_meanwhile_are_known_after_a_roll_back(make_world: Callable[..., World]) -> None:
    from recsys.types import Item

    world = make_world(FakeEngine("s1"), FakeEngine("s2"), replay=ALL)
    world.client.activate_snapshot("s2")
    world.client.write_items([Item(item_id="fresh", title="Fresh")])
    world.client.rollback_snapshot()
    assert world.client.rank_items(User(), ["fresh"]).items[0].fallbacks == ()


def test_what_served_before_is_let_go(make_world: Callable[..., World]) -> None:
    world = make_world(FakeEngine("s1"), FakeEngine("s2"), replay=replace(ALL, keep_previous_s=0.05))
    world.client.activate_snapshot("s2")
    end = time.monotonic() + 20
    while world.server.tenants["default"].backend.live._before is not None:
        assert time.monotonic() < end
        time.sleep(0.02)
    with pytest.raises(NotFound):
        world.client.rollback_snapshot()


def request(user_id: str, size: int = 1) -> pb.RankItemsRequest:
    rows = [pb.Candidate(item_id=f"item-{i}") for i in range(size)]
    return pb.RankItemsRequest(user=pb.UserContext(user_id=user_id), candidates=rows)


def test_the_log_is_bounded_in_number_bytes_and_rate() -> None:
    now = [0.0]
    most = request("large", size=100).ByteSize() + 20  # the large one dated, and nothing beside it
    log = RankingLog(ReplayConfig(max_requests=3, max_bytes=most, min_interval_s=1.0), clock=lambda: now[0])
    for turn in range(6):
        log.add(request(f"u{turn}"))
        log.add(request("too soon"))
        now[0] += 1.0
    assert [each.user.user_id for each in log.newest_first()] == ["u5", "u4", "u3"]
    log.add(request("large", size=100))
    assert [each.user.user_id for each in log.newest_first()] == ["large"]
    assert log.size_bytes <= most
    now[0] += 1.0
    log.add(request("larger than all", size=1_000))
    assert (len(log), log.size_bytes) == (0, 0)


def test_a_logged_request_keeps_its_time_and_is_a_copy() -> None:
    log = RankingLog(ALL, clock=lambda: 1.5e9)
    asked = request("u")
    log.add(asked)
    asked.user.user_id = "changed"
    (kept,) = log.newest_first()
    assert kept.user.user_id == "u"
    assert kept.user.request_time.seconds == 1_500_000_000


def test_the_file_is_private_and_outlives_a_restart(make_world: Callable[..., World], tmp_path: Path) -> None:
    path = tmp_path / "rankings.log"
    config = replace(ALL, path=path)
    world = make_world(FakeEngine("s1"), replay=config)
    ask(world, times=4)
    world.server.stop()
    assert path.stat().st_mode & 0o777 == 0o600
    engine = FakeEngine("s1")
    make_world(engine, replay=config)
    assert {user.user_id for user in engine.asked} == {"u0", "u1", "u2", "u3"}  # warmed by them before it served


def test_a_file_that_others_may_read_is_not_read_and_damage_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rankings.log"
    log = RankingLog(replace(ALL, path=path))
    log.add(request("u1"))
    log.add(request("u2"))
    log.save()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{", '{"kind": "RankItemsRequest", "request": "!"}', "[]", lines[1]]))
    again = RankingLog(replace(ALL, path=path))
    again.load()
    assert [each.user.user_id for each in again.newest_first()] == ["u2", "u1"]
    path.chmod(0o640)
    closed = RankingLog(replace(ALL, path=path))
    closed.load()
    assert len(closed) == 0


def test_a_user_is_forgotten_in_memory_and_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rankings.log"
    log = RankingLog(replace(ALL, path=path))
    for user_id in ("canary", "other", "canary"):
        log.add(request(user_id))
    log.save()
    assert log.forget("canary") == 2
    assert log.forget("canary") == 0
    again = RankingLog(replace(ALL, path=path))
    again.load()
    assert [each.user.user_id for each in again.newest_first()] == ["other"]


def test_senseless_thresholds_are_refused() -> None:
    for wrong in ({"min_overlap": 2.0}, {"min_correlation": -1.5}, {"max_latency_ratio": 0.0}, {"max_requests": -1}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            ReplayConfig(**wrong)
