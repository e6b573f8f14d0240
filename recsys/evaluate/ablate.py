"""What each matcher is worth: the ranker trained without it, and with it alone, on one and the same examples.

The candidates stay those that all matchers together propose, so what is measured is a matcher's worth to the ranking,
not to the search: "only" is better than an engine that had this matcher alone. Its columns are taken out, and
`context_found_by`, which counts matchers, is counted again over those that are left; the other context stays. Places
are places in the whole field, as in service.

Every difference is paired: the same questions, the interval over users drawn anew. On validation the early stop has
seen the questions, which favours every ranker alike.

Letters: R rows, S signals, F features, C the features that are left, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float32, Int64

from recsys.encode.items import ItemTable
from recsys.errors import InvalidInput
from recsys.evaluate.asking import summary
from recsys.features import CONTEXT, feature_names
from recsys.flow import Field, Flow
from recsys.match import Signal
from recsys.metrics import Metrics, paired_interval, ranking_metrics
from recsys.rank import Examples, Ranker, RankerConfig, fit_ranker
from recsys.train.examples import Queries, fields
from recsys.train.fit import Progress, TrainConfig, quiet, ranker_examples, stage_flow
from recsys.train.sequence import NO_SEQUENCES, Sequences
from recsys.train.stages import Stage, Stages

FOUND_BY = CONTEXT.index("context_found_by")
FIRST_PLACES = 50
"""A matcher has found a candidate that stands among so many first of one of its proposing signals."""

COMPARED = ("ndcg@10", "hr@10")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The ranker's rows as they would be if only some matchers fed it: `kept` are columns of the whole, `values` and
    `places` those of the proposing signals among them."""

    names: tuple[str, ...]
    kept: Int64[np.ndarray, " C"]
    values: Int64[np.ndarray, " P"]
    places: Int64[np.ndarray, " P"]

    @classmethod
    def of(cls, flow: Flow, matchers: Iterable[str]) -> Self:
        """The view that `matchers` alone feed."""
        wanted = set(matchers)
        owners = [matcher.name for matcher in flow.matchers for _ in matcher.signals]
        signals: Sequence[Signal] = flow.signals
        rows = np.array([row for row, owner in enumerate(owners) if owner in wanted], np.int64)
        proposing = np.array([row for row in rows if signals[row].proposes], np.int64)
        S = len(signals)
        relative = np.array([not signal.absolute for signal in signals])
        raw = 2 * S + (np.cumsum(relative) - 1)[rows][relative[rows]]
        context = 2 * S + int(relative.sum()) + np.arange(len(CONTEXT))
        return cls(
            names=feature_names([signals[row] for row in rows]),
            kept=np.concatenate([rows, S + rows, raw, context]),
            values=proposing,
            places=S + proposing,
        )

    def rows(self, features: Float32[np.ndarray, "R F"]) -> Float32[np.ndarray, "R C"]:
        """The columns that are left, matchers counted anew."""
        out = features[:, self.kept]
        found = (features[:, self.values] > 0) & (features[:, self.places] < FIRST_PLACES)
        out[:, len(self.kept) - len(CONTEXT) + FOUND_BY] = found.sum(axis=1)
        return out

    def examples(self, whole: Examples) -> Examples:
        return Examples(features=self.rows(whole.features), labels=whole.labels, sizes=whole.sizes)


