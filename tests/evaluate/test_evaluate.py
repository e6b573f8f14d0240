"""Evaluation from end to end, on worlds whose structure popularity cannot see."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsys.data.dataset import Dataset
from recsys.errors import InvalidInput
from recsys.evaluate import EvaluateConfig, Outcome, evaluate, with_shuffled_ties
from recsys.evaluate.baselines import ItemItem
from recsys.evaluate.slices import slice_report
from recsys.flow import states_of
from recsys.metrics import ranking_metrics
from recsys.train.fit import make_stages
from recsys.train.stages import Stages
from tests.world import chains, histories_of, item_of, quick, shop, table_of

WORLDS = {"loo": chains, "gts": shop}


def run(dataset: Dataset, protocol: str, **changes: Any) -> Outcome:
    config = replace(EvaluateConfig(protocol=protocol, train=quick()), **changes)
    return evaluate(dataset, table_of(dataset.catalogue.items), config)


@pytest.fixture(scope="module", params=WORLDS)
def outcome(request: pytest.FixtureRequest) -> Outcome:
    return run(WORLDS[request.param](), request.param)


def comparable(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "seconds"}


def test_finds_the_structure_that_popularity_does_not_see(outcome: Outcome) -> None:
    report = outcome.report
    ours, popular = report["test"], report["baselines"]["popularity"]
    assert ours["ndcg@10"] > 2 * popular["ndcg@10"]
    assert ours["ndcg@10_interval"][0] > popular["ndcg@10_interval"][1]
    assert ours["hr@10"] > 0.5


def test_keeps_up_with_every_baseline(outcome: Outcome) -> None:
    """The best baseline is one of the signals, so a ranker over all of them may lose little to it."""
    best = max(row["ndcg@10"] for row in outcome.report["baselines"].values())
    assert outcome.report["test"]["ndcg@10"] > 0.93 * best


def test_the_report_is_whole_and_json(outcome: Outcome) -> None:
    report = json.loads(json.dumps(outcome.report, allow_nan=False))
    assert {"validation", "test", "slices", "baselines", "importance", "num_trees", "seconds"} <= set(report)
    assert {"protocol", "variant", "ties", "seen_items", "data_fingerprint", "num_users", "seed"} <= set(report)
    for row in (report["validation"], report["test"], *report["baselines"].values()):
        assert 0 <= row["ndcg@10_interval"][0] <= row["ndcg@10"] <= row["ndcg@10_interval"][1] <= 1
        assert row["ndcg@10"] <= row["hr@10"]
        assert row["queries"] > 0
    assert report["test"]["recall@20"] <= report["test"]["candidate_recall"] <= 1
    assert report["num_trees"] == outcome.ranker.booster.num_trees() > 0
    assert set(report["importance"]) <= set(outcome.ranker.features)


def test_baselines_are_those_of_the_data(outcome: Outcome) -> None:
    names = set(outcome.report["baselines"])
    common = {
        "popularity", "recency_popularity", "item_item", "ease", "ease_recent", "last_item_transitions",
        "sequence_neighbours",
    }  # fmt: skip
    repeats = {"own_repeat"} if outcome.report["protocol"] == "gts" else set()
    assert names == common | repeats


def test_slices_are_parts_of_the_test(outcome: Outcome) -> None:
    slices, test = outcome.report["slices"], outcome.report["test"]
    for names in (
        ["history <=50", "history 51-200", "history >200"],
        [f"target met {n} times" for n in ("0", "1-4", "5-19", "20+")],
    ):
        rows = [slices[name] for name in names]
        assert sum(row["queries"] for row in rows) == test["queries"]
        total = sum(row["queries"] * row["ndcg@10"] for row in rows if row["queries"])
        assert total / test["queries"] == pytest.approx(test["ndcg@10"])


def test_equal_seeds_give_equal_figures(outcome: Outcome) -> None:
    protocol = outcome.report["protocol"]
    again = run(WORLDS[protocol](), protocol)
    assert comparable(again.report) == comparable(outcome.report)


def test_another_seed_asks_others() -> None:
    def figures(seed: int) -> dict[str, Any]:
        config = quick(seed=seed)
        config = replace(config, stages=replace(config.stages, test_queries=60))
        report = run(chains(120, 40), "loo", train=config, baselines=False).report
        assert report["seed"] == seed
        assert report["test"]["queries"] == 60
        return comparable(report)["test"]  # type: ignore[no-any-return]

    assert figures(0) != figures(1)


def test_more_memory_for_the_test_changes_it_and_says_so() -> None:
    dataset = chains(120, 40)
    plain = run(dataset, "loo", baselines=False).report
    wider = run(dataset, "loo", train=quick(with_validation=True), baselines=False).report
    assert (plain["variant"], wider["variant"]) == ("train", "train+val")
    assert wider["test"] != plain["test"]
    assert wider["validation"] == plain["validation"]


def test_ties_may_be_shuffled() -> None:
    """In the shop the events of a basket share a time; chains by position have no ties, so nothing changes there."""
    config = EvaluateConfig(protocol="loo", train=quick())
    shuffled = with_shuffled_ties(config)
    assert (shuffled.ties, shuffled.baselines) == ("shuffled", False)

    def figures(dataset: Dataset, config: EvaluateConfig) -> dict[str, Any]:
        report = evaluate(dataset, table_of(dataset.catalogue.items), replace(config, baselines=False)).report
        return {name: report[name] for name in ("test", "validation")}

    small, basket = chains(120, 40), shop(80, 40)
    assert figures(small, shuffled) == figures(small, config)
    assert figures(basket, shuffled) != figures(basket, config)


@pytest.mark.parametrize(("changes", "field"), [({"protocol": "random"}, "protocol"), ({"ties": "thrown"}, "ties")])
def test_what_it_does_not_know_is_an_error(changes: dict[str, str], field: str) -> None:
    dataset = chains(20, 20)
    config = replace(EvaluateConfig(protocol="loo", train=quick()), **changes)
    with pytest.raises(InvalidInput, match=f"{field}="):
        evaluate(dataset, table_of(dataset.catalogue.items), config)


def test_progress_is_told_for_each_part() -> None:
    told: list[str] = []
    dataset = chains(60, 30)
    config = EvaluateConfig(protocol="loo", train=quick())
    evaluate(dataset, table_of(dataset.catalogue.items), config, lambda what, done, total: told.append(what))
    wanted = ["ranker: examples", "ranker: trees", "asking: validation", "asking: test", "asking: baselines"]
    assert [name for name in dict.fromkeys(told) if name in wanted] == wanted


class TestItemItem:
    def test_cosine_of_two_items_sets_of_users(self) -> None:
        histories = histories_of([[0, 1, 1], [0, 1], [0, 2], [3]])
        found = ItemItem.fit(histories, 4).similarity.toarray()
        assert found[0, 1] == pytest.approx(2 / math.sqrt(3 * 2), rel=1e-4)
        assert found[0, 2] == pytest.approx(1 / math.sqrt(3), rel=1e-4)
        assert found[1, 2] == found[0, 3] == 0
        assert not found.diagonal().any()

    def test_a_users_items_add_up_once_each(self) -> None:
        histories = histories_of([[0, 1], [2, 1], [0, 2]])
        items = table_of([item_of(row) for row in range(3)])
        states = states_of(histories_of([[0, 0, 2]]), items)
        model = ItemItem.fit(histories, 3)
        np.testing.assert_allclose(model.score(states)[0], model.similarity.toarray()[[0, 2]].sum(axis=0), rtol=1e-6)


class TestSlices:
    @staticmethod
    def stages() -> Stages:
        dataset = shop(60, 400)
        return make_stages(dataset.histories, table_of(dataset.catalogue.items), quick())

    def test_by_hand(self) -> None:
        stage = self.stages().test
        counts = np.bincount(stage.memory.items, minlength=400)
        queries = stage.queries
        least = [counts[queries.targets[a:b]].min() for a, b in zip(queries.indptr, queries.indptr[1:], strict=False)]
        assert min(least) == 0 < 5 < max(least)
        metrics = {"ndcg@10": np.arange(len(queries)) / 1e4, "hr@10": np.ones(len(queries))}
        report = slice_report(stage, metrics)
        for name, low, high in (("0", 0, 0), ("1-4", 1, 4), ("5-19", 5, 19), ("20+", 20, np.inf)):
            mask = np.array([low <= n <= high for n in least])
            row = report[f"target met {name} times"]
            assert row["queries"] == mask.sum()
            if mask.any():
                assert row["ndcg@10"] == pytest.approx(metrics["ndcg@10"][mask].mean())
        assert report["target same day"]["queries"] + report["target other day"]["queries"] == len(queries)

    def test_an_empty_slice_has_no_figures(self) -> None:
        stage = self.stages().test
        ones = np.ones(len(stage.queries))
        assert slice_report(stage, {"ndcg@10": ones, "hr@10": ones})["history >200"] == {"queries": 0}


def test_chance_is_not_better_than_it_is() -> None:
    """Targets that no history could tell: the engine reaches what picking among unseen items reaches, no more."""
    rng = np.random.default_rng(0)
    lives = [rng.permutation(60)[:10].tolist() for _ in range(250)]
    dataset = chains(250, 60)
    chance = replace(dataset, histories=histories_of(lives))
    report = run(chance, "loo", baselines=False).report
    scores = rng.random((5_000, 51))
    guess = ranking_metrics(scores, np.eye(1, 51, dtype=bool).repeat(5_000, axis=0), np.ones(5_000, np.int64))
    assert report["test"]["ndcg@10_interval"][0] < guess["ndcg@10"].mean() + 0.01
