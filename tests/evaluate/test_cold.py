"""Items that nobody has met: hidden everywhere, asked for at the true moments, found by their text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsys.data.dataset import Dataset
from recsys.errors import InvalidInput
from recsys.evaluate import EvaluateConfig, split
from recsys.evaluate.baselines import Asked
from recsys.evaluate.cold import chance, cold_items, cold_questions, without_items
from recsys.match.lexical import Lexical
from recsys.match.popularity import Popularity
from recsys.match.text import Text
from recsys.match.transitions import Transitions
from recsys.metrics import ranking_metrics
from recsys.train.hidden import hide
from recsys.train.stages import Stages
from recsys.types import Item
from tests.world import chains, dataset_of, histories_of, quick, shop, table_of

CONFIG = EvaluateConfig(protocol="loo", train=replace(quick(), matchers=(Transitions, Text, Lexical, Popularity)))


def shelves(num_users: int = 300, num_shelves: int = 10, width: int = 24) -> Dataset:
    """Everybody reads along one shelf in any order; a book's text names its shelf."""
    rng = np.random.default_rng(0)
    lives = [
        (int(rng.integers(num_shelves)) * width + rng.permutation(width)[: rng.integers(6, 11)]).tolist()
        for _ in range(num_users)
    ]
    items = [
        Item(item_id=f"b{row}", title=f"book{row}", description=f"shelf{row // width} " * 4)
        for row in range(num_shelves * width)
    ]
    return dataset_of(histories_of(lives), items)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    dataset = shelves()
    found = cold_items(dataset, table_of(dataset.catalogue.items), CONFIG, 0.1)
    return json.loads(json.dumps(found, allow_nan=False))  # type: ignore[no-any-return]


def test_unmet_items_are_found_by_their_text(report: dict[str, Any]) -> None:
    among = report["among_hidden"]
    assert among["ours"]["ndcg@10"] > 1.3 * among["chance"]["ndcg@10"]
    assert among["text"]["hr@10"] > 0.9  # about 2.4 hidden books a shelf
    assert among["ours"]["hr@10"] > 0.9


def test_popularity_knows_nothing_of_them(report: dict[str, Any]) -> None:
    for ranked in ("all_items", "among_hidden"):
        assert report[ranked]["popularity"]["hr@10"] == 0
    assert report["popularity_all_questions"]["hr@10"] > 0
    assert report["popularity_all_questions"]["queries"] == 300


def test_chance_is_what_a_random_order_reaches(report: dict[str, Any]) -> None:
    assert report["hidden_items"] == 24
    assert report["among_hidden"]["chance"]["hr@10"] == pytest.approx(10 / 24, rel=0.05)  # some hidden ones were seen
    assert report["all_items"]["chance"]["hr@10"] == pytest.approx(10 / 232, rel=0.02)


def test_the_report_says_how_much_was_hidden_and_asked(report: dict[str, Any]) -> None:
    assert (report["share"], report["seed"], report["protocol"]) == (0.1, 0, "loo")
    assert report["hidden_events"] > report["questions"] > 10
    for ranked in ("all_items", "among_hidden"):
        assert set(report[ranked]) == {"ours", "popularity", "text", "chance"}
        assert all(row["queries"] == report["questions"] for row in report[ranked].values())
    ratios = report["ratios"]
    hit = report["all_items"]["ours"]["hr@10"]
    popular = report["popularity_all_questions"]["hr@10"]
    assert ratios["all_items_over_popularity_all_questions"] == pytest.approx(hit / popular)


