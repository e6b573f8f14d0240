"""From a data set to a model and a report of its quality: what the command line, jobs and notebooks all do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsys.data.dataset import Dataset
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder
from recsys.encode.text import TextEncoder
from recsys.evaluate import EvaluateConfig, evaluate, split
from recsys.model import Model, ModelSettings
from recsys.rank import Ranker
from recsys.train.fit import Progress, quiet, train_model, train_ranker
from recsys.train.sequence import fit_sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model that remembers everything, and what its ranker reached on held-out data ({} where it was not asked)."""

    model: Model
    report: dict[str, Any]


def encode_items(dataset: Dataset, encoder: TextEncoder, progress: Progress = quiet) -> ItemTable:
    """The catalogue with the vectors of its texts."""
    report = lambda done, total: progress("item texts", done, total)  # noqa: E731
    return ItemTable(dataset.catalogue, encoder.encode(dataset.catalogue.texts, progress=report))


def build(
    dataset: Dataset,
    encoder: TextEncoder,
    config: EvaluateConfig,
    *,
    encoder_name: str | None = None,
    measured: bool = True,
    store_seq: int = 0,
    progress: Progress = quiet,
) -> Built:
    """Encode the items, train the ranker on time-ordered stages, then let the matchers remember everything.

    `measured` also asks validation, test and baselines. `encoder_name` and `store_seq`: see `ModelSettings`.
    Raises InvalidInput where the data cannot be split by the protocol.
    """
    items = encode_items(dataset, encoder, progress)
    ranker, include_seen, sequence, report = _ranker(dataset, items, config, measured, progress)
    settings = ModelSettings(
        encoder=encoder_name,
        encoder_fingerprint=encoder.fingerprint,
        encoder_max_tokens=encoder.max_tokens,
        include_seen=include_seen,
        ignored_types=config.train.ignored_types,
        store_seq=store_seq,
        data_fingerprint=dataset.fingerprint,
        metrics=headline(report),
    )
    model = train_model(dataset, items, settings, ranker, config.train, progress, sequence)
    return Built(model=model, report=report)


def default_protocol(dataset: Dataset) -> str:
    """A global time split where events carry timestamps, else leave-one-out."""
    return "gts" if dataset.histories.clock == "timestamp" else "loo"


def headline(report: dict[str, Any]) -> dict[str, float]:
    """The few figures a snapshot carries: NDCG@10 and HR@10 of the test, of validation, and of each baseline."""
    rows = {name: report[name] for name in ("test", "validation") if name in report} | report.get("baselines", {})
    return {f"{name}_{metric}": row[metric] for name, row in rows.items() for metric in ("ndcg@10", "hr@10")}


def _ranker(
    dataset: Dataset, items: ItemTable, config: EvaluateConfig, measured: bool, progress: Progress
) -> tuple[Ranker, bool, SequenceEncoder | None, dict[str, Any]]:
    if measured:
        outcome = evaluate(dataset, items, config, progress)
        return outcome.ranker, outcome.stages.include_seen, outcome.sequences.test, outcome.report
    stages = split(dataset.histories, items, config)
    sequences = fit_sequences(stages, items, config.train.sequence, progress, seed=config.train.stages.seed)
    ranker, _ = train_ranker(stages, items, config.train, progress, sequences)
    return ranker, stages.include_seen, sequences.test, {}
