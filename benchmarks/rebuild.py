"""What a rebuild costs, whole and with 1 % changed, beside sentence-transformers and a plain FAISS index.

    python -m benchmarks.rebuild [--quick] [--data DIR] [--workers N] [--json out.json]

DIR holds events.parquet and items.parquet; without it the demo's films are taken. Changed are 1 % of the users, who
have done three things more, and the texts of 1 % of the items. The peer encodes the same texts with
`SentenceTransformer.encode` and its defaults and adds the vectors to an `IndexFlatIP`; it knows no events.

    full_seconds        wall time of a whole rebuild, without training
    incremental_ratio   CPU time with 1 % changed, over that of the whole
    encode_ratio        CPU time of the peer, over that of the texts step; wall time with several threads or workers
    ray_equal           whether the other runners made the same snapshot; null where there is none
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from indexer.rebuild import RebuildConfig, rebuild
from indexer.run import LocalRunner
from recsys import _native
from recsys.data.catalogue import Catalogue
from recsys.data.demo import load_demo
from recsys.data.export import write_events, write_items
from recsys.encode.text import TextEncoder

import faiss  # isort: skip
from sentence_transformers import SentenceTransformer  # isort: skip

CHANGED, NEW_EVENTS = 0.01, 3
RUNNERS: dict[str, Callable[[int], LocalRunner]] = {"local": LocalRunner}
"""The first is the measure of the others."""


@dataclass(slots=True)
class Clock:
    """Seconds of wall and CPU (children included); as a progress callback it also times the texts."""

    begun: tuple[float, float] = field(default_factory=lambda: _now())
    texts: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, what: str, done: int, total: int) -> None:
        if what == "shards of texts":
            self.texts.append(_now())

    def passed(self) -> tuple[float, float]:
        return _between(self.begun, _now())

    def passed_in_texts(self) -> tuple[float, float]:
        return _between(self.texts[0], self.texts[-1])


def _now() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used)


def _between(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    return end[0] - start[0], end[1] - start[1]


def tables(data: Path | None, folder: Path, *, quick: bool) -> None:
    """The data set's two tables, or a part of them, in `folder`."""
    if data is None:
        demo = load_demo()
        write_events(demo, folder / "events.parquet")
        write_items(demo.catalogue, folder / "items.parquet")
        data = folder
    events, items = (pl.read_parquet(data / f"{name}.parquet") for name in ("events", "items"))
    if quick:
        items = items.head(300)
        events = events.filter(pl.col("item_id").is_in(items["item_id"].to_list()))
    events.write_parquet(folder / "events.parquet")
    items.write_parquet(folder / "items.parquet")


def change(folder: Path, rng: np.random.Generator) -> None:
    """The tables with 1 % of the users and 1 % of the items changed."""
    events, items = (pl.read_parquet(folder / f"{name}.parquet") for name in ("events", "items"))
    users = events["user_id"].unique().sort()
    some = users.gather(np.sort(rng.choice(len(users), max(1, int(CHANGED * len(users))), replace=False)))
    clock = next(name for name in ("timestamp", "seconds_since_first", "position") if name in events.columns)
    last = events.filter(pl.col("user_id").is_in(some.to_list())).sort(clock).group_by("user_id").last()
    ids = rng.choice(items["item_id"].to_numpy(), (NEW_EVENTS, len(last)))
    more = [last.with_columns(item_id=pl.Series(row.tolist(), dtype=events["item_id"].dtype)) for row in ids]
    pl.concat([events, *(part.select(events.columns) for part in more)]).write_parquet(folder / "events.parquet")
    chosen = np.zeros(len(items), bool)
    chosen[rng.choice(len(items), max(1, int(CHANGED * len(items))), replace=False)] = True
    title = pl.when(pl.Series(chosen)).then(pl.col("title") + " (new)").otherwise("title")
    items.with_columns(title.alias("title")).write_parquet(folder / "items.parquet")


def rebuilt(folder: Path, out: Path, workers: int, runner: str = "local") -> tuple[dict[str, Any], Clock]:
    """One rebuild of the tables in `folder`, and what it took."""
    config = RebuildConfig(out=out, events=str(folder / "events.parquet"), items=str(folder / "items.parquet"))
    clock = Clock()
    with RUNNERS[runner](workers) as mapping:
        done = rebuild(config, mapping, clock)
    wall_s, cpu_s = clock.passed()  # after the workers have ended: only then does the system count them
    facts = {
        "snapshot_id": done.snapshot_id,
        "wall_seconds": wall_s,
        "cpu_seconds": cpu_s,
        "items_per_s": done.num_items / wall_s,
        "events_per_s": done.num_events / wall_s,
        "items": done.num_items,
        "events": done.num_events,
        "texts_encoded": done.texts_encoded,
        "moments_coded": done.moments_coded,
        "moments_carried": done.moments_carried,
        "steps": done.seconds,
        **done.figures,
    }
    return facts, clock


def peer(texts: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of reading the model, encoding and adding to a flat index."""
    begun = _now()
    vectors = SentenceTransformer(str(TextEncoder.load().folder), device="cpu").encode(texts)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return _between(begun, _now())


def measured(folder: Path, workers: int) -> dict[str, Any]:
    """The report."""
    full, clock = rebuilt(folder, folder / "local", workers)
    others = [rebuilt(folder, folder / name, workers, name)[0] for name in list(RUNNERS)[1:]]
    theirs = peer(list(dict.fromkeys(Catalogue.read(_current(folder / "local")).texts)))
    change(folder, np.random.default_rng(0))
    some, _ = rebuilt(folder, folder / "local", workers)
    by_cpu = workers == 1 and _native.threads() == 1
    ours_s = clock.passed_in_texts()[by_cpu]
    return {
        "encode_ratio": theirs[by_cpu] / ours_s,
        "incremental_ratio": some["cpu_seconds"] / full["cpu_seconds"],
        "incremental_wall_ratio": some["wall_seconds"] / full["wall_seconds"],
        "ray_equal": all(each["snapshot_id"] == full["snapshot_id"] for each in others) if others else None,
        "full_seconds": full["wall_seconds"],
        "peer_items_per_s": full["items"] / theirs[0],
        "full": full,
        "incremental": some,
        "threads": _native.threads(),
        "workers": workers,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def _current(out: Path) -> Path:
    return out / "snapshots" / (out / "CURRENT").read_text().strip() / "catalogue.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 items and what was done with them")
    parser.add_argument("--data", type=Path, help="folder of events.parquet and items.parquet; the demo's by default")
    parser.add_argument("--workers", type=int, default=1, help="processes that build shards")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tables(options.data, Path(name), quick=options.quick)
        report = measured(Path(name), options.workers)
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
