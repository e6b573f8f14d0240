"""A small shop in tables, an encoder of words, and rebuilds of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from indexer.rebuild import RebuildConfig, rebuild
from indexer.result import Rebuilt
from indexer.run import LocalRunner, Runner
from recsys.encode.text import TextEncoder
from recsys.rank import RankerConfig
from recsys.snapshot import current_id
from recsys.train.fit import TrainConfig
from recsys.train.stages import StageConfig
from tests.world import DAY_S, ENCODER, START_S

QUICK = TrainConfig(
    stages=StageConfig(test_days=60.0, validation_days=40.0),
    ranker=RankerConfig(max_trees=20, min_data_in_leaf=20, patience=10, learning_rate=0.1, num_threads=1),
)


@dataclass(frozen=True)
class Words:
    """Vectors of words alone: no weights to load, in no process."""

    def load(self) -> TextEncoder:
        return ENCODER


def events(num_users: int = 60, num_items: int = 40, *, seed: int = 0, id_prefix: str = "e") -> pl.DataFrame:
    """Lives of 4 to 20 events; times of different events differ."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 21, num_users)
    users = np.repeat(np.arange(num_users), lengths)
    size = len(users)
    return pl.DataFrame(
        {
            "user_id": [f"ada-{user}" for user in users],
            "item_id": [f"i{item}" for item in rng.integers(0, num_items, size)],
            "event_type": rng.choice(["view", "purchase", "return"], size, p=[0.6, 0.3, 0.1]).tolist(),
            "timestamp": START_S + rng.permutation(size) * (700 * DAY_S / size),
            "value": [[1.0, 2.0, None][each] for each in rng.integers(0, 3, size)],
            "session_id": [["s1", "s2", None][each] for each in rng.integers(0, 3, size)],
            "event_id": [f"{id_prefix}{row}" for row in range(size)],
        },
        schema_overrides={"value": pl.Float64, "session_id": pl.String},
    )


def items(num_items: int = 40) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(num_items)],
            "title": [f"maker{row % 7} thing{row}" for row in range(num_items)],
            "description": [f"a kind{row % 5} thing" for row in range(num_items)],
            "categories": [["all", f"kind{row % 5}"] for row in range(num_items)],
        }
    )


@dataclass(frozen=True)
class Tables:
    """Where a test's tables and snapshots lie."""

    home: Path

    @property
    def out(self) -> Path:
        return self.home / "out"

    def write(self, told: pl.DataFrame, known: pl.DataFrame | None = None) -> Tables:
        self.home.mkdir(parents=True, exist_ok=True)
        told.write_parquet(self.home / "events.parquet")
        if known is not None:
            known.write_parquet(self.home / "items.parquet")
        return self

    def config(self, **changes: Any) -> RebuildConfig:
        usual: dict[str, Any] = {
            "out": self.out,
            "events": str(self.home / "events.parquet"),
            "items": str(self.home / "items.parquet"),
            "encoder": Words(),
            "shards": 3,
            "training": QUICK,
        }
        return RebuildConfig(**usual | changes)

    def rebuild(self, *, runner: Runner | None = None, **changes: Any) -> Rebuilt:
        return rebuild(self.config(**changes), runner or LocalRunner())

    @property
    def current(self) -> Path:
        return self.out / "snapshots" / current_id(self.out)


def files(snapshot: Path) -> dict[str, str]:
    """SHA-256 of each file but the manifest, whose time differs."""
    return {
        str(path.relative_to(snapshot)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(snapshot.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def litter(out: Path) -> list[str]:
    """What lies below a snapshot folder and belongs to nobody."""
    writing = out / "writing"
    work = out / ".work"
    found = [path for folder in (writing, work) if folder.is_dir() for path in folder.rglob("*")]
    return sorted(str(path.relative_to(out)) for path in found if path != work / "lock")


def manifest(snapshot: Path) -> dict[str, Any]:
    return dict(json.loads((snapshot / "manifest.json").read_text()))
