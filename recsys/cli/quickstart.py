"""`recsys quickstart`: the whole way once, on real data: learn, publish, serve, ask, tell, ask again.

What was learned is kept and used again while data, code and settings stay the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import recsys
from recsys import _native
from recsys.cli.learn import METHODS, evaluate_config, quality_table, text_encoder
from recsys.cli.output import Output
from recsys.cli.progress import progress
from recsys.cli.tour import Tour, next_commands
from recsys.client import RecsysClient
from recsys.config import Settings
from recsys.data.dataset import Dataset, load_dataset
from recsys.data.demo import load_demo
from recsys.data.histories import Histories
from recsys.errors import RecsysError
from recsys.evaluate import EvaluateConfig
from recsys.evaluate.build import Built, build, default_protocol
from recsys.serve import Server
from recsys.serve.log import configure_logging
from recsys.serve.shelf import SnapshotShelf
from recsys.snapshot import open_snapshot
from recsys.store import EventStore
from recsys.train.fit import Progress
from recsys.train.publish import publish
from recsys.train.stages import DAY_S

HOME = Path(".longrec/quickstart")

# Enough for a ranker that is close to its best, few enough for minutes on two cores.
_TRAIN_QUERIES, _VALIDATION_QUERIES, _TEST_QUERIES = 3_000, 1_000, 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A published snapshot and its report; `key` names the data, code and settings that it came from."""

    key: str
    snapshot_id: str
    report: dict[str, Any]


