"""Cold items: how well are items ranked that nobody has met yet?

A seeded share of the items that events mention is hidden. Their events leave every memory, every history that asks (as
if the user had not met them), and they are no target of any training or validation question; they stay in the catalogue
with their text, as items stand that came in today. Then those test questions are asked whose target is hidden, at their
true moments, ranking (a) all items, (b) the hidden items among themselves. What the user has really met, hidden or not,
is excluded where the data excludes seen items.

Beside the engine: popularity in the memory (0 for every hidden item; among equals targets stand last), the cosine of
the text to the recent items, and chance, exactly. The bar is what popularity reaches on all test questions where
nothing is hidden: an engine that ranks unmet items as well as popularity ranks met ones has no cold start to speak of.

Letters: Q queries, B queries of a batch, N items, H hidden items, K candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int32

from recsys.data.dataset import Dataset
from recsys.data.histories import Histories
from recsys.data.ties import shuffle_ties
from recsys.encode.items import ItemTable
from recsys.errors import InvalidInput
from recsys.evaluate import EvaluateConfig, split
from recsys.evaluate.asking import summary
from recsys.evaluate.baselines import Asked, signal_scores
from recsys.flow import Flow, allowed_mask, batches, rank_field
from recsys.match import Corpus, States
from recsys.match.text import Text
from recsys.metrics import Metrics, ideal_gain, ranking_metrics
from recsys.rank import Ranker
from recsys.train.examples import BATCH, Queries
from recsys.train.fit import Progress, quiet, stage_flow, train_ranker
from recsys.train.hidden import hide, without
from recsys.train.sequence import fit_sequences
from recsys.train.stages import Stage, Stages

TEXT = "text_recent"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdQuestions:
    """Test questions whose targets are hidden, as `stage`, whose memory and histories know no hidden item; and `lives`,
    what the asking users had really met."""

    hidden: Bool[np.ndarray, " N"]
    stage: Stage
    lives: Histories
    include_seen: bool

    def allowed(self, rows: np.ndarray, states: States) -> Bool[np.ndarray, "B N"]:
        """What may be shown to the questions `rows`."""
        return allowed_mask(replace(states, histories=self.lives.take(rows)), include_seen=self.include_seen)


def cold_items(
    dataset: Dataset,
    items: ItemTable,
    config: EvaluateConfig,
    share: float = 0.05,
    seed: int = 0,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Hide, train from scratch, ask; the report holds JSON values only.

    Raises InvalidInput for a share outside (0, 1), where no test question asks for a hidden item, and where the data
    cannot be split by the protocol.
    """
    started = time.perf_counter()
    if config.ties not in ("file", "shuffled"):
        raise InvalidInput.of("ties", config.ties, 'must be "file" or "shuffled"')
    histories = dataset.histories
    if config.ties == "shuffled":
        histories = shuffle_ties(histories, seed=config.train.stages.seed)
    hidden = hide(histories, len(items), share, seed)
    whole = split(histories, items, config)
    warm, cold = without_items(whole, hidden), cold_questions(whole, hidden, share)
    sequences = fit_sequences(warm, items, config.train.sequence, progress, seed=config.train.stages.seed)
    ranker, flow = train_ranker(warm, items, config.train, progress, sequences)
    if warm.test.memory is not warm.validation.memory:
        flow = stage_flow(warm.test, items, config.train, progress, sequences.test)
    everywhere = popularity_everywhere(whole, len(items))
    report = {
        "protocol": config.protocol,
        "data_fingerprint": dataset.fingerprint,
        "share": share,
        "seed": seed,
        "hidden_items": int(hidden.sum()),
        "hidden_events": int(hidden[histories.items].sum()),
        "questions": len(cold.stage.queries),
        "histories": "without their hidden items",
        **ask_cold(cold, flow, ranker, items, seed=seed, progress=progress),
        "popularity_all_questions": summary(everywhere, whole.test.users),
    }
    report["ratios"] = _ratios(report)
    report["seconds"] = time.perf_counter() - started
    return report


def without_items(stages: Stages, hidden: Bool[np.ndarray, " N"]) -> Stages:
    """The same stages in a world in which nobody ever met the hidden items. Equal memories stay one."""
    known: list[tuple[Histories, Histories]] = []

    def told(histories: Histories) -> Histories:
        for given, kept in known:
            if given is histories:
                return kept
        known.append((histories, without(histories, hidden)))
        return known[-1][1]

    def stage(whole: Stage) -> Stage:
        return _asking(whole, told, ~hidden)[1]

    return Stages(
        train=stage(stages.train),
        validation=stage(stages.validation),
        test=stage(stages.test),
        include_seen=stages.include_seen,
    )


def cold_questions(stages: Stages, hidden: Bool[np.ndarray, " N"], share: float) -> ColdQuestions:
    """The test questions that ask for hidden items, for these only. Raises InvalidInput where there is none."""
    rows, stage = _asking(stages.test, lambda histories: without(histories, hidden), hidden)
    if len(rows) == 0:
        raise InvalidInput.of("share", share, "no test question asks for an item that it hides")
    lives = stages.test.queries.states.histories.take(rows)
    return ColdQuestions(hidden=hidden, stage=stage, lives=lives, include_seen=stages.include_seen)


