"""Every signal alone: the fast ways over all items agree with the candidates' way, the figures with sorting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from recsys.evaluate import EvaluateConfig, evaluate
from recsys.evaluate.baselines import SIGNALS, Asked, ask_alone, ask_baselines, signal_scores
from recsys.flow import Flow, allowed_mask, batches
from recsys.match import Reading, States
from recsys.match.lexical import Lexical
from recsys.metrics import ranking_metrics
from recsys.train.fit import make_stages, stage_flow
from recsys.train.stages import Stages
from tests.world import chains, quick, shop, table_of

WORLDS = {"loo": chains, "gts": shop}


@pytest.fixture(scope="module", params=WORLDS)
def asked(request: pytest.FixtureRequest) -> tuple[Flow, Stages]:
    dataset = WORLDS[request.param](90, 40)
    items = table_of(dataset.catalogue.items)
    stages = make_stages(dataset.histories, items, quick())
    return stage_flow(stages.test, items, quick()), stages


@dataclass(frozen=True, slots=True)
class Plain:
    """A matcher whose readings do not say how they hold their scores."""

    inner: Any

    @property
    def name(self) -> str:
        return str(self.inner.name)

    @property
    def signals(self) -> Any:
        return self.inner.signals

    def read(self, states: States) -> Reading:
        return PlainReading(self.inner.read(states))


@dataclass(frozen=True, slots=True)
class PlainReading:
    inner: Reading

    def propose(self, allowed: np.ndarray) -> np.ndarray:
        return self.inner.propose(allowed)

    def score(self, candidates: np.ndarray) -> np.ndarray:
        return self.inner.score(candidates)


def proposing(flow: Flow) -> set[str]:
    return {signal.name for signal in flow.signals if signal.proposes}


def plain(flow: Flow) -> Flow:
    return Flow(tuple(Plain(matcher) for matcher in flow.matchers), flow.met)  # type: ignore[misc]


def test_every_signal_is_what_the_reading_says_of_each_candidate(asked: tuple[Flow, Stages]) -> None:
    flow, stages = asked
    _, states = next(batches(stages.test.queries.states, 20))
    every = np.broadcast_to(np.arange(flow.num_fitted, dtype=np.int32), (len(states), flow.num_fitted))
    found = dict(signal_scores(flow, states, proposing(flow)))
    assert set(found) == proposing(flow)
    for matcher in flow.matchers:
        scores = matcher.read(states).score(every)
        for column, signal in enumerate(matcher.signals):
            if signal.proposes:
                np.testing.assert_allclose(found[signal.name], scores[..., column], atol=1e-5, err_msg=signal.name)


def test_a_reading_of_unknown_kind_is_read_in_chunks(asked: tuple[Flow, Stages]) -> None:
    flow, stages = asked
    _, states = next(batches(stages.test.queries.states, 20))
    fast, slow = (dict(signal_scores(each, states, proposing(flow))) for each in (flow, plain(flow)))
    assert set(fast) == set(slow)
    for name, scores in fast.items():
        assert scores.shape == slow[name].shape
        np.testing.assert_allclose(scores, slow[name], atol=1e-5, err_msg=name)


def test_figures_are_those_of_sorting_all_items(asked: tuple[Flow, Stages]) -> None:
    flow, stages = asked
    queries, include_seen = stages.test.queries, stages.include_seen
    alone = ask_alone(flow, stages.test, include_seen, every_signal=True)
    rows = np.arange(len(queries))
    allowed = allowed_mask(queries.states, include_seen=include_seen)
    every = np.broadcast_to(np.arange(flow.num_fitted, dtype=np.int32), allowed.shape)
    hits = queries.hits(rows, every) & allowed
    for name, scores in signal_scores(flow, queries.states, set(alone.signals)):
        wanted = ranking_metrics(np.where(allowed, scores, -np.inf), hits, np.diff(queries.indptr))
        for metric, values in wanted.items():
            np.testing.assert_allclose(alone.signals[name][metric], values, atol=1e-9, err_msg=f"{name} {metric}")


def test_one_walk_serves_baselines_and_signals(asked: tuple[Flow, Stages]) -> None:
    flow, stages = asked
    alone = ask_alone(flow, stages.test, stages.include_seen, every_signal=True)
    baselines = ask_baselines(flow, stages.test, stages.include_seen)
    assert list(alone.baselines) == list(baselines)
    for name, metrics in baselines.items():
        for metric, values in metrics.items():
            np.testing.assert_array_equal(values, alone.baselines[name][metric])
    repeats = set() if stages.include_seen else {SIGNALS["own_repeat"]}
    assert set(alone.signals) == proposing(flow) - repeats
    assert ask_alone(flow, stages.test, stages.include_seen).signals == {}


def test_a_target_that_may_not_be_shown_is_missed(asked: tuple[Flow, Stages]) -> None:
    flow, stages = asked
    queries = stages.test.queries
    rows = np.array([0, 1])
    allowed = np.ones((2, flow.num_fitted), bool)
    first = queries.targets[queries.indptr[0] : queries.indptr[1]]
    allowed[0, first] = False
    batch = Asked.of(queries, rows, allowed)
    assert (batch.owners == 1).all()
    assert not batch.rivals[0, first].any()
    assert not batch.rivals[1, batch.targets].any()
    scores = np.ones((2, flow.num_fitted))
    scores[0, first], scores[1, batch.targets] = 2.0, 2.0
    found = batch.metrics(scores)
    assert (found["hr@20"][0], found["mrr"][0]) == (0, 0)
    assert found["ndcg@10"][1] == pytest.approx(1.0)


def test_the_report_holds_signals_where_asked_for() -> None:
    dataset = chains(80, 40)
    config = EvaluateConfig(protocol="loo", train=replace(quick(), matchers=(Lexical,)), every_signal=True)
    report = evaluate(dataset, table_of(dataset.catalogue.items), config).report
    assert set(report["signals"]) == {"lexical_last", "lexical_recent"}
    assert set(report["baselines"]) == {"item_item"}
    for row in report["signals"].values():
        assert row["ndcg@10_interval"][0] <= row["ndcg@10"] <= row["hr@10"]
    plainly = evaluate(dataset, table_of(dataset.catalogue.items), replace(config, every_signal=False)).report
    assert "signals" not in plainly
