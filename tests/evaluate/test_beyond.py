"""Each measure on lists whose answer can be worked out by hand, then all of them on a small world."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from recsys.data.catalogue import Catalogue
from recsys.encode.items import ItemTable
from recsys.evaluate import EvaluateConfig, evaluate
from recsys.evaluate.beyond import (
    Pairs,
    TopItems,
    beyond_accuracy,
    calibration,
    category_shares,
    coverage,
    divergence,
    diversity,
    gini,
    percentiles,
    popular_lists,
    users_of_items,
)
from recsys.train.fit import make_stages
from recsys.types import Item
from tests.world import chains, histories_of, quick, shop, table_of


def lists_of(*rows: Sequence[int]) -> np.ndarray:
    return np.array(rows, np.int32)


def items_of(*categories: Sequence[str], vectors: Sequence[Sequence[float]] | None = None) -> ItemTable:
    items = [Item(item_id=f"i{row}", categories=tuple(names)) for row, names in enumerate(categories)]
    found = np.eye(len(items), 4) if vectors is None else np.array(vectors)
    return ItemTable(Catalogue(items), found.astype(np.float32))


def test_the_first_items_are_collected_batch_by_batch() -> None:
    top = TopItems(3, k=2)
    top(np.array([1, 2]), lists_of([4, 7, 9], [8, 3, -1]), np.array([[0.1, 0.9, 0.5], [1.0, 2.0, -np.inf]]))
    top(np.array([0]), lists_of([6, -1]), np.array([[0.3, -np.inf]]))
    assert top.rows.tolist() == [[6, -1], [7, 9], [3, 8]]


def test_coverage_is_the_share_of_items_anybody_sees() -> None:
    assert coverage(lists_of([0, 1], [1, -1]), 8) == 0.25
    assert coverage(lists_of([-1, -1]), 8) == 0


def test_gini_of_equal_of_single_and_of_unequal_exposure() -> None:
    assert gini(np.array([3, 3, 3])) == 0
    assert gini(np.array([0, 0, 0, 8])) == 0.75  # (n - 1) / n
    assert gini(np.array([1, 3])) == 0.25
    assert gini(np.array([0, 0])) is None


def test_percentiles_put_equals_in_the_middle() -> None:
    assert percentiles(np.array([5, 1, 9, 1])).tolist() == [0.625, 0.25, 0.875, 0.25]


def test_means_are_of_lists_not_of_items() -> None:
    pairs = Pairs.of_lists(lists_of([0, -1, -1], [1, 1, 2], [-1, -1, -1]))
    assert pairs.mean(np.array([10.0, 1.0, 4.0])) == (10 + 2) / 2
    assert Pairs.of_lists(lists_of([-1])).mean(np.ones(1)) is None


def test_a_user_who_meets_an_item_twice_is_one_user() -> None:
    assert users_of_items(histories_of([[0, 0, 2], [2], []]), 4).tolist() == [1, 0, 2, 0]


class TestDiversity:
    def test_by_the_angle_between_texts(self) -> None:
        items = items_of((), (), (), vectors=[[1, 0, 0, 0], [0, 1, 0, 0], [math.sqrt(0.5), math.sqrt(0.5), 0, 0]])
        assert diversity(lists_of([0, 1]), items) == pytest.approx(1)
        assert diversity(lists_of([0, 0]), items) == pytest.approx(0, abs=1e-6)
        cosines = (0 + math.sqrt(0.5) + math.sqrt(0.5)) / 3
        assert diversity(lists_of([0, 1, 2]), items) == pytest.approx(1 - cosines, rel=1e-6)

    def test_items_without_a_text_take_no_part(self) -> None:
        items = items_of((), (), (), vectors=[[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
        assert diversity(lists_of([0, 1, 2]), items) == pytest.approx(0, abs=1e-6)
        assert diversity(lists_of([0, 2, -1]), items) is None


class TestCalibration:
    ITEMS = items_of(("a",), ("b",), ("a", "b"), ())

    def test_an_items_categories_share_it(self) -> None:
        assert category_shares(self.ITEMS).toarray().tolist() == [[1, 0], [0, 1], [0.5, 0.5], [0, 0]]

    def test_the_same_mix_costs_nothing(self) -> None:
        assert calibration(lists_of([2, 2], [0, 1]), histories_of([[0, 1], [2, 3]]), self.ITEMS) == pytest.approx(0)

    def test_what_the_list_lacks_costs(self) -> None:
        """History half a, half b; a list of a only: .5 ln(.5 / (.99 + .005)) + .5 ln(.5 / .005)."""
        wanted = 0.5 * math.log(0.5 / 0.995) + 0.5 * math.log(0.5 / 0.005)
        assert calibration(lists_of([0, -1]), histories_of([[0, 1]]), self.ITEMS) == pytest.approx(wanted)
        p, q = np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])
        assert divergence(p, q)[0] == pytest.approx(wanted)

    def test_queries_without_categories_take_no_part(self) -> None:
        histories = histories_of([[3], [0, 1], [0]])
        assert calibration(lists_of([0], [3], [-1]), histories, self.ITEMS) is None


@pytest.mark.parametrize("world", [chains, shop])
def test_popular_lists_hold_what_most_events_mention_and_may_be_shown(world: Any) -> None:
    dataset = world(80, 30)
    items = table_of(dataset.catalogue.items)
    stages = make_stages(dataset.histories, items, quick())
    stage = stages.test
    lists = popular_lists(stage, items, k=5, include_seen=stages.include_seen)
    counts = np.bincount(stage.memory.items, minlength=30)
    histories = stage.queries.states.histories
    for query, row in enumerate(lists[:20]):
        seen = set() if stages.include_seen else set(histories.items[histories.slice(query)].tolist())
        wanted = [item for item in np.argsort(-counts, kind="stable").tolist() if item not in seen]
        assert row.tolist() == wanted[:5]


def test_a_user_who_has_seen_nearly_all_gets_a_short_list() -> None:
    dataset = chains(80, 30)
    items = table_of(dataset.catalogue.items)
    stage = make_stages(dataset.histories, items, quick()).test
    lists = popular_lists(stage, items, k=30, include_seen=False)
    lengths = stage.queries.states.histories.lengths
    np.testing.assert_array_equal((lists >= 0).sum(axis=1), 30 - lengths)  # in chains nobody meets an item twice


def test_the_report_compares_with_popularity_targets_and_histories() -> None:
    dataset = chains(150, 40)
    outcome = evaluate(dataset, table_of(dataset.catalogue.items), EvaluateConfig(protocol="loo", train=quick()))
    found = json.loads(json.dumps(outcome.report["beyond_accuracy"], allow_nan=False))
    assert found["k"] == 10
    ours, popular = found["ours"], found["popularity"]
    assert set(ours) == set(popular) > set(found["targets"]) == set(found["histories"])
    assert ours["coverage"] > popular["coverage"]
    assert ours["gini"] < popular["gini"]
    assert ours["popularity"] < popular["popularity"]
    assert ours["popularity_percentile"] < popular["popularity_percentile"]
    assert ours["novelty"] > popular["novelty"]
    assert all(0 <= row["coverage"] <= 1 and row["calibration"] >= 0 for row in (ours, popular))


def test_lists_of_the_targets_are_as_popular_as_the_targets() -> None:
    dataset = chains(80, 30)
    items = table_of(dataset.catalogue.items)
    stage = make_stages(dataset.histories, items, quick()).test
    found = beyond_accuracy(stage.queries.targets[:, None], stage, items, include_seen=False)
    assert {name: found["ours"][name] for name in found["targets"]} == found["targets"]
    assert found["ours"]["diversity"] is None  # one item has no pair
