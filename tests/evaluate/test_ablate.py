"""A ranker without a matcher has the rows it would have if the matcher were not there; figures follow what it knows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsys.errors import InvalidInput
from recsys.evaluate import ask
from recsys.evaluate.ablate import View, ablate
from recsys.features import build_features, feature_names
from recsys.flow import allowed_mask
from recsys.match.facets import Facets
from recsys.match.popularity import Popularity
from recsys.match.transitions import Transitions
from recsys.train.fit import TrainConfig, make_stages, stage_flow, train_ranker
from tests.world import chains, quick, shop, table_of

CONFIG = replace(quick(), matchers=(Transitions, Facets, Popularity))
DATASET = chains(200, 60)
ITEMS = table_of(DATASET.catalogue.items)
STAGES = make_stages(DATASET.histories, ITEMS, CONFIG)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    found = ablate(STAGES, ITEMS, CONFIG)
    return json.loads(json.dumps(found, allow_nan=False))  # type: ignore[no-any-return]


@pytest.mark.parametrize("left_out", [None, "neighbours", "lexical", "facets", "recall", "popularity"])
def test_a_view_is_what_the_features_would_be_without_the_matcher(left_out: str | None) -> None:
    """All ten matchers, those that propose and those that do not; the candidates stay."""
    dataset = shop(60, 40)
    items = table_of(dataset.catalogue.items)
    stage = make_stages(dataset.histories, items, quick()).test
    flow, queries = stage_flow(stage, items, quick()), stage.queries.take(np.arange(12))
    field = flow.field(queries.states, allowed_mask(queries.states, include_seen=True))
    view = View.of(flow, [matcher.name for matcher in flow.matchers if matcher.name != left_out])
    kept = [row for row, signal in enumerate(flow.signals) if not signal.name.startswith(f"{left_out}_")]
    signals = [flow.signals[row] for row in kept]
    wanted = build_features(signals, queries.states, field.candidates, field.scores[..., kept], flow.met)
    assert view.names == feature_names(signals)
    np.testing.assert_array_equal(view.rows(field.features[field.valid]), wanted[field.valid])


def test_each_matcher_is_left_out_once_and_left_alone_once(report: dict[str, Any]) -> None:
    names = {"transitions", "facets", "popularity"}
    assert set(report["without"]) == set(report["only"]) == names
    for row in (report["full"], *report["without"].values(), *report["only"].values()):
        assert row["queries"] == report["full"]["queries"] > 0
        assert row["ndcg@10"] <= row["hr@10"]
        assert row["candidate_recall"] == report["full"]["candidate_recall"]


def test_chains_are_known_by_their_transitions(report: dict[str, Any]) -> None:
    lost = report["without"]["transitions"]["difference"]
    assert lost["ndcg@10_interval"][1] < -0.1
    assert report["only"]["transitions"]["ndcg@10"] > 0.9 * report["full"]["ndcg@10"]
    for name in ("facets", "popularity"):
        assert report["only"][name]["ndcg@10"] < 0.5 * report["full"]["ndcg@10"]
        low, high = report["without"][name]["difference"]["ndcg@10_interval"]
        assert low < 0.05
        assert high > -0.05


def test_differences_are_those_of_the_figures(report: dict[str, Any]) -> None:
    for row in (*report["without"].values(), *report["only"].values()):
        for metric in ("ndcg@10", "hr@10"):
            assert row["difference"][metric] == pytest.approx(row[metric] - report["full"][metric])
            low, high = row["difference"][f"{metric}_interval"]
            assert low <= row["difference"][metric] <= high


def test_the_full_one_is_the_ranker_that_is_trained(report: dict[str, Any]) -> None:
    ranker, flow = train_ranker(STAGES, ITEMS, CONFIG)
    metrics = ask(flow, ranker, STAGES.validation, STAGES.include_seen, "validation")
    for name in ("ndcg@10", "hr@10", "mrr", "candidate_recall"):
        assert report["full"][name] == pytest.approx(metrics[name].mean())


def test_the_test_may_be_asked_of_its_own_memory_and_of_fewer_queries() -> None:
    config: TrainConfig = replace(CONFIG, stages=replace(CONFIG.stages, with_validation=True))
    stages = make_stages(DATASET.histories, ITEMS, config)
    assert stages.test.memory is not stages.validation.memory
    found = ablate(stages, ITEMS, config, stage="test", max_queries=50)
    ranker, _ = train_ranker(stages, ITEMS, config)
    metrics = ask(stage_flow(stages.test, ITEMS, config), ranker, stages.test, stages.include_seen, "test")
    picked = np.unique(np.linspace(0, len(stages.test.queries) - 1, 50).astype(np.int64))
    assert (found["stage"], found["full"]["queries"]) == ("test", 50)
    assert found["full"]["ndcg@10"] == pytest.approx(metrics["ndcg@10"][picked].mean())


def test_another_stage_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="stage='train'"):
        ablate(STAGES, ITEMS, CONFIG, stage="train")  # type: ignore[arg-type]
