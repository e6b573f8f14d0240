"""`recsys train` and `recsys evaluate`."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from rich.console import RenderableType

from recsys.cli.output import Output, table
from recsys.cli.progress import progress
from recsys.cli.snapshots import current_snapshot, store_exists
from recsys.config import Settings
from recsys.data.catalogue import Catalogue
from recsys.data.dataset import Dataset, load_dataset
from recsys.encode.cache import VectorCache
from recsys.encode.text import TextEncoder
from recsys.errors import InvalidInput, MixedSnapshot
from recsys.evaluate import EvaluateConfig, evaluate, with_shuffled_ties
from recsys.evaluate.build import build, default_protocol, encode_items
from recsys.evaluate.cold import cold_items
from recsys.model import Model
from recsys.snapshot import open_snapshot
from recsys.store import EventStore
from recsys.train.erase import without_users
from recsys.train.fit import TrainConfig
from recsys.train.further import train_further
from recsys.train.publish import publish
from recsys.types import Item

# What people call the baselines.
METHODS = {
    "popularity": "most popular ever",
    "recency_popularity": "most popular this week",
    "item_item": "item-item (cosine)",
    "ease": "EASE",
    "ease_recent": "EASE with recency weights",
    "last_item_transitions": "what followed the last item",
    "sequence_neighbours": "what others did next",
    "own_repeat": "own repeats",
}

COLD = {
    "all_items": "all items",
    "among_hidden": "the hidden items",
    "ours": "LongRec",
    "popularity": "most popular ever",
    "text": "text like the recent items'",
    "chance": "chance",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A data set, and up to which row of the event store it reaches (0: it is not from the store)."""

    dataset: Dataset
    store_seq: int = 0


def train(
    settings: Settings,
    output: Output,
    *,
    data: str | None,
    from_store: bool,
    protocol: str | None,
    measured: bool,
    lenient: bool,
) -> None:
    """Learns from `data` or the store and publishes a snapshot."""
    _check_protocol(protocol)
    told = _told(settings, data, from_store, lenient)
    output.show(str(told.dataset.report))
    config = evaluate_config(settings, protocol or default_protocol(told.dataset))
    with text_encoder(settings) as encoder, progress(silent=output.only_json) as report_progress:
        built = build(
            told.dataset,
            encoder,
            config,
            encoder_name=settings.encoder.model,
            measured=measured,
            store_seq=told.store_seq,
            progress=report_progress,
        )
    snapshot_id = publish(built.model, settings.paths.snapshots)
    if measured:
        show_quality(output, built.report)
    output.show(f"\nsnapshot {snapshot_id} is current in {settings.paths.snapshots}")
    output.result({"snapshot_id": snapshot_id, "snapshots": settings.paths.snapshots, "report": built.report})


def train_from(
    settings: Settings,
    output: Output,
    *,
    snapshot: str,
    data: str | None,
    from_store: bool,
    replay: float,
    lenient: bool,
) -> None:
    """Teaches a snapshot's model the new events of `data` or the store, and publishes what comes of it."""
    root = settings.paths.snapshots
    found = open_snapshot(root, current_snapshot(root) if snapshot == "current" else snapshot)
    told = _told(settings, data, from_store, lenient)
    output.show(str(told.dataset.report))
    model = _of_the_living(settings, Model.load(found.path))
    with text_encoder(settings) as encoder, progress(silent=output.only_json) as report_progress:
        encoder_of_snapshot(model, encoder)
        model, report = train_further(model, told.dataset, encoder, replay=replay, progress=report_progress)
    if told.store_seq:
        model = replace(model, settings=replace(model.settings, store_seq=told.store_seq))
    snapshot_id = publish(model, root)
    rows = [(name, report[f"{name}_before"], report[f"{name}_after"]) for name in ("old", "new")]
    output.heading("The history encoder alone, NDCG@10 on each user's last event")
    output.show(table(("events", "before", "after"), rows, numbers=(1, 2)))
    output.show(f"\nsnapshot {snapshot_id} is current in {root}")
    output.result({"snapshot_id": snapshot_id, "snapshots": root, "from": found.snapshot_id, "forgetting": report})


