"""Evaluation: train from scratch on a data set, ask validation and test once, beside baselines, in slices.

Nothing is tuned on the test; candidates a flow did not propose count as missed, and no negatives are sampled.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from recsys.data.dataset import Dataset
from recsys.data.histories import Histories
from recsys.data.ties import shuffle_ties
from recsys.encode.items import ItemTable
from recsys.errors import InvalidInput
from recsys.evaluate.ablate import ablation
from recsys.evaluate.asking import ask, summary
from recsys.evaluate.baselines import ask_alone
from recsys.evaluate.beyond import TopItems, beyond_accuracy
from recsys.evaluate.slices import slice_report
from recsys.rank import Ranker, fit_ranker
from recsys.train.fit import Progress, TrainConfig, quiet, ranker_examples, stage_flow
from recsys.train.sequence import Sequences, fit_sequences
from recsys.train.settle import settle
from recsys.train.stages import Stages, global_time_stages, leave_one_out_stages


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """`protocol` "loo" or "gts". `ties`: "file" keeps the order of equal times, "shuffled" shuffles it by seed.

    `baselines`: also ask them, and what accuracy does not say; with `every_signal` each proposing signal alone, too.
    `ablate`: also ask the validation, not the test, of rankers with and without each matcher.
    """

    protocol: str
    train: TrainConfig = TrainConfig()
    ties: str = "file"
    baselines: bool = True
    every_signal: bool = False
    ablate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A trained ranker and what it reached: the report (JSON values only), and what it was measured with."""

    ranker: Ranker
    stages: Stages
    sequences: Sequences
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
    sequences = fit_sequences(stages, items, config.train.sequence, progress, seed=config.train.stages.seed)
    train, held, flow = ranker_examples(stages, items, config.train, progress, sequences)
    report = lambda done, total: progress("ranker: trees", done, total)  # noqa: E731
    ranker = fit_ranker(flow.features, train, held, config.train.ranker, report)
    ablated = None
    if config.ablate:
        ablated = ablation(flow, train, held, stages.validation, stages.include_seen, config.train, progress)
    del train, held
    validation = ask(flow, ranker, stages.validation, stages.include_seen, "validation", progress)
    if stages.test.memory is not stages.validation.memory:
        del flow  # two of them need not fit into memory side by side
        flow = stage_flow(stages.test, items, config.train, progress, sequences.test)
    shown = TopItems(len(stages.test.queries))
    test = ask(flow, ranker, stages.test, stages.include_seen, "test", progress, on_ranked=shown)
    outcome = {
        **_facts(dataset, stages, config),
        "validation": summary(validation, stages.validation.users),
        "test": summary(test, stages.test.users),
        "slices": slice_report(stages.test, test),
        "importance": dict(list(ranker.importance().items())[:20]),
        "num_trees": ranker.booster.num_trees(),
    }
    if ablated is not None:
        outcome["ablation"] = {"stage": "validation", **ablated}
    if config.baselines:
        alone = ask_alone(flow, stages.test, stages.include_seen, progress, every_signal=config.every_signal)
        outcome["baselines"] = {name: summary(metrics, stages.test.users) for name, metrics in alone.baselines.items()}
        if config.every_signal:
            outcome["signals"] = {name: summary(metrics, stages.test.users) for name, metrics in alone.signals.items()}
        outcome["beyond_accuracy"] = beyond_accuracy(shown.rows, stages.test, items, include_seen=stages.include_seen)
    outcome["seconds"] = time.perf_counter() - started
    return Outcome(ranker=ranker, stages=stages, sequences=sequences, report=outcome)


def split(histories: Histories, items: ItemTable, config: EvaluateConfig) -> Stages:
    """The stages of a protocol."""
    if config.protocol == "loo":
        return leave_one_out_stages(histories.without_types(config.train.ignored_types), items, config.train.stages)
    if config.protocol == "gts":
        return global_time_stages(histories, items, config.train.stages, config.train.ignored_types)
    raise InvalidInput.of("protocol", config.protocol, 'must be "loo" or "gts"')


def with_shuffled_ties(config: EvaluateConfig) -> EvaluateConfig:
    """The same evaluation on a data set whose order of equal times is shuffled, without baselines."""
    return replace(config, ties="shuffled", baselines=False, ablate=False)


def _facts(dataset: Dataset, stages: Stages, config: EvaluateConfig) -> dict[str, Any]:
    stage = config.train.stages
    return {
        "protocol": config.protocol,
        "variant": "train+val" if stage.with_validation or config.protocol == "gts" else "train",
        "ties": config.ties,
        "seen_items": "may be recommended again" if stages.include_seen else "excluded",
        "window": "whole history",
        "sequence": _sequence(stages, config),
        "ranker": asdict(config.train.ranker),
        "stages": asdict(stage),
        "data_fingerprint": dataset.fingerprint,
        "num_users": len(dataset.histories),
        "num_items": len(dataset.catalogue),
        "num_events": dataset.histories.num_events,
        "seed": stage.seed,
    }


def _sequence(stages: Stages, config: EvaluateConfig) -> dict[str, Any] | None:
    """The history encoder's settings as the data's shape settled them, None without one; `window` is in events."""
    if not config.train.sequence.enabled:
        return None
    settled = settle(config.train.sequence, stages.train.memory)
    return {name: value for name, value in asdict(settled).items() if name != "runs"}
