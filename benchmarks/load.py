"""How fast ten million events become per-user arrays, and in how much memory.

    python -m benchmarks.load [--quick] [--json FILE]

Writes a seeded event log to a temporary parquet file and times three ways from that file to the same arrays (checked
by digest), each run in a process of its own so that peaks are honest:

    ours     load_dataset: read, check every row (pandera), ids to rows, counting sort
    polars   read, ids to rows, sort by user and time; nothing checked
    pandas   read, factorize, stable sort by user and time, groupby for the sizes; nothing checked

`peak_mb` is the largest resident size less that after the imports. The best of the runs counts: the others measure
the neighbours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.data import dataset as loading

NUM_EVENTS = 10_000_000
NUM_EVENTS_QUICK = 1_000_000
SEED = 7
REPEATS = 3
TYPES = ("view", "click", "cart", "purchase")


def make_log(path: Path, num_events: int) -> None:
    """A year's log in order of arrival: few users and items have most events, 2 % arrive some minutes late."""
    rng = np.random.default_rng(SEED)
    users = (num_events // 50 * rng.random(num_events) ** 2.5).astype(np.int64)
    items = (num_events // 100 * rng.random(num_events) ** 3).astype(np.int64)
    times = 1.7e9 + np.sort(rng.random(num_events)) * 365 * 86400
    late = rng.random(num_events) < 0.02
    times[late] -= rng.exponential(300, int(late.sum()))
    types = rng.choice(len(TYPES), num_events, p=[0.8, 0.14, 0.04, 0.02])
    frame = pl.DataFrame({"user": users, "item": items, "type": types, "time": (times * 1e3).astype(np.int64)})
    frame.select(
        user_id=pl.format("user-{}", "user"),
        item_id=pl.format("item-{}", "item"),
        event_type=pl.col("type").replace_strict(range(len(TYPES)), TYPES, return_dtype=pl.String),
        timestamp=pl.from_epoch("time", time_unit="ms"),
    ).write_parquet(path, row_group_size=1_000_000)


def ours(path: Path) -> tuple[np.ndarray, ...]:
    h = loading.load_dataset(path, now=2e9).histories
    return h.indptr, h.items, h.times, h.types


def polars_sort(path: Path) -> tuple[np.ndarray, ...]:
    frame = pl.read_parquet(path)
    ids = ("user_id", "item_id", "event_type")
    rows = [frame[name].cast(pl.Enum(frame[name].unique(maintain_order=True))).to_physical() for name in ids]
    frame = frame.with_columns(*rows).sort("user_id", "timestamp", maintain_order=True)
    sizes = frame["user_id"].rle().struct.field("len").to_numpy()
    times = frame["timestamp"].dt.epoch("us").to_numpy() / 1e6
    return _indptr(sizes), frame["item_id"].to_numpy(), times, frame["event_type"].to_numpy()


def pandas_sort(path: Path) -> tuple[np.ndarray, ...]:
    import pandas as pd

    frame = pd.read_parquet(path)
    for name in ("user_id", "item_id", "event_type"):
        frame[name] = pd.factorize(frame[name])[0]
    frame = frame.sort_values(["user_id", "timestamp"], kind="stable")
    sizes = frame.groupby("user_id").size().to_numpy()
    times = frame["timestamp"].astype("datetime64[us]").astype(np.int64).to_numpy() / 1e6
    return _indptr(sizes), frame["item_id"].to_numpy(), times, frame["event_type"].to_numpy()


WAYS: dict[str, Callable[[Path], tuple[np.ndarray, ...]]] = {
    "ours": ours,
    "polars": polars_sort,
    "pandas": pandas_sort,
}


def measure(way: str, path: Path) -> dict[str, Any]:
    """Runs one way in this process; `parts` are the seconds of our own steps, side by side where they are so."""
    parts = _stopwatches() if way == "ours" else {}
    pl.scan_parquet(path).head(1).collect()
    before_mb, cpu = _peak_mb(), time.process_time()
    start = time.perf_counter()
    arrays = WAYS[way](path)
    seconds, peak_mb = time.perf_counter() - start, _peak_mb() - before_mb
    return {
        "seconds": seconds,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": peak_mb,
        "parts": parts,
        "digest": _digest(arrays),
    }


def best(way: str, path: Path, repeats: int) -> dict[str, Any]:
    """The fastest of `repeats` runs, each in a fresh process; its peak is the largest of all."""
    command = [sys.executable, "-m", "benchmarks.load", "--measure", way, str(path)]
    outputs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(repeats)]
    runs: list[dict[str, Any]] = [json.loads(output) for output in outputs]
    return min(runs, key=lambda run: run["seconds"]) | {"peak_mb": max(run["peak_mb"] for run in runs)}


def compare(num_events: int) -> dict[str, Any]:
    """Measures all ways on one log."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        make_log(path, num_events)
        found = {way: best(way, path, REPEATS) for way in WAYS}
    if len({run.pop("digest") for run in found.values()}) > 1:
        raise SystemExit("the three ways disagree about the arrays")
    mine = found["ours"]
    return {
        "seconds": mine["seconds"],
        "peak_mb": mine["peak_mb"],
        "events": num_events,
        "ratio_polars_sort": found["polars"]["seconds"] / mine["seconds"],
        "ratio_pandas": found["pandas"]["seconds"] / mine["seconds"],
        "ways": found,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['events']:,} events; {result['cores']} cores, load average {result['load_average']:.1f}")
    for way, run in result["ways"].items():
        print(f"{way:8s} {run['seconds']:6.2f} s  {run['cpu_s']:6.2f} s of CPU  {run['peak_mb']:6.0f} MB at the peak")
    print(f"ours is {result['ratio_polars_sort']:.1f} x polars sort, {result['ratio_pandas']:.1f} x pandas")
    print("of ours: " + ", ".join(f"{name} {spent:.2f} s" for name, spent in result["ways"]["ours"]["parts"].items()))


def _stopwatches() -> dict[str, float]:
    """Puts a stopwatch on each step of the loader; reading overlaps with the others and has none of its own."""
    spent: dict[str, float] = {}
    steps = [
        (loading, "bad_rows", "checks"),
        (loading._EventReader, "_add", "ids to rows"),
        (loading._Coder, "finish", "one numbering for all batches"),
        (loading, "histories_from_events", "grouping"),
    ]
    for owner, name, label in steps:
        setattr(owner, name, _timed(getattr(owner, name), spent, label))
    return spent


def _timed(function: Callable[..., Any], spent: dict[str, float], label: str) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        out = function(*args, **kwargs)
        spent[label] = spent.get(label, 0.0) + time.perf_counter() - start
        return out

    return run


def _indptr(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)])


def _digest(arrays: tuple[np.ndarray, ...]) -> str:
    indptr, items, times, types = arrays
    # Microseconds: polars divides by multiplying, which leaves the last bit of a float to chance.
    micros = np.round(times * 1e6)
    digest = hashlib.sha256()
    for array, dtype in ((indptr, np.int64), (items, np.int32), (micros, np.int64), (types, np.int16)):
        digest.update(np.ascontiguousarray(array, dtype).data)
    return digest.hexdigest()


def _peak_mb() -> float:
    # Not getrusage: its maximum survives exec, and would be that of the process that started this one.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Time from a parquet event log to per-user arrays.")
    parser.add_argument("--quick", action="store_true", help=f"{NUM_EVENTS_QUICK:,} events, not {NUM_EVENTS:,}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, path = arguments.measure
        print(json.dumps(measure(way, Path(path))))
        return
    result = compare(NUM_EVENTS_QUICK if arguments.quick else NUM_EVENTS)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
