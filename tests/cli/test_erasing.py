"""delete-user, export-user and sweep, on a store and snapshots here and through a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from recsys.store import EventStore
from recsys.types import Event
from tests.cli.conftest import STEPS, USERS, Run, World

STORE = ("--store", "events.sqlite")


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_user_is_exported_erased_and_swept(run: Run, world: World, tmp_path: Path) -> None:
    shutil.copytree(world.snapshots, "snapshots")
    where = (*STORE, "--snapshots", "snapshots")
    with EventStore.open("events.sqlite") as store:
        store.write_events([Event(user_id="u3", item_id="a3-1", timestamp=1.7e9, event_id="late")])
    held = lines(run("export-user", "u3", *where).out)
    assert [each["source"] for each in held] == ["store"] + [held[-1]["source"]] * STEPS
    assert held[0]["event_id"] == "late"
    assert run("export-user", "u3", *where, "--out", "u3.jsonl").code == 0
    assert lines(Path("u3.jsonl").read_text()) == held

    assert json.loads(run("delete-user", "u3", *where, "--json", "-").out)["num_events"] == 1
    # Masked at once, also for this command line; the files follow with the sweep.
    assert [each["kind"] for each in lines(run("export-user", "u3", *where).out)] == ["erased"]
    told = json.loads(run("recommend", "--user", "u3", *where, "--json", "-").out)
    assert "unknown_user" in told["fallbacks"]
    assert json.loads(run("export", "out", *where, "--json", "-").out)["events"] == (USERS - 1) * STEPS

    swept = json.loads(run("sweep", *where, "--json", "-").out)
    assert len(swept["renamed"]) == 1
    assert swept["store_clean"] is True
    assert json.loads(run("sweep", *where, "--json", "-").out)["renamed"] == {}
    assert json.loads(run("export", "out", *where, "--json", "-").out)["events"] == (USERS - 1) * STEPS


def test_without_a_store_there_is_nothing_to_export(run: Run, world: World) -> None:
    found = run("export-user", "u3", *STORE, "--snapshots", world.snapshots)
    assert found.code == 2
    assert "no event store at events.sqlite" in found.err
    assert not Path("events.sqlite").exists()
