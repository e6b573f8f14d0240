"""How fast a trained engine ranks over gRPC, beside the plain script (`benchmarks.plain`), for lives of all lengths.

    python -m benchmarks.serve [--quick] [--snapshot ROOT] [--json FILE]

`recsys serve` and the plain script each run in a process of their own over one snapshot and answer the same requests on
loopback, in turns, so that a busy machine is busy for both. For each life and number of candidates:

    calls/s    answers a second while twice as many callers as there are cores never pause
    p50 ...    in ms, counted from the moment a call was due, at half those calls/s offered at random moments
    goodput    answers within 250 ms a second, at twice those calls/s offered (left out by --quick)

One user asking again and again is warm: the engine keeps a bounded summary of the life. "strangers" are as many users
of the data as there are calls to be expected, so that each is read for the first time.

ROOT is a folder of snapshots that holds the lives, or takes what is trained for others to ask again.
The data are MovieLens 1M where they lie beside the project, else the demo's; with --quick the 3,000 films of the demo
that most have seen. Lives of up to 100,000 events are written into them; 0 events is a user never heard of.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._lives import drawn, life_id, most_met, with_lives
from benchmarks._servers import both
from benchmarks._traffic import Traffic, arrivals, ask, joined, offer, saturate
from recsys.client import calls
from recsys.data.dataset import Dataset, load_dataset
from recsys.data.demo import load_demo
from recsys.encode.text import TextEncoder
from recsys.evaluate.build import encode_items
from recsys.lives import Lives
from recsys.model import Model, ModelSettings
from recsys.snapshot import open_snapshot
from recsys.train.fit import TrainConfig, make_stages, train_model, train_ranker
from recsys.train.publish import publish
from recsys.train.stages import StageConfig
from recsys.types import User
from recsys.v1 import ranking_service_pb2 as pb

MOVIELENS = Path(__file__).resolve().parents[2] / "shared" / "data" / "ml-1m"
SEED = 7
REQUESTS = 32
"""Different requests a case, so that no answer is worth keeping for the next call."""
TIMEOUT_S, OBJECTIVE_S = 10.0, 0.25
PACKAGES = ("numpy", "scipy", "torch", "faiss-cpu", "lightgbm", "grpcio", "protobuf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked: events of the lives (0: a cold user), candidates a request; rounds, seconds a measurement.

    `num_items`: the most popular items only, None for all.
    """

    lengths: tuple[int, ...] = (0, 1_000, 10_000, 100_000)
    strangers: int = 3_000
    candidates: tuple[int, ...] = (100, 500, 1_000)
    rounds: int = 3
    saturated_s: float = 4.0
    offered_s: float = 8.0
    overloaded_s: float = 4.0
    train_queries: int = 6_000
    num_items: int | None = None

    @property
    def warm(self) -> list[tuple[int, int]]:
        """(events, candidates) of each case of one user."""
        return [(events, count) for events in self.lengths for count in self.candidates]


