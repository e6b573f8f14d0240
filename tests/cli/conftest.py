"""A shop whose next item is provable: each user walks along one of four aisles, ten items long, over and over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.cli import main

AISLES, LENGTH, USERS, STEPS = 4, 10, 80, 9
DAY_S = 86_400
START_S = 1_600_000_000

CONFIG = """
[stages]
train_queries = 400
validation_queries = 100
test_queries = 100
test_days = 20
validation_days = 20

[ranker]
max_trees = 20
min_data_in_leaf = 5
num_threads = 1
"""


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


def write_shop(folder: Path) -> Path:
    """Users begin at places of their own and take the next item of their aisle every 10 days or so."""
    folder.mkdir()
    events = [
        {
            "user_id": f"u{user}",
            "item_id": f"a{user % AISLES}-{(user // AISLES + step) % LENGTH}",
            "event_type": "purchase",
            "timestamp": START_S + step * 10 * DAY_S + user * 3_600,
        }
        for user in range(USERS)
        for step in range(STEPS)
    ]
    items = [
        {"item_id": f"a{aisle}-{place}", "title": f"Thing {place} of aisle {aisle}", "categories": [f"aisle {aisle}"]}
        for aisle in range(AISLES)
        for place in range(LENGTH)
    ]
    pl.DataFrame(events).write_parquet(folder / "events.parquet")
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    return folder


@dataclass(frozen=True, slots=True)
class World:
    """A shop and a snapshot of it, made by the command line itself."""

    shop: Path
    snapshots: Path
    config: Path
    report: Path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("world")
    made = World(write_shop(home / "shop"), home / "snapshots", home / "config.toml", home / "report.json")
    made.config.write_text(f'{CONFIG}\n[paths]\nvectors = "{home / "vectors"}"\n')
    arguments = ["train", made.shop, "--snapshots", made.snapshots, "--config", made.config, "--json", made.report]
    with pytest.raises(SystemExit) as left:
        main([str(each) for each in arguments])
    assert left.value.code == 0
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*arguments: Any) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(each) for each in arguments])
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        assert "Traceback" not in said.out + said.err
        return Result(left.value.code, said.out, said.err)

    return call
