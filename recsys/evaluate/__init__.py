"""Evaluation: train from scratch on a data set, ask validation and test once, beside baselines, in slices.

Nothing is tuned on the test; candidates a flow did not propose count as missed, and no negatives are sampled.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys.data.dataset import Dataset
from recsys.data.histories import Histories
from recsys.data.ties import shuffle_ties
from recsys.encode.items import ItemTable
from recsys.errors import InvalidInput
from recsys.evaluate.baselines import ask_baselines
from recsys.evaluate.slices import slice_report
from recsys.flow import Flow, rank_field
from recsys.metrics import bootstrap_interval, ranking_metrics
from recsys.rank import Ranker
from recsys.train.examples import fields
from recsys.train.fit import Progress, TrainConfig, quiet, stage_flow, train_ranker
from recsys.train.stages import Stage, Stages, global_time_stages, leave_one_out_stages

Metrics = dict[str, np.ndarray]
"""Each metric's value of each query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """`protocol` "loo" or "gts". `ties`: "file" keeps the order of equal times, "shuffled" shuffles it by seed."""

    protocol: str
    train: TrainConfig = TrainConfig()
    ties: str = "file"
    baselines: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A trained ranker and what it reached: the report (JSON values only), and what it was measured with."""

    ranker: Ranker
    stages: Stages
    report: dict[str, Any]


def evaluate(dataset: Dataset, items: ItemTable, config: EvaluateConfig, progress: Progress = quiet) -> Outcome:
    """Train on the train stage, stop on validation, ask the test once.

    Raises InvalidInput for an unknown protocol or order of ties, or where the data cannot be split by the protocol.
    """
    started = time.perf_counter()
    histories = dataset.histories
    if config.ties not in ("file", "shuffled"):
        raise InvalidInput.of("ties", config.ties, 'must be "file" or "shuffled"')
    if config.ties == "shuffled":
        histories = shuffle_ties(histories, seed=config.train.stages.seed)
    stages = split(histories, items, config)
    ranker, flow = train_ranker(stages, items, config.train, progress)
    validation = ask(flow, ranker, stages.validation, stages.include_seen, "validation", progress)
    if stages.test.memory is not stages.validation.memory:
        del flow  # two of them need not fit into memory side by side
        flow = stage_flow(stages.test, items, config.train, progress)
    test = ask(flow, ranker, stages.test, stages.include_seen, "test", progress)
    report = {
        **_facts(dataset, stages, config),
        "validation": summary(validation, stages.validation.users),
        "test": summary(test, stages.test.users),
        "slices": slice_report(stages.test, test),
        "importance": dict(list(ranker.importance().items())[:20]),
        "num_trees": ranker.booster.num_trees(),
    }
    if config.baselines:
        found = ask_baselines(flow, stages.test, stages.include_seen, progress)
        report["baselines"] = {name: summary(metrics, stages.test.users) for name, metrics in found.items()}
    report["seconds"] = time.perf_counter() - started
    return Outcome(ranker=ranker, stages=stages, report=report)


def split(histories: Histories, items: ItemTable, config: EvaluateConfig) -> Stages:
    """The stages of a protocol."""
    if config.protocol == "loo":
        return leave_one_out_stages(histories.without_types(config.train.ignored_types), items, config.train.stages)
    if config.protocol == "gts":
        return global_time_stages(histories, items, config.train.stages, config.train.ignored_types)
    raise InvalidInput.of("protocol", config.protocol, 'must be "loo" or "gts"')


def ask(flow: Flow, ranker: Ranker, stage: Stage, include_seen: bool, name: str, progress: Progress = quiet) -> Metrics:
    """Every query of a stage through the flow and the ranker."""
    report: Callable[[int, int], None] = lambda done, total: progress(f"asking: {name}", done, total)  # noqa: E731
    counts = np.diff(stage.queries.indptr)
    parts = []
    for rows, field, hits in fields(flow, stage.queries, include_seen=include_seen, on_batch=report):
        metrics = ranking_metrics(rank_field(field, ranker), hits, counts[rows])
        metrics["candidate_recall"] = hits.sum(axis=1) / counts[rows]
        metrics["candidates"] = field.valid.sum(axis=1).astype(np.float64)
        parts.append(metrics)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def summary(metrics: Metrics, users: np.ndarray) -> dict[str, Any]:
    """Means, and the 95 % bootstrap interval over users of the two figures that are compared."""
    out: dict[str, Any] = {name: float(values.mean()) for name, values in metrics.items()}
    for name in ("ndcg@10", "hr@10"):
        out[f"{name}_interval"] = list(bootstrap_interval(metrics[name], users))
    out["queries"] = len(users)
    return out


def with_shuffled_ties(config: EvaluateConfig) -> EvaluateConfig:
    """The same evaluation on a data set whose order of equal times is shuffled, without baselines."""
    return replace(config, ties="shuffled", baselines=False)


def _facts(dataset: Dataset, stages: Stages, config: EvaluateConfig) -> dict[str, Any]:
    stage = config.train.stages
    return {
        "protocol": config.protocol,
        "variant": "train+val" if stage.with_validation or config.protocol == "gts" else "train",
        "ties": config.ties,
        "seen_items": "may be recommended again" if stages.include_seen else "excluded",
        "window": "whole history",
        "data_fingerprint": dataset.fingerprint,
        "num_users": len(dataset.histories),
        "num_items": len(dataset.catalogue),
        "num_events": dataset.histories.num_events,
        "seed": stage.seed,
    }