QUICK = Plan(
    lengths=(1_000, 100_000),
    strangers=0,
    candidates=(100, 500),
    rounds=1,
    saturated_s=1.2,
    offered_s=2.0,
    overloaded_s=0.0,
    train_queries=300,
    num_items=3_000,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One server's figures in one case; `events` None are those of strangers."""

    server: str
    events: int | None
    candidates: int
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    goodput_per_s: float | None
    calls: int
    failed: Mapping[str, int]


def publish_snapshot(dataset: Dataset, plan: Plan, root: Path) -> Path:
    """Trains on `dataset`, remembers the lives as well, and publishes below `root`; the snapshot's folder."""
    encoder = TextEncoder.load()
    items = encode_items(dataset, encoder)
    stages = StageConfig(train_queries=plan.train_queries, validation_queries=plan.train_queries // 2)
    config = TrainConfig(stages=stages)
    made = make_stages(dataset.histories, items, config)
    ranker, _ = train_ranker(made, items, config)
    settings = ModelSettings(encoder=None, encoder_fingerprint=encoder.fingerprint, include_seen=made.include_seen)
    told = with_lives(dataset, [length for length in plan.lengths if length], seed=SEED)
    return open_snapshot(root, publish(train_model(told, items, settings, ranker, config), root)).path


def make_requests(dataset: Dataset, num_events: int, num_candidates: int) -> list[bytes]:
    """RankItems for one life, each with other candidates."""
    rng = np.random.default_rng((SEED, num_events, num_candidates))
    user = User(user_id=life_id(num_events) if num_events else "nobody")
    asked = (calls.rank_items(user, drawn(dataset, num_candidates, rng), 0, False) for _ in range(REQUESTS))
    return [call.request.SerializeToString() for call in asked]


def of_strangers(dataset: Dataset, count: int, num_candidates: int) -> list[bytes]:
    """RankItems of `count` users drawn from the data, each with other candidates."""
    rng = np.random.default_rng((SEED, count, num_candidates))
    users = rng.permutation(len(dataset.users))[:count].tolist()
    asked = (
        calls.rank_items(User(user_id=dataset.users.ids[row]), drawn(dataset, num_candidates, rng), 0, False)
        for row in users
    )
    return [call.request.SerializeToString() for call in asked]


def kept_bytes(root: Path, lengths: Sequence[int]) -> dict[str, int]:
    """What the engine keeps of each life: the summary, and until the next event what its matchers found."""
    model, found = Model.load(open_snapshot(root).path), {}
    for length in lengths:
        states, life = Lives().state(model, model.items, User(user_id=life_id(length)))
        found[f"life_bytes_{length}"] = life.size_bytes
        model.flow.field(states, np.ones((1, len(model.items)), bool), kept=life.kept)
        found[f"life_and_readings_bytes_{length}"] = life.size_bytes
    return found


def check(target: str, request: bytes, num_candidates: int) -> None:
    """A server that answers fast because it answers less would win."""
    answer = pb.RankItemsResponse.FromString(ask(target, request, timeout_s=TIMEOUT_S))
    places = sorted(item.index for item in answer.items)
    if places != list(range(num_candidates)):
        raise SystemExit(f"{target} answered {len(places)} rows for {num_candidates} candidates")


def measure(targets: Mapping[str, str], requests: Sequence[bytes], plan: Plan) -> dict[str, dict[str, Any]]:
    """The figures of each server, in turns."""
    callers = 2 * (os.cpu_count() or 1)
    busy: dict[str, list[Traffic]] = {name: [] for name in targets}
    for _ in range(plan.rounds):
        for name, target in targets.items():
            busy[name].append(
                saturate(target, requests, callers=callers, seconds=plan.saturated_s, timeout_s=TIMEOUT_S)
            )
    rates = {name: joined(parts).calls_per_s for name, parts in busy.items()}
    return {name: _latency(target, requests, rates[name], plan) for name, target in targets.items()}


def _latency(target: str, requests: Sequence[bytes], calls_per_s: float, plan: Plan) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    half = offer(target, requests, arrivals(calls_per_s / 2, plan.offered_s, rng), timeout_s=TIMEOUT_S)
    goodput = None
    if plan.overloaded_s:
        moments = arrivals(calls_per_s * 2, plan.overloaded_s, rng)
        goodput = offer(target, requests, moments, timeout_s=OBJECTIVE_S).calls_per_s
    return {
        "calls_per_s": calls_per_s,
        "p50_ms": half.percentile_ms(50),
        "p99_ms": half.percentile_ms(99),
        "p999_ms": half.percentile_ms(99.9),
        "goodput_per_s": goodput,
        "calls": half.calls,
        "failed": half.failed,
    }


def compare(dataset: Dataset, plan: Plan, snapshots: Path | None = None) -> tuple[list[Figures], dict[str, float]]:
    """All cases, both servers; and what stands beside them. A snapshot is trained where `snapshots` holds none."""
    found: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        root = snapshots or Path(folder)
        trained = (root / "CURRENT").exists()
        snapshot = open_snapshot(root).path if trained else publish_snapshot(dataset, plan, root)
        beside: dict[str, float] = dict(kept_bytes(root, [length for length in plan.lengths if length]))
        with both(root, snapshot, Path(folder)) as (targets, start_s):
            beside["start_s"] = start_s
            cases: list[tuple[int | None, int, list[bytes]]] = [
                (events, count, make_requests(dataset, events, count)) for events, count in plan.warm
            ]
            if plan.strangers:
                cases.append((None, 500, of_strangers(dataset, plan.strangers, 500)))
            for num_events, num_candidates, requests in cases:
                for target in targets.values():
                    check(target, requests[0], num_candidates)
                for name, figures in measure(targets, requests, plan).items():
                    found.append(Figures(server=name, events=num_events, candidates=num_candidates, **figures))
                    _show(found[-1])
    return found, beside


def headline(found: Sequence[Figures]) -> dict[str, float]:
    """The engine's figures at 500 candidates and 1,000 events, and how they compare."""
    at = {(each.server, each.events): each for each in found if each.candidates == 500}
    near, far = at["engine", 1_000], at["engine", 100_000]
    return {
        "p50_ms": near.p50_ms,
        "p99_ms": near.p99_ms,
        "calls_per_s": near.calls_per_s,
        "p50_ratio_100k_1k": far.p50_ms / near.p50_ms,
        "speedup_1k": near.calls_per_s / at["plain", 1_000].calls_per_s,
        "speedup_100k": far.calls_per_s / at["plain", 100_000].calls_per_s,
    }


def _show(figures: Figures) -> None:
    goodput = "" if figures.goodput_per_s is None else f"  goodput {figures.goodput_per_s:6.1f}/s"
    failed = f"  failed {dict(figures.failed)}" if figures.failed else ""
    who = "strangers     " if figures.events is None else f"{figures.events:7,d} events"
    print(
        f"{figures.server:6s} {who} {figures.candidates:5,d} candidates "
        f"{figures.calls_per_s:7.1f} calls/s  p50 {figures.p50_ms:7.1f}  p99 {figures.p99_ms:7.1f}  "
        f"p99.9 {figures.p999_ms:7.1f} ms of {figures.calls}{goodput}{failed}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the demo's data, four cases, a few seconds each")
    parser.add_argument("--snapshot", type=Path, metavar="ROOT", help="ask the snapshot there, or train one into it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    started, plan = time.perf_counter(), QUICK if options.quick else Plan()
    movielens = MOVIELENS.exists() and not options.quick
    dataset = load_dataset(str(MOVIELENS)) if movielens else load_demo()
    some = most_met(dataset, plan.num_items) if plan.num_items else dataset
    found, beside = compare(some, plan, options.snapshot)
    report = (
        headline(found)
        | beside
        | {
            "data": "ml-1m" if movielens else "demo",
            "cases": [asdict(each) for each in found],
            "seconds": time.perf_counter() - started,
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
            "versions": {name: version(name) for name in PACKAGES},
        }
    )
    print("\n".join(f"{name:32s} {report[name]:12,.2f}" for name in headline(found) | beside))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