class TestHiding:
    def test_a_share_of_the_items_that_are_met_drawn_by_seed(self) -> None:
        histories = histories_of([[2 * item for item in range(50)]])
        hidden = hide(histories, 120, 0.1, 3)
        assert hidden.sum() == 5
        assert not hidden[1::2].any()
        assert not hidden[100:].any()
        np.testing.assert_array_equal(hidden, hide(histories, 120, 0.1, 3))
        assert (hidden != hide(histories, 120, 0.1, 4)).any()
        assert hide(histories, 120, 1e-6, 0).sum() == 1

    @pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
    def test_a_share_is_a_share(self, share: float) -> None:
        dataset = chains(20, 20)
        with pytest.raises(InvalidInput, match="share="):
            cold_items(dataset, table_of(dataset.catalogue.items), CONFIG, share)

    @staticmethod
    def world(protocol: str) -> tuple[Stages, np.ndarray]:
        dataset = {"loo": chains, "gts": shop}[protocol](120, 40)
        items = table_of(dataset.catalogue.items)
        stages = split(dataset.histories, items, replace(CONFIG, protocol=protocol))
        return stages, hide(dataset.histories, 40, 0.2, 0)

    @pytest.mark.parametrize("protocol", ["loo", "gts"])
    def test_nothing_of_them_is_left_but_in_the_questions(self, protocol: str) -> None:
        stages, hidden = self.world(protocol)
        warm, cold = without_items(stages, hidden), cold_questions(stages, hidden, 0.2)
        for stage in (warm.train, warm.validation, warm.test, cold.stage):
            told = (stage.memory.items, stage.passing.items, stage.queries.states.histories.items)
            assert not any(hidden[items].any() for items in told)
            assert all(len(items) for items in told)
            assert len(stage.users) == len(stage.target_times) == len(stage.queries) == len(stage.queries.indptr) - 1
        for stage in (warm.train, warm.validation):
            assert not hidden[stage.queries.targets].any()
        assert hidden[cold.stage.queries.targets].all()
        asked = len(warm.test.queries.targets) + len(cold.stage.queries.targets)
        assert asked == len(stages.test.queries.targets)

    @pytest.mark.parametrize("protocol", ["loo", "gts"])
    def test_questions_keep_their_users_moments_and_other_events(self, protocol: str) -> None:
        stages, hidden = self.world(protocol)
        cold, whole = cold_questions(stages, hidden, 0.2), stages.test
        queries = whole.queries
        spans = zip(queries.indptr, queries.indptr[1:], strict=False)
        rows = [q for q, (a, b) in enumerate(spans) if hidden[queries.targets[a:b]].any()]
        np.testing.assert_array_equal(cold.stage.users, whole.users[rows])
        np.testing.assert_array_equal(cold.stage.queries.states.now, queries.states.now[rows])
        lives = queries.states.histories.take(np.array(rows))
        np.testing.assert_array_equal(cold.lives.items, lives.items)
        kept = lives.keep(~hidden[lives.items])
        np.testing.assert_array_equal(cold.stage.queries.states.histories.items, kept.items)
        np.testing.assert_array_equal(cold.stage.queries.states.histories.indptr, kept.indptr)

    def test_what_was_really_met_is_not_shown_again(self) -> None:
        stages, hidden = self.world("loo")
        cold = cold_questions(stages, hidden, 0.2)
        rows = np.arange(len(cold.lives))
        allowed = cold.allowed(rows, cold.stage.queries.states)
        assert hidden[cold.lives.items].any()
        assert not allowed[cold.lives.users, cold.lives.items].any()
        assert allowed.sum() == allowed.size - len(cold.lives.items)

    def test_one_memory_of_two_stages_stays_one(self) -> None:
        stages, hidden = self.world("loo")
        assert stages.test.memory is stages.validation.memory
        warm = without_items(stages, hidden)
        assert warm.test.memory is warm.validation.memory is warm.test.passing

    def test_where_nobody_asks_for_them_there_is_nothing_to_measure(self) -> None:
        dataset = dataset_of(histories_of([[0, 1, 2, 3, 4, 9]] * 6), chains(1, 10).catalogue.items)
        stages = split(dataset.histories, table_of(dataset.catalogue.items), CONFIG)
        with pytest.raises(InvalidInput, match="no test question"):
            cold_questions(stages, np.arange(10) == 0, 0.1)


@pytest.mark.parametrize(("others", "targets", "missed"), [(30, 1, 0), (30, 4, 0), (30, 2, 3), (4, 2, 0), (12, 0, 2)])
def test_chance_equals_many_random_orders(others: int, targets: int, missed: int) -> None:
    size = others + targets
    asked = Asked(
        rivals=np.arange(size)[None] >= targets,
        owners=np.zeros(targets, np.int64),
        targets=np.arange(targets),
        num_targets=np.array([targets + missed]),
    )
    scores = np.random.default_rng(0).random((20_000, size))
    hits = np.broadcast_to(np.arange(size) < targets, scores.shape)
    drawn = ranking_metrics(scores, hits, np.full(len(scores), targets + missed))
    found = chance(asked)
    assert found["hr@10"][0] == pytest.approx(drawn["hr@10"].mean(), abs=0.012)
    assert found["ndcg@10"][0] == pytest.approx(drawn["ndcg@10"].mean(), abs=0.012)
