"""What is counted, and that no label tells of anybody."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from recsys.errors import InvalidInput, NotFound
from recsys.serve.ops.watching import InnerWatch, OuterWatch
from recsys.types import Candidate, Event, User
from recsys.watch import stage, watch
from tests.serve.conftest import World
from tests.serve.fake import FakeEngine
from tests.serve.ops.conftest import fetch

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(world: World) -> Samples:
    status, text, _ = fetch(world, "/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


def test_calls_are_counted_by_method_and_code(open_world: Callable[..., World]) -> None:
    world = open_world()
    for _ in range(3):
        world.client.rank_items(User(user_id="canary-user"), ["item-1", Candidate(text="canary text")])
    with pytest.raises(InvalidInput):
        world.client.rank_items(User(), [])
    with pytest.raises(NotFound):
        world.client.explain("canary-ranking")
    found = read(world)
    assert value(found, "recsys_calls_total", method="RankItems", code="OK") == 3
    assert value(found, "recsys_calls_total", method="RankItems", code="INVALID_ARGUMENT") == 1
    assert value(found, "recsys_refusals_total", method="RankItems", reason="INVALID_INPUT") == 1
    assert value(found, "recsys_refusals_total", method="ExplainRanking", reason="NOT_FOUND") == 1
    assert value(found, "recsys_call_seconds_count", method="RankItems") == 4
    assert value(found, "recsys_batch_rows_sum", method="RankItems") == 6
    assert value(found, "recsys_fallbacks_total", reason="unknown_user") == 3
    assert value(found, "recsys_cache_lookups_total", cache="rankings", result="miss") == 1


def test_stages_and_waits_are_timed(open_world: Callable[..., World]) -> None:
    def work() -> None:
        with stage("match"):
            pass

    world = open_world(FakeEngine(before=work))
    world.client.rank_items(User(), ["item-1"])
    found = read(world)
    for name in ("decode", "match", "encode"):
        assert value(found, "recsys_stage_seconds_count", method="RankItems", stage=name) == 1
    assert value(found, "recsys_queue_wait_seconds_count", method="RankItems") == 1
    world.client.write_events([Event(user_id="u", item_id="item-1")])
    assert value(read(world), "recsys_stage_seconds_count", method="WriteEvents", stage="commit") == 1


def test_what_serves_is_told(open_world: Callable[..., World]) -> None:
    world = open_world(FakeEngine(created=1_700_000_000.0))
    written = world.client.write_events([Event(user_id="u", item_id="item-1")])
    world.client.rank_items(User(user_id="u"), ["item-1"])
    found = read(world)
    assert value(found, "recsys_ready") == 1
    assert value(found, "recsys_items") == 40
    assert value(found, "recsys_snapshot_age_seconds") > 0
    assert value(found, "recsys_watermark_timestamp_seconds") == written.watermark
    assert value(found, "recsys_kept_rankings") == 1
    assert value(found, "recsys_logged_requests") == 1
    assert value(found, "recsys_calls_inside", lane="work") == 0
    (labels,) = [dict(labels) for name, labels in found if name == "recsys_snapshot_info"]
    assert labels["snapshot_id"] == "s1"


def test_no_label_holds_what_callers_sent(open_world: Callable[..., World]) -> None:
    world = open_world()
    world.client.write_events([Event(user_id="canary-user", item_id="canary-item", event_id="canary-event")])
    world.client.rank_items(User(user_id="canary-user"), ["canary-item", Candidate(text="canary")])
    world.client.list_memories("canary-user", query_text="canary")
    with pytest.raises(InvalidInput):
        world.client.explain(User(user_id="canary-user"), ["canary-item"])
    bad = world.channel.unary_unary("/recsys.v1.RankingService/Canary")
    with pytest.raises(grpc.RpcError):
        bad(b"", timeout=10)
    _, text, _ = fetch(world, "/metrics")
    assert "canary" not in text.lower()


def test_servers_do_not_share_a_registry(open_world: Callable[..., World]) -> None:
    first, second = open_world(), open_world()
    first.client.rank_items(User(), ["item-1"])
    assert value(read(first), "recsys_calls_total", method="RankItems", code="OK") == 1
    assert value(read(second), "recsys_calls_total", method="RankItems", code="OK") == 0
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("recsys")]


def test_nothing_watches_where_nobody_looks(make_world: Callable[..., World]) -> None:
    world = make_world()
    assert world.server.admin_port is None
    assert not world.server._operations.outer
    assert not world.server._operations.inner
    assert all(not isinstance(each, OuterWatch | InnerWatch) for each in world.server._operations.outer)


def test_a_stage_is_reported_also_when_it_fails() -> None:
    class Notes:
        def __init__(self) -> None:
            self.names: list[str] = []

        def stage(self, name: str, seconds: float) -> None:
            assert seconds >= 0
            self.names.append(name)

        def cache(self, name: str, hits: int, misses: int) -> None:
            raise AssertionError(name)

    notes = Notes()
    watch(notes)
    try:
        with pytest.raises(ZeroDivisionError), stage("rank"):
            raise ZeroDivisionError
    finally:
        watch(None)
    with stage("unwatched"):
        pass
    assert notes.names == ["rank"]
