"""Mechanisms compared: history encoders that differ in how they see a life, trained alike and asked alike, alone.

    python -m benchmarks.mechanisms --data DIR [--protocol loo|gts] [--epochs N] [--only NAME] [--quick] [--json FILE]

Every row is one training with the same seed, width, blocks, loss and number of events told: attention over the last 50
events, the same with slots or spans for what lies before, attention over everything (up to 2,048 events), and each
mixer over the last 200. `--epochs` is of attention over everything; an encoder of a shorter window sees fewer events of
a long life in an epoch and has as many epochs more.
Reported are NDCG@10 over all items of the encoder alone on validation and test, also for the tenth of users with the
longest histories, with the paired difference to attention over everything there, and CPU seconds. Few epochs
compare mechanisms, they do not finish them: `recsys evaluate --full` does.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys import _native
from recsys.cli.progress import progress
from recsys.config import vector_cache_folder
from recsys.data.dataset import load_dataset
from recsys.encode.cache import VectorCache
from recsys.encode.items import ItemTable
from recsys.encode.mixers import MIXERS
from recsys.encode.sequence import SequenceEncoder
from recsys.encode.text import TextEncoder
from recsys.evaluate import EvaluateConfig, split
from recsys.evaluate.build import encode_items
from recsys.flow import allowed_mask, batches
from recsys.memory.lookback import past_of
from recsys.metrics import bootstrap_interval, paired_interval, ranking_metrics
from recsys.train.fit import Progress
from recsys.train.sequence import fit_sequence
from recsys.train.settle import SequenceConfig
from recsys.train.stages import Stage, Stages

NEAR, MIDDLE, EVERYTHING = 50, 200, 2_048
SHAPES: dict[str, dict[str, Any]] = {
    f"attention, last {NEAR}": {"window": NEAR},
    f"attention, last {NEAR}, and slots": {"window": NEAR, "memory": "slots"},
    f"attention, last {NEAR}, and spans": {"window": NEAR, "memory": "spans"},
    "attention, everything": {"window": EVERYTHING, "tokens": 8_192},
    **{f"{name}, last {MIDDLE}": {"window": MIDDLE, "mixer": name} for name in MIXERS},
    f"attention, last {MIDDLE}, and spans": {"window": MIDDLE, "memory": "spans"},
}
FULL = "attention, everything"


def main() -> None:
    options = _options()
    _native.limit_threads(1)
    dataset = load_dataset(options.data)
    with progress(silent=False) as report, closing(VectorCache(vector_cache_folder())) as cache:
        items = encode_items(dataset, TextEncoder.load(cache=cache), report)
        stages = split(dataset.histories, items, EvaluateConfig(protocol=options.protocol))
        wanted = {name: shape for name, shape in SHAPES.items() if not options.only or name in options.only}
        found = {name: _measured(shape, stages, items, options.epochs, report) for name, shape in wanted.items()}
    rows = _rows(found, stages)
    for name, row in rows.items():
        print(f"{name:34s} {row['validation']['ndcg@10']:.4f} {row['test']['ndcg@10']:.4f} {row['cpu_s']:7.0f} s")
    if options.json:
        told = {"data": dataset.fingerprint, "protocol": options.protocol, "epochs": options.epochs, "rows": rows}
        Path(options.json).write_text(json.dumps(told, indent=1))


def _measured(shape: dict[str, Any], stages: Stages, items: ItemTable, epochs: int, report: Progress) -> dict[str, Any]:
    epochs = equal_epochs(stages.train.memory.lengths, shape["window"], epochs)
    config = replace(SequenceConfig(enabled=True, members=1, epochs=epochs, refit_epochs=0), **shape)
    began_s = time.process_time()
    sequence = fit_sequence(
        stages.train.memory,
        items,
        stages.train.queries,
        config,
        include_seen=stages.include_seen,
        progress=report,
    )
    cpu_s = time.process_time() - began_s
    named = {"validation": stages.validation, "test": stages.test}
    return {
        "cpu_s": cpu_s,
        "epochs": epochs,
        **{name: _asked(sequence, stage, stages.include_seen) for name, stage in named.items()},
    }


def equal_epochs(lengths: np.ndarray, window: int, epochs: int) -> int:
    """Epochs in which windows of `window` events tell as many events as `epochs` do of windows over everything."""
    told = np.minimum(lengths, EVERYTHING).sum() / max(int(np.minimum(lengths, window).sum()), 1)
    return max(round(epochs * float(told)), 1)


def _asked(sequence: SequenceEncoder, stage: Stage, include_seen: bool) -> np.ndarray:
    """NDCG@10 of each query over all items."""
    queries, items = stage.queries, stage.queries.states.items
    table = sequence.items(items.base)
    counts, parts = np.diff(queries.indptr), []
    everything = np.arange(len(items), dtype=np.int32)
    for rows, states in batches(queries.states, 64):
        allowed = allowed_mask(states, include_seen=include_seen)
        far = past_of(sequence, states.histories, states.items)
        cosine = sequence.present(states.histories, table, far) @ table.unit.T
        hits = queries.hits(rows, np.broadcast_to(everything, cosine.shape)) & allowed
        parts.append(ranking_metrics(np.where(allowed, cosine, -np.inf), hits, counts[rows], (10,))["ndcg@10"])
    return np.concatenate(parts)


def _rows(found: dict[str, dict[str, Any]], stages: Stages) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for name, measured in found.items():
        out[name] = {"cpu_s": measured["cpu_s"], "epochs": measured["epochs"]}
        for part, stage in (("validation", stages.validation), ("test", stages.test)):
            lengths, values = stage.queries.states.histories.lengths, measured[part]
            longest = lengths >= np.quantile(lengths, 0.9)
            row = {
                "ndcg@10": float(values.mean()),
                "ndcg@10_interval": list(bootstrap_interval(values, stage.users)),
                "longest_decile": float(values[longest].mean()),
                "longest_from": int(lengths[longest].min()),
                "longest_queries": int(longest.sum()),
            }
            if FULL in found:
                whole = found[FULL][part]
                row["longest_decile_minus_everything"] = float((values - whole)[longest].mean())
                row["longest_decile_minus_everything_interval"] = list(
                    paired_interval(values[longest], whole[longest], stage.users[longest])
                )
            out[name][part] = row
    return out


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--protocol", choices=("loo", "gts"), default="loo")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--only", action="append", choices=list(SHAPES), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="one epoch")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.epochs = 1
    return options


if __name__ == "__main__":
    main()