def ablate(
    stages: Stages,
    items: ItemTable,
    config: TrainConfig,
    *,
    stage: Literal["validation", "test"] = "validation",
    sequences: Sequences = NO_SEQUENCES,
    max_queries: int | None = None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Figures of the whole ranker, of one without each matcher, and of one with each matcher alone (JSON values only).

    Examples are built once and the fields of the stage are walked once, a batch at a time; `max_queries` asks an even
    sample. Raises InvalidInput for another stage.
    """
    if stage not in ("validation", "test"):
        raise InvalidInput.of("stage", stage, 'must be "validation" or "test"')
    train, held, flow = ranker_examples(stages, items, config, progress, sequences)
    asked = stages.validation if stage == "validation" else stages.test
    if asked.memory is stages.validation.memory:
        later = flow
    else:
        later = stage_flow(asked, items, config, progress, sequences.test)
    found = ablation(later, train, held, asked, stages.include_seen, config, progress, max_queries=max_queries)
    return {"stage": stage, **found}


def ablation(
    flow: Flow,
    train: Examples,
    held: Examples,
    asked: Stage,
    include_seen: bool,
    config: TrainConfig,
    progress: Progress = quiet,
    *,
    max_queries: int | None = None,
) -> dict[str, Any]:
    """The same, from the examples of a training that has been done and the flow of the stage that is asked."""
    views = _views(flow)
    rankers = _rankers(views, train.with_positive(), held.with_positive(), config.ranker, progress)
    picked = _even(len(asked.queries), max_queries)
    found = _ask(flow, views, rankers, asked.queries.take(picked), include_seen, progress)
    return {
        "field": "what all matchers together propose, whichever of them feed the ranker",
        **_report(found, asked.users[picked]),
    }


def _views(flow: Flow) -> dict[tuple[str, str], View]:
    """("full", ""), and ("without", matcher) and ("only", matcher) of each."""
    names = [matcher.name for matcher in flow.matchers]
    views = {("full", ""): View.of(flow, names)}
    views |= {("without", name): View.of(flow, [other for other in names if other != name]) for name in names}
    return views | {("only", name): View.of(flow, [name]) for name in names}


def _rankers(
    views: dict[tuple[str, str], View], train: Examples, held: Examples, config: RankerConfig, progress: Progress
) -> dict[tuple[str, str], Ranker]:
    rankers = {}
    for done, (key, view) in enumerate(views.items()):
        progress("ablation: rankers", done, len(views))
        rankers[key] = fit_ranker(view.names, view.examples(train), view.examples(held), config)
    progress("ablation: rankers", len(views), len(views))
    return rankers


def _ask(
    flow: Flow,
    views: dict[tuple[str, str], View],
    rankers: dict[tuple[str, str], Ranker],
    queries: Queries,
    include_seen: bool,
    progress: Progress,
) -> dict[tuple[str, str], Metrics]:
    """Every ranker's metrics; each field is built once, judged by all, and let go."""
    counts = np.diff(queries.indptr)
    parts: dict[tuple[str, str], list[Metrics]] = {key: [] for key in views}
    walk = fields(
        flow,
        queries,
        include_seen=include_seen,
        on_batch=lambda done, total: progress("ablation: asking", done, total),
    )
    for rows, field, hits in walk:
        for key, view in views.items():
            metrics = ranking_metrics(_scores(field, view, rankers[key]), hits, counts[rows])
            parts[key].append({**metrics, "candidate_recall": hits.sum(axis=1) / counts[rows]})
    return {key: {m: np.concatenate([p[m] for p in each]) for m in each[0]} for key, each in parts.items()}


def _scores(field: Field, view: View, ranker: Ranker) -> np.ndarray:
    out = np.full(field.candidates.shape, -np.inf)
    out[field.valid] = ranker.score(view.rows(field.features[field.valid]))
    return out


def _report(found: dict[tuple[str, str], Metrics], users: np.ndarray) -> dict[str, Any]:
    full = found["full", ""]
    out: dict[str, Any] = {"full": summary(full, users), "without": {}, "only": {}}
    for (kind, name), metrics in found.items():
        if kind != "full":
            out[kind][name] = {**summary(metrics, users), "difference": _difference(metrics, full, users)}
    return out


def _difference(metrics: Metrics, full: Metrics, users: np.ndarray) -> dict[str, Any]:
    """This one minus the full one, and the 95 % interval of that over users."""
    out: dict[str, Any] = {}
    for name in COMPARED:
        out[name] = float((metrics[name] - full[name]).mean())
        out[f"{name}_interval"] = list(paired_interval(metrics[name], full[name], users))
    return out


def _even(length: int, limit: int | None) -> Int64[np.ndarray, " Q"]:
    """At most `limit` rows, evenly over all."""
    if limit is None or length <= limit:
        return np.arange(length)
    return np.unique(np.linspace(0, length - 1, limit).astype(np.int64))