def _asking(
    whole: Stage, told: Callable[[Histories], Histories], wanted: Bool[np.ndarray, " N"]
) -> tuple[np.ndarray, Stage]:
    """(rows, stage) of the questions that have a wanted target, asked for these only, in histories as `told`."""
    queries = whole.queries
    kept = wanted[queries.targets]
    owners = np.repeat(np.arange(len(queries)), np.diff(queries.indptr))[kept]
    counts = np.bincount(owners, minlength=len(queries))
    rows = np.flatnonzero(counts)
    past = told(queries.states.histories.take(rows))
    return rows, Stage(
        memory=told(whole.memory),
        passing=told(whole.passing),
        queries=Queries(
            states=States(histories=past, now=queries.states.now[rows], items=queries.states.items),
            indptr=np.concatenate([[0], np.cumsum(counts[rows])]).astype(np.int64),
            targets=queries.targets[kept],
        ),
        users=whole.users[rows],
        target_times=whole.target_times[rows],
        target_types=whole.target_types[rows],
    )


def ask_cold(
    cold: ColdQuestions, flow: Flow, ranker: Ranker, items: ItemTable, *, seed: int = 0, progress: Progress = quiet
) -> dict[str, Any]:
    """{"all_items", "among_hidden"}: the figures of the engine, popularity, text and chance."""
    queries = cold.stage.queries
    text = Flow((Text.fit(Corpus(histories=cold.stage.memory, items=items)),), flow.met)
    counts = np.bincount(cold.stage.memory.items, minlength=len(items)).astype(np.float64)
    parts: dict[str, dict[str, list[Metrics]]] = {"all_items": {}, "among_hidden": {}}
    for rows, states in batches(queries.states, BATCH):
        allowed = cold.allowed(rows, states)
        [(_, alike)] = signal_scores(text, states, {TEXT})
        scores = {"popularity": np.broadcast_to(counts, allowed.shape), "text": alike}
        for name, candidates in (("all_items", allowed), ("among_hidden", allowed & cold.hidden)):
            asked = Asked.of(queries, rows, candidates)
            found = {"ours": _ours(flow, ranker, queries, rows, states, allowed, candidates)}
            found |= {method: asked.metrics(each) for method, each in scores.items()}
            for method, metrics in (found | {"chance": chance(asked)}).items():
                parts[name].setdefault(method, []).append(metrics)
        progress("asking: cold items", int(rows[-1]) + 1, len(queries))
    return {
        name: {method: _joined(each, cold.stage.users) for method, each in found.items()}
        for name, found in parts.items()
    }


def _ours(
    flow: Flow,
    ranker: Ranker,
    queries: Queries,
    rows: np.ndarray,
    states: States,
    allowed: Bool[np.ndarray, "B N"],
    candidates: Bool[np.ndarray, "B N"],
) -> Metrics:
    """The engine's metrics: what it proposes itself where all items may be shown; else every candidate, asked for."""
    asked = None if candidates is allowed else _rows(candidates)
    field = flow.field(states, allowed, asked)
    among = (field.candidates >= 0) & np.take_along_axis(candidates, np.maximum(field.candidates, 0), axis=1)
    scores = np.where(among, rank_field(field, ranker), -np.inf)
    return ranking_metrics(scores, queries.hits(rows, field.candidates) & among, np.diff(queries.indptr)[rows])


def _rows(candidates: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B K"]:
    """The rows of the true columns, -1 behind them."""
    width = int(candidates.sum(axis=1).max(initial=0))
    order = np.argsort(~candidates, axis=1, kind="stable")[:, :width]
    return np.where(np.take_along_axis(candidates, order, axis=1), order, -1).astype(np.int32)


def chance(asked: Asked, cut: int = 10) -> dict[str, Float64[np.ndarray, " B"]]:
    """What a random order of the candidates is expected to reach: hr = 1 - all of the first places go to others."""
    size = len(asked.num_targets)
    found = np.bincount(asked.owners, minlength=size)
    others = asked.rivals.sum(axis=1)
    every = np.maximum(others + found, 1)
    place = np.arange(cut)
    missed = np.maximum(others[:, None] - place, 0) / np.maximum(every[:, None] - place, 1)
    gain = np.where(place < every[:, None], 1.0 / np.log2(place + 2.0), 0.0).sum(axis=1)
    return {
        f"ndcg@{cut}": gain * found / every / ideal_gain(asked.num_targets, cut),
        f"hr@{cut}": np.where(found > 0, 1.0 - missed.prod(axis=1), 0.0),
    }


def popularity_everywhere(whole: Stages, num_items: int) -> Metrics:
    """Popularity's metrics of all test questions, nothing hidden."""
    stage = whole.test
    counts = np.bincount(stage.memory.items, minlength=num_items).astype(np.float64)
    parts = []
    for rows, states in batches(stage.queries.states, BATCH):
        allowed = allowed_mask(states, include_seen=whole.include_seen)
        parts.append(Asked.of(stage.queries, rows, allowed).metrics(np.broadcast_to(counts, allowed.shape)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _joined(parts: list[Metrics], users: np.ndarray) -> dict[str, Any]:
    return summary({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, users)


def _ratios(report: dict[str, Any]) -> dict[str, float | None]:
    """HR@10 of the engine on cold questions over what else there is; None where that is 0."""
    everything, hidden = report["all_items"], report["among_hidden"]
    pairs = {
        "all_items_over_popularity_all_questions": (everything["ours"], report["popularity_all_questions"]),
        "all_items_over_text": (everything["ours"], everything["text"]),
        "all_items_over_chance": (everything["ours"], everything["chance"]),
        "among_hidden_over_popularity_all_questions": (hidden["ours"], report["popularity_all_questions"]),
        "among_hidden_over_text": (hidden["ours"], hidden["text"]),
        "among_hidden_over_chance": (hidden["ours"], hidden["chance"]),
    }
    return {name: a["hr@10"] / b["hr@10"] if b["hr@10"] > 0 else None for name, (a, b) in pairs.items()}