def quickstart(settings: Settings, output: Output, *, data: str | None, fresh: bool) -> None:
    """Raises RecsysError where an answer is not what it must be."""
    started = time.monotonic()
    if fresh and HOME.exists():
        shutil.rmtree(HOME)
    output.heading("1. The data")
    dataset = load_demo() if data is None else load_dataset(data)
    output.show(_facts(dataset))
    output.heading("2. Learning")
    learned, was_kept = _learned(settings, output, dataset)
    kept = "used again (--fresh learns anew)" if was_kept else "published"
    output.show(f"snapshot {learned.snapshot_id} {kept}: {HOME / 'snapshots'}")
    output.heading(f"3. Quality: {learned.report['test']['queries']:,} questions whose answers were held out")
    output.show(quality_table(learned.report), _reading(learned.report))
    told = _serve_and_ask(settings, output, dataset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    output.heading(f"Done in {time.monotonic() - started:.0f} s, {peak / 1024**3:.1f} GiB at most. Next:")
    output.lines(
        *(
            f"  {line}"
            for why, command in next_commands(HOME, told["user_id"], told["liked"])
            for line in (f"# {why}", command)
        )
    )
    output.result(
        {
            "snapshot_id": learned.snapshot_id,
            "reused": was_kept,
            "report": learned.report,
            **told,
            "seconds": time.monotonic() - started,
            "peak_memory_bytes": peak,
        }
    )


def stages_for(settings: Settings, histories: Histories) -> Settings:
    """The settings with stages as long as the data allows: a twentieth of its time each, eight weeks to a year."""
    stages = replace(
        settings.stages,
        train_queries=_TRAIN_QUERIES,
        validation_queries=_VALIDATION_QUERIES,
        test_queries=_TEST_QUERIES,
    )
    if histories.clock == "timestamp":
        days = float(np.ptp(histories.times)) / DAY_S
        length = min(float(np.clip(days / 20, 56, 365)), days / 5)
        stages = replace(stages, test_days=length, validation_days=length)
    return replace(settings, stages=stages)


def _learned(settings: Settings, output: Output, dataset: Dataset) -> tuple[Learned, bool]:
    """What an earlier run learned from the same, else what this one learns; and whether it was the former."""
    config = evaluate_config(stages_for(settings, dataset.histories), default_protocol(dataset))
    key = _key(dataset, settings, config)
    if kept := _kept(key):
        return kept, True
    with progress(silent=output.only_json) as report:
        built = _built(settings, dataset, config, report)
    learned = Learned(key=key, snapshot_id=publish(built.model, HOME / "snapshots"), report=built.report)
    (HOME / "learned.json").write_text(json.dumps(asdict(learned)), "utf-8")
    return learned, False


def _built(settings: Settings, dataset: Dataset, config: EvaluateConfig, report: Progress) -> Built:
    with text_encoder(settings) as encoder:
        return build(dataset, encoder, config, encoder_name=settings.encoder.model, progress=report)


def _kept(key: str) -> Learned | None:
    """What was learned under this key, if its snapshot is still current and sound."""
    try:
        learned = Learned(**json.loads((HOME / "learned.json").read_text("utf-8")))
        current = open_snapshot(HOME / "snapshots").snapshot_id
    except (OSError, ValueError, TypeError, RecsysError):
        return None
    return learned if learned.key == key and learned.snapshot_id == current else None


def _key(dataset: Dataset, settings: Settings, config: EvaluateConfig) -> str:
    """Names all that a snapshot depends on: the data, every source file of the engine, the settings."""
    digest = hashlib.sha256(f"{dataset.fingerprint} {settings.encoder} {config}".encode())
    package = Path(recsys.__file__).parent
    for path in sorted(package.rglob("*.py")):
        if package / "cli" not in path.parents:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _serve_and_ask(settings: Settings, output: Output, dataset: Dataset) -> dict[str, Any]:
    """The real server on a free port of this machine, asked by the real client."""
    configure_logging(logging.WARNING)
    _native.limit_threads(1)
    config = replace(settings.server, host="127.0.0.1", port=0, lame_duck_s=0.0)
    shelf = SnapshotShelf(HOME / "snapshots")
    for left in HOME.glob("events.sqlite*"):  # what the run before told the server would change this run's answers
        left.unlink()
    with (
        Server(config, shelf=shelf, store=EventStore.open(HOME / "events.sqlite")) as server,
        RecsysClient(f"127.0.0.1:{server.port}", timeout_s=5.0) as client,
    ):
        client.wait_ready()
        output.heading(f"4. A server answers on 127.0.0.1:{server.port}")
        return Tour(dataset=dataset, client=client, output=output).run()


def _facts(dataset: Dataset) -> str:
    histories = dataset.histories
    counts = (
        f"{len(histories):,} users, {len(dataset.catalogue):,} items, {histories.num_events:,} events "
        f"({', '.join(histories.event_types)})"
    )
    if histories.clock != "timestamp":
        return counts
    first, last = (str(np.datetime64(int(at), "s").astype("datetime64[D]")) for at in np.sort(histories.times)[[0, -1]])
    return f"{counts}\nfrom {first} to {last}; every row was checked"


def _reading(report: dict[str, Any]) -> str:
    """The table in a sentence."""
    split = "the latest part of the data" if report["protocol"] == "gts" else "each user's last event"
    return (
        f"Asked: what comes next, out of {report['num_items']:,} items, in {split}?\n"
        f"NDCG@10 is 1 where the answer always stands first, 0 where it is never among ten; HR@10 is how often it is "
        f"among ten.{_compared(report)}"
    )


def _compared(report: dict[str, Any]) -> str:
    """Beside the most popular items, where they find anything, and beside the best baseline, where that is better."""
    baselines = {name: row["ndcg@10"] for name, row in report["baselines"].items()}
    popular, ours = baselines["popularity"], report["test"]["ndcg@10"]
    best = max(baselines, key=lambda name: baselines[name])
    times = f"\nLongRec reaches {ours / popular:.1f} times the NDCG of the most popular items." if popular > 0 else ""
    if ours >= baselines[best]:
        return times
    return (
        f"{times}\nHere LongRec is below the best baseline, {METHODS.get(best, best)} ({ours:.4f} to "
        f"{baselines[best]:.4f}): from little data its ranker learns little."
    )
