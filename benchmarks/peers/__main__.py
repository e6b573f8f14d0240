"""RecTools' SASRec on the engine's leave-one-out split: HR@10 and NDCG@10 of a full ranking, seen items excluded.

    python -m benchmarks.peers [--data DIR] [--venv DIR] [--work DIR] [--minutes M] [--ties T] [--quick] [--json FILE]

The split is the engine's (`recsys.train.stages`), variant "train": a user's last event is the test, the one before it
validation; the model learns from neither, and has the validation event as input when it is asked the test. Validation
NDCG@10 chooses the epoch; the test is asked once, of that epoch. `--minutes` bounds the CPU time of the training, and
the report says where that cut it short. A run that was stopped goes on in the same `--work` folder, where `users.npz`
also holds every user's figures, for paired comparisons.

Without `--data` it takes the demo's data. `--quick` trains a small model for two epochs, to show that all of it runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import report
from benchmarks.peers.environment import ready
from benchmarks.peers.export import arrays_of, cut, longest_decile, write_split
from benchmarks.peers.settings import Settings, settings_for
from recsys.data.dataset import Dataset, load_dataset
from recsys.data.demo import load_demo
from recsys.train.stages import Stages

LIMITS = ("budget_s", "max_epochs", "patience", "top")
"""Settings that a training may go on with when they change."""


def prepare(folder: Path, stages: Stages, settings: Settings) -> None:
    """Lays out the split and the settings; refuses a folder where something else was trained."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen, path = asdict(settings), folder / "settings.json"
    if path.exists():
        before = json.loads(path.read_text())
        other = [name for name in chosen if name not in LIMITS and before.get(name) != chosen[name]]
        if other or not _same_split(folder, stages):
            what = ", ".join(other) or "other data"
            raise SystemExit(f"{folder} holds another training ({what}): name another --work")
    else:
        write_split(stages, folder)
    path.write_text(json.dumps(chosen, indent=2) + "\n")


def _same_split(folder: Path, stages: Stages) -> bool:
    with np.load(folder / "split.npz", allow_pickle=False) as file:
        return all(np.array_equal(file[name], array) for name, array in arrays_of(stages).items())


def measure(dataset: Dataset, stages: Stages, folder: Path) -> dict[str, Any]:
    """Judges what the peer left in `folder`."""
    with np.load(folder / "answers.npz", allow_pickle=False) as file:
        users, items, scores = file["users"], file["items"], file["scores"]
    if not np.array_equal(users, stages.test.users):
        raise SystemExit(f"{folder / 'answers.npz'} answers for other users than the test asks of")
    metrics = report.judged(stages.test, items, scores)
    report.write_users(folder / "users.npz", stages.test, dataset.users, metrics)
    training = json.loads((folder / "training.json").read_text())
    return {
        **report.test_report(stages.test, metrics),
        "training": report.training_report(training["curve"], training["stopped"]),
        "curve": training["curve"],
        "settings": json.loads((folder / "settings.json").read_text()),
        "versions": training["versions"],
    }


def compare(dataset: Dataset, venv: Path, folder: Path, settings: Settings, ties: str) -> dict[str, Any]:
    """The whole way: cut, train in the peer's environment, judge."""
    stages = cut(dataset, ties=ties)
    prepare(folder, stages, settings)
    script = Path(__file__).with_name("sasrec.py")
    subprocess.run([str(ready(venv)), str(script), str(folder)], check=True)
    facts = {"model": "RecTools SASRec", "protocol": "loo", "variant": "train", "ties": ties, "seen_items": "excluded"}
    return facts | {"data_fingerprint": dataset.fingerprint} | measure(dataset, stages, folder)


def show(found: dict[str, Any]) -> None:
    test, training = found["test"], found["training"]
    print(f"RecTools {found['versions']['rectools']} SASRec, {test['queries']:,} users, ties {found['ties']}")
    for name in ("hr@10", "ndcg@10"):
        low, high = test[f"{name}_interval"]
        print(f"{name:8s} {test[name]:.4f}  [{low:.4f}, {high:.4f}]")
    print(f"validation NDCG@10 {training['validation_ndcg@10']:.4f} at epoch {training['best_epoch']}")
    print(f"{training['ended']}; {training['cpu_s']:,.0f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="events and items; the demo's where not given")
    parser.add_argument("--venv", type=Path, default=Path(".peers"), metavar="DIR", help="the peer's environment")
    parser.add_argument("--work", type=Path, metavar="DIR", help="split, checkpoints, answers (runs/peers/NAME)")
    parser.add_argument("--minutes", type=float, metavar="M", help="of CPU time for the training at most")
    parser.add_argument("--ties", choices=("file", "shuffled"), default="file", help="order of events at one time")
    parser.add_argument("--quick", action="store_true", help="a small model, two epochs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    name = options.data.resolve().name if options.data else "demo"
    parts = [name, *(["shuffled"] if options.ties == "shuffled" else []), *(["quick"] if options.quick else [])]
    dataset = load_dataset(str(options.data)) if options.data else load_demo()
    settings = settings_for(longest_decile(dataset.histories), minutes=options.minutes, quick=options.quick)
    folder = options.work or Path("runs") / "peers" / "-".join(parts)
    found = {"data": name} | compare(dataset, options.venv, folder, settings, options.ties)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
