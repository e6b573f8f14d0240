"""rank, recommend, explain: known answers, here and through a server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from recsys.serve import Server, ServerConfig
from recsys.serve.shelf import SnapshotShelf
from recsys.store import EventStore
from recsys.types import Event
from tests.cli.conftest import LENGTH, STEPS, Result, Run, World

USER = "u1"  # of aisle 1, began at place 0
NEXT = f"a1-{STEPS % LENGTH}"


@pytest.fixture(scope="module")
def target(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config = ServerConfig(port=0, lame_duck_s=0.0)
    store = EventStore.open(tmp_path_factory.mktemp("store") / "events.sqlite")
    with Server(config, shelf=SnapshotShelf(world.snapshots), store=store) as server:
        yield f"127.0.0.1:{server.port}"


def ids(found: Result) -> list[str]:
    assert found.code == 0, found.err
    return [row["item_id"] for row in json.loads(found.out)["items"]]


def test_recommends_what_comes_next_in_the_aisle(run: Run, world: World) -> None:
    found = run("recommend", "--snapshots", world.snapshots, "--user", USER, "-k", 3, "--json", "-")
    assert ids(found)[0] == NEXT


def test_someone_new_is_known_by_what_they_took(run: Run, world: World) -> None:
    taken = ("--event", "a2-3", "--event", "a2-4")
    found = run("recommend", "--snapshots", world.snapshots, *taken, "-k", 1, "--json", "-")
    assert ids(found) == ["a2-5"]


def test_what_is_excluded_stays_away(run: Run, world: World) -> None:
    where = ("--snapshots", world.snapshots, "--user", USER)
    found = run(
        "recommend", *where, "--exclude", NEXT, "--category", "aisle 1", "--include-seen", "-k", 50, "--json", "-"
    )
    assert set(ids(found)) == {f"a1-{place}" for place in range(LENGTH)} - {NEXT}


def test_ranks_items_and_texts(run: Run, world: World) -> None:
    arguments = ("--snapshots", world.snapshots, "--user", USER, "--text", "a text", "--json", "-")
    rows = json.loads(run("rank", "a3-0", NEXT, "nosuch", *arguments).out)
    assert rows["items"][0]["item_id"] == NEXT
    assert sorted(row["index"] for row in rows["items"]) == [0, 1, 2, 3]
    assert set(rows["fallbacks"]) >= {"unknown_item", "cold_item"}


def test_an_explanation_adds_up(run: Run, world: World) -> None:
    found = run("explain", NEXT, "--snapshots", world.snapshots, "--user", USER, "--json", "-")
    (why,) = json.loads(found.out)
    assert why["base"] + sum(why["contributions"].values()) == pytest.approx(why["score"], abs=1e-4)
    assert all(memory["event"]["item_id"].startswith("a1-") for memory in why["memories"])


def test_the_lines_of_an_explanation_add_up_to_the_score(run: Run, world: World) -> None:
    found = run("explain", "a3-0", "--snapshots", world.snapshots, "--user", USER).out
    score = float(found.partition("score ")[2].split()[0])
    lines = [line.split()[0] for line in found.splitlines() if line.startswith(("  +", "  -"))]
    assert "the rest and the base" in found
    assert sum(map(float, lines)) == pytest.approx(score, abs=1e-9)


def test_what_nobody_knows_is_named(run: Run, world: World, target: str) -> None:
    for where in (("--snapshots", world.snapshots), ("--target", target)):
        found = run("recommend", "--event", "a2-3", "--event", "nosuch", *where).out
        assert "--event nosuch: this item is unknown" in found
        assert "--event a2-3" not in found
        found = run("recommend", "--user", USER, "--category", "nope", "--category", "aisle 1", *where).out
        assert "--category nope: no item has this category" in found
        assert "--category aisle 1" not in found


def test_an_unknown_item_cannot_be_explained(run: Run, world: World) -> None:
    found = run("explain", "nosuch", "--snapshots", world.snapshots)
    assert found.code == 2
    assert "nosuch" in found.err


def test_people_see_titles(run: Run, world: World) -> None:
    found = run("recommend", "--snapshots", world.snapshots, "--user", USER, "-k", 3)
    assert f"Thing {STEPS % LENGTH} of aisle 1" in found.out


def test_a_server_answers_as_the_snapshot_does(run: Run, world: World, target: str) -> None:
    for user in ("u2", "u3", "somebody else"):
        question = ("recommend", "--user", user, "--json", "-")
        assert ids(run(*question, "--target", target)) == ids(run(*question, "--snapshots", world.snapshots))


def test_a_server_ranks_and_explains(run: Run, world: World, target: str) -> None:
    assert ids(run("rank", "a3-0", NEXT, "--user", USER, "--target", target, "--json", "-"))[0] == NEXT
    found = run("explain", NEXT, "--user", USER, "--target", target)
    assert found.code == 0
    assert NEXT in found.out


def test_the_store_speaks_where_the_snapshot_ends(run: Run, world: World) -> None:
    with EventStore.open("events.sqlite") as store:
        store.write_events([Event(user_id="new", item_id=f"a0-{place}", timestamp=1.7e9 + place) for place in (1, 2)])
    where = ("--snapshots", world.snapshots, "--store", "events.sqlite")
    assert ids(run("recommend", "--user", "new", "-k", 1, "--json", "-", *where)) == ["a0-3"]
