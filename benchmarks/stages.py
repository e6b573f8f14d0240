"""Where the time of one ranking call goes, stage by stage, in microseconds of one thread in one process.

    python -m benchmarks.stages [--quick] [--snapshot ROOT] [--json FILE]

500 candidates, lives of 1,000 and 100,000 events, the best of many runs of each stage: what it costs while nothing
else has the core. ROOT is a folder of snapshots that holds those lives; without it one is trained as by
`benchmarks.serve`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks._lives import life_id, most_met
from benchmarks.serve import MOVIELENS, QUICK, Plan, publish_snapshot
from recsys import _native
from recsys.data.dataset import load_dataset
from recsys.data.demo import load_demo
from recsys.data.packed import PackedIds
from recsys.features import build_features, read_scores
from recsys.flow import allowed_mask, distinct
from recsys.lives import Lives
from recsys.model import Model
from recsys.serve.answers import RankAnswer
from recsys.snapshot import open_snapshot
from recsys.types import RankedColumns, User
from recsys.v1 import ranking_service_pb2 as pb

CANDIDATES, RUNS = 500, 60


def best_us(work: Callable[[], object], runs: int = RUNS) -> float:
    """The shortest of `runs`."""
    took_s = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        took_s.append(time.perf_counter() - began)
    return 1e6 * min(took_s)


def stages(model: Model, num_events: int) -> dict[str, float]:
    """Each stage of one call; what says "kept" happens once an event, the others once a call."""
    flow, items, user = model.flow, model.items, User(user_id=life_id(num_events))
    lives, found = Lives(), {}
    found["life, read whole (once a user)"] = best_us(lambda: Lives().state(model, items, user), 10)
    states, _ = lives.state(model, items, user)
    found["life, warm"] = best_us(lambda: lives.state(model, items, user))
    rng = np.random.default_rng(0)
    popularity = model.popularity + 1.0
    rows = rng.choice(len(popularity), CANDIDATES, replace=False, p=popularity / popularity.sum())
    ids = [items.catalogue.ids.ids[row] for row in rows.tolist()]
    found["ids to rows"] = best_us(lambda: items.catalogue.ids.rows(ids, unknown=-1))
    allowed = allowed_mask(states, include_seen=model.settings.include_seen)
    readings = []
    for matcher in flow.matchers:
        reading = matcher.read(states)
        how = "read (kept)" if hasattr(reading, "renewed") else "read"
        found[f"{matcher.name}: {how}"] = best_us(lambda matcher=matcher: matcher.read(states))  # type: ignore[misc]
        readings.append(reading)
    proposed = [reading.propose(allowed) for reading in readings]
    asked = np.unique(rows).astype(np.int32)[None]
    candidates = distinct(np.concatenate([*proposed, asked], axis=1))
    for matcher, reading in zip(flow.matchers, readings, strict=True):
        found[f"{matcher.name}: propose (kept)"] = best_us(lambda reading=reading: reading.propose(allowed))  # type: ignore[misc]
        found[f"{matcher.name}: score"] = best_us(lambda reading=reading: reading.score(candidates))  # type: ignore[misc]
    found["one list of all"] = best_us(lambda: distinct(np.concatenate([*proposed, asked], axis=1)))
    scores = read_scores(readings, candidates)
    features = build_features(flow.signals, states, candidates, scores, flow.met)
    found["features"] = best_us(lambda: build_features(flow.signals, states, candidates, scores, flow.met))
    if model.ranker is not None:
        ranker = model.ranker
        found[f"ranker ({ranker.kernel}, {ranker.booster.num_trees()} trees)"] = best_us(
            lambda: ranker.score(features[0])
        )
    rows_ = RankedColumns(item_ids=PackedIds.of(ids), scores=[0.5] * len(ids), indices=list(range(len(ids))))
    found["answer"] = best_us(RankAnswer(pb.RankItemsResponse(), rows_).to_bytes)
    kept = [us for name, us in found.items() if name.endswith("(kept)")]
    found["a call, summed: nothing new of the user"] = (
        sum(found.values()) - sum(kept) - found["life, read whole (once a user)"]
    )
    found["a call, summed: after an event"] = found["a call, summed: nothing new of the user"] + sum(kept)
    found["rows of the field"] = float(candidates.shape[1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the 3,000 films of the demo that most have seen")
    parser.add_argument("--snapshot", type=Path, metavar="ROOT", help="a folder of snapshots that holds the lives")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    _native.limit_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.snapshot is None:
            plan = QUICK if options.quick or not MOVIELENS.exists() else Plan()
            dataset = load_demo() if plan is QUICK else load_dataset(str(MOVIELENS))
            publish_snapshot(most_met(dataset, plan.num_items) if plan.num_items else dataset, plan, Path(folder))
        model = Model.load(open_snapshot(options.snapshot or Path(folder)).path)
    near, far = (stages(model, length) for length in (1_000, 100_000))
    for name, us in near.items():
        print(f"{name:44s} {us:9,.0f} {far[name]:9,.0f}")
    if options.json:
        options.json.write_text(json.dumps({"1000": near, "100000": far}, indent=2) + "\n")


if __name__ == "__main__":
    main()