def _of_the_living(settings: Settings, model: Model) -> Model:
    """The model without the users that the store erased since: what comes of it may reach beyond their tombstones."""
    if not store_exists(settings.paths.store):
        return model
    with EventStore.open(settings.paths.store) as store:
        erased = store.erased_among(model.users.ids, after_seq=model.settings.store_seq)
    return without_users(model, erased) if erased else model


def encoder_of_snapshot(model: Model, encoder: TextEncoder) -> None:
    """Raises MixedSnapshot where texts would be encoded by another encoder than the snapshot's."""
    if encoder.fingerprint != model.settings.encoder_fingerprint:
        wanted = model.settings.encoder_fingerprint
        raise MixedSnapshot(f"the snapshot's texts were encoded by {wanted}, this encoder is {encoder.fingerprint}")


def judge(
    settings: Settings,
    output: Output,
    *,
    data: str,
    protocol: str | None,
    shuffled_ties: bool | None,
    lenient: bool,
    ablate: bool = False,
) -> None:
    """Trains from scratch, asks the test once, and reports; nothing is kept but vectors of texts."""
    _check_protocol(protocol)
    dataset = load_dataset(data, strict=not lenient)
    output.show(str(dataset.report))
    config = evaluate_config(settings, protocol or default_protocol(dataset))
    config = replace(config, every_signal=ablate, ablate=ablate)
    with text_encoder(settings) as encoder, progress(silent=output.only_json) as report_progress:
        items = encode_items(dataset, encoder, report_progress)
        report = evaluate(dataset, items, config, report_progress).report
        # Days as times leave the order inside a day to the file; a figure must not hang on that.
        if dataset.histories.clock == "relative" if shuffled_ties is None else shuffled_ties:
            again = evaluate(dataset, items, with_shuffled_ties(config), report_progress).report
            report["shuffled_ties"] = {name: again[name] for name in ("validation", "test", "slices")}
        report["encoder_fingerprint"] = encoder.fingerprint
    report["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    show_quality(output, report)
    show_slices(output, report)
    if "ablation" in report and not output.only_json:
        show_ablation(output, report["ablation"])
    output.result(report)


def judge_cold(
    settings: Settings, output: Output, *, data: str, protocol: str | None, lenient: bool, share: float = 0.05
) -> None:
    """Hides items, trains from scratch, asks for the hidden ones, and reports; nothing is kept but vectors of texts."""
    _check_protocol(protocol)
    dataset = load_dataset(data, strict=not lenient)
    output.show(str(dataset.report))
    config = evaluate_config(settings, protocol or default_protocol(dataset))
    with text_encoder(settings) as encoder, progress(silent=output.only_json) as report_progress:
        items = encode_items(dataset, encoder, report_progress)
        report = cold_items(dataset, items, config, share, config.train.stages.seed, report_progress)
        report["encoder_fingerprint"] = encoder.fingerprint
    show_cold(output, report)
    output.result(report)


def evaluate_config(settings: Settings, protocol: str) -> EvaluateConfig:
    """How the settings want a ranker trained and asked."""
    return EvaluateConfig(
        protocol=protocol, train=TrainConfig(stages=settings.stages, sequence=settings.sequence, ranker=settings.ranker)
    )


@contextmanager
def text_encoder(settings: Settings) -> Iterator[TextEncoder]:
    """The encoder of the settings, with its cache open meanwhile."""
    wanted = settings.encoder
    with closing(VectorCache(settings.paths.vectors)) as cache:
        yield TextEncoder.load(wanted.model, device=wanted.device, max_tokens=wanted.max_tokens, cache=cache)


def show_quality(output: Output, report: dict[str, Any]) -> None:
    """Our figures on the test beside the baselines', best first."""
    if not output.only_json:
        output.heading(f"Quality on {report['test']['queries']:,} held-out questions ({report['protocol']})")
        output.show(quality_table(report))


def quality_table(report: dict[str, Any]) -> RenderableType:
    """One row a method, best NDCG@10 first."""
    rows = {"LongRec": report["test"]}
    if "shuffled_ties" in report:
        rows["LongRec, equal times shuffled"] = report["shuffled_ties"]["test"]
    rows |= {METHODS.get(name, name): row for name, row in report.get("baselines", {}).items()}
    ordered = sorted(rows.items(), key=lambda pair: -pair[1]["ndcg@10"])
    return table(
        ("method", "NDCG@10", "95 % interval", "HR@10", "MRR"),
        [(name, row["ndcg@10"], _interval(row), row["hr@10"], row["mrr"]) for name, row in ordered],
        numbers=(1, 2, 3, 4),
    )


def show_slices(output: Output, report: dict[str, Any]) -> None:
    """Where the quality comes from."""
    shuffled = report.get("shuffled_ties", {}).get("slices", {})
    columns = ("slice of the test", "questions", "NDCG@10", "HR@10", *(["NDCG@10, ties shuffled"] if shuffled else []))
    rows = [
        (
            name,
            f"{row['queries']:,}",
            row["ndcg@10"],
            row["hr@10"],
            *([shuffled[name].get("ndcg@10", "")] if shuffled else []),
        )
        for name, row in report["slices"].items()
        if row["queries"]
    ]
    validation = report["validation"]
    output.heading("Where it comes from")
    output.show(table(columns, rows, numbers=range(1, len(columns))))
    output.show(
        f"validation: NDCG@10 {validation['ndcg@10']:.4f}, HR@10 {validation['hr@10']:.4f} "
        f"({validation['queries']:,} questions); {report['num_trees']} trees; {report['seconds']:.0f} s"
    )


def show_ablation(output: Output, found: dict[str, Any]) -> None:
    """What each matcher is worth to the ranker, on the stage that was asked."""
    rows = [
        (f"{kind} {name}", row["ndcg@10"], row["difference"]["ndcg@10"], _signed(row["difference"]["ndcg@10_interval"]))
        for kind in ("without", "only")
        for name, row in sorted(found[kind].items(), key=lambda pair: pair[1]["ndcg@10"])
    ]
    output.heading(f"What each matcher is worth ({found['stage']}; all together {found['full']['ndcg@10']:.4f})")
    output.show(table(("ranker", "NDCG@10", "difference", "95 % interval"), rows, numbers=(1, 2, 3)))


def _signed(interval: list[float]) -> str:
    return f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def show_cold(output: Output, report: dict[str, Any]) -> None:
    """Our figures on items nobody has met, beside text, popularity and chance."""
    if output.only_json:
        return
    unmet = f"{report['hidden_items']:,} items that nobody has met"
    output.heading(f"{report['questions']:,} questions for {unmet} ({report['protocol']})")
    rows = [
        (COLD[ranked], COLD[method], row["ndcg@10"], row["hr@10"])
        for ranked in ("all_items", "among_hidden")
        for method, row in sorted(report[ranked].items(), key=lambda pair: -pair[1]["ndcg@10"])
    ]
    everywhere = report["popularity_all_questions"]
    rows.append(("all questions, nothing hidden", COLD["popularity"], everywhere["ndcg@10"], everywhere["hr@10"]))
    output.show(table(("ranked", "method", "NDCG@10", "HR@10"), rows, numbers=(2, 3)))


def _interval(row: dict[str, Any]) -> str:
    low, high = row["ndcg@10_interval"]
    return f"{low:.4f} to {high:.4f}"


def _check_protocol(protocol: str | None) -> None:
    """Before anything is read: reading may take minutes."""
    if protocol not in (None, "loo", "gts"):
        raise InvalidInput.of("protocol", protocol, 'must be "loo" or "gts"')


def _told(settings: Settings, data: str | None, from_store: bool, lenient: bool) -> Told:
    if data is None and not from_store:
        reason = "nothing to learn from: name a folder, a file or a SQL URL, or say --from-store"
        raise InvalidInput.of("DATA", data, reason)
    if data is not None and from_store:
        raise InvalidInput.of("DATA", data, "is one source and --from-store another: leave one of them out")
    if data is not None:
        return Told(dataset=load_dataset(data, strict=not lenient))
    with EventStore.open(settings.paths.store) as store:
        seq = store.seq
        events = store.events_frame().filter(pl.col("seq") <= seq).drop("seq", "event_id")
        items = store.items()
    return replace(Told(dataset=load_dataset((events, _items(items, events)), strict=not lenient)), store_seq=seq)


def _items(items: list[Item], events: pl.DataFrame) -> pl.DataFrame:
    """What the store knows of items, and the bare ids of those that only occur in events."""
    known = {item.item_id for item in items}
    bare = [Item(item_id=id_) for id_ in events["item_id"].unique(maintain_order=True) if id_ not in known]
    return Catalogue([*items, *bare]).to_frame()
