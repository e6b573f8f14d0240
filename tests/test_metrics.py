"""Known answers, ties, and trec_eval beside us."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval

from recsys.metrics import CUTS, bootstrap_interval, paired_interval, place_metrics, ranking_metrics, target_places


def metrics(scores: list[float], hits: list[int], num_targets: int) -> dict[str, float]:
    found = ranking_metrics(np.array([scores], np.float64), np.array([hits], bool), np.array([num_targets], np.int64))
    return {name: float(values[0]) for name, values in found.items()}


def test_the_only_target_in_third_place() -> None:
    found = metrics([0.9, 0.1, 0.5, 0.7], [0, 0, 1, 0], 1)
    assert (found["hr@1"], found["hr@5"], found["recall@5"]) == (0, 1, 1)
    assert found["ndcg@1"] == 0
    assert found["ndcg@10"] == pytest.approx(0.5)  # 1 / log2(3 + 1)
    assert found["mrr"] == pytest.approx(1 / 3)


def test_two_of_three_targets() -> None:
    """In first and third place, one not proposed: ndcg = (1 + 1/2) / (1 + 1/log2(3) + 1/2)."""
    found = metrics([4, 3, 2, 1], [1, 0, 1, 0], 3)
    assert found["recall@1"] == pytest.approx(1 / 3)
    assert found["recall@10"] == pytest.approx(2 / 3)
    assert found["ndcg@10"] == pytest.approx(1.5 / (1.5 + 1 / np.log2(3)))
    assert found["ndcg@1"] == found["hr@1"] == found["mrr"] == 1


def test_a_perfect_order_of_more_targets_than_the_cut_is_one() -> None:
    found = metrics(list(range(8, 0, -1)), [1] * 8, 8)
    assert found["ndcg@5"] == pytest.approx(1.0)
    assert found["recall@5"] == pytest.approx(5 / 8)


def test_among_equals_targets_stand_last() -> None:
    found = metrics([1.0] * 5, [1, 0, 0, 0, 0], 1)
    assert found["mrr"] == pytest.approx(1 / 5)
    assert found["hr@1"] == 0
    assert metrics([2.0, 1.0, 1.0], [0, 1, 0], 1)["mrr"] == pytest.approx(1 / 3)


def test_a_target_that_is_no_candidate_is_missed() -> None:
    assert set(metrics([3, 2, 1], [0, 0, 0], 1).values()) == {0.0}


def test_padding_takes_no_place() -> None:
    plain = metrics([3, 2, 1], [0, 1, 0], 2)
    assert metrics([-np.inf, 3, -np.inf, 2, 1], [0, 0, 0, 1, 0], 2) == plain


def test_no_candidates_at_all() -> None:
    found = ranking_metrics(np.zeros((2, 0)), np.zeros((2, 0), bool), np.array([1, 2]))
    assert all(values.tolist() == [0, 0] for values in found.values())


def test_equals_trec_eval() -> None:
    rng = np.random.default_rng(0)
    num_queries, num_items = 60, 30
    scores = rng.permuted(np.tile(np.arange(num_items, dtype=np.float64), (num_queries, 1)), axis=1)
    hits = rng.random((num_queries, num_items)) < 0.12
    absent = rng.integers(0, 4, num_queries)
    absent[hits.sum(axis=1) == 0] += 1
    qrel = {
        f"q{q}": {f"d{d}": 1 for d in np.flatnonzero(hits[q])} | {f"absent{n}": 1 for n in range(absent[q])}
        for q in range(num_queries)
    }
    run = {f"q{q}": {f"d{d}": float(scores[q, d]) for d in range(num_items)} for q in range(num_queries)}
    cuts = ",".join(map(str, CUTS))
    names = {f"ndcg_cut.{cuts}", f"recall.{cuts}", f"success.{cuts}", "recip_rank"}
    judged = pytrec_eval.RelevanceEvaluator(qrel, names).evaluate(run)
    ours = ranking_metrics(scores, hits, hits.sum(axis=1) + absent)
    pairs = {"mrr": "recip_rank"}
    for cut in CUTS:
        pairs |= {f"ndcg@{cut}": f"ndcg_cut_{cut}", f"recall@{cut}": f"recall_{cut}", f"hr@{cut}": f"success_{cut}"}
    assert set(ours) == set(pairs)
    for name, theirs in pairs.items():
        np.testing.assert_allclose(ours[name], [judged[f"q{q}"][theirs] for q in range(num_queries)], atol=1e-9)


def test_the_interval_holds_the_mean_and_hangs_on_the_seed_alone() -> None:
    rng = np.random.default_rng(1)
    values, groups = rng.random(500), rng.integers(0, 100, 500)
    low, high = bootstrap_interval(values, groups)
    assert low < values.mean() < high
    assert high - low < 0.2
    assert (low, high) == bootstrap_interval(values, groups, seed=0)
    assert (low, high) != bootstrap_interval(values, groups, seed=1)


def test_a_users_queries_are_drawn_together() -> None:
    """Ten users who answer all alike: drawing single queries would call the mean far surer than it is."""
    groups = np.repeat(np.arange(10), 50)
    values = (groups % 2).astype(np.float64)
    low, high = bootstrap_interval(values, groups)
    assert high - low > 0.4
    alone_low, alone_high = bootstrap_interval(values, np.arange(500))
    assert alone_high - alone_low < 0.1


def test_nothing_has_no_interval() -> None:
    assert np.isnan(bootstrap_interval(np.zeros(0), np.zeros(0, np.int64))).all()


class TestWithoutASort:
    @staticmethod
    def agree(scores: np.ndarray, allowed: np.ndarray, hits: np.ndarray, num_targets: np.ndarray) -> None:
        owners, targets = np.nonzero(hits & allowed)
        found = place_metrics(scores, allowed & ~hits, owners, targets, num_targets)
        sorted_ = ranking_metrics(np.where(allowed, scores, -np.inf), hits & allowed, num_targets)
        assert set(found) == set(sorted_)
        for name, values in sorted_.items():
            np.testing.assert_allclose(found[name], values, atol=1e-12, err_msg=name)

    @pytest.mark.parametrize("levels", [1, 2, 5, 40, 10_000])
    @pytest.mark.parametrize("targets", [0.02, 0.3, 1.0])
    def test_the_same_as_with_one(self, levels: int, targets: float) -> None:
        """Few levels of scores make ties everywhere, among rivals, among targets and between them."""
        rng = np.random.default_rng(levels)
        for size in ((1, 1), (7, 30), (40, 57)):
            scores = rng.integers(0, levels, size).astype(np.float32)
            hits, allowed = rng.random(size) < targets, rng.random(size) < 0.8
            self.agree(scores, allowed, hits, hits.sum(axis=1) + rng.integers(0, 3, size[0]))

    def test_one_target_a_query(self) -> None:
        rng = np.random.default_rng(0)
        scores, hits = rng.integers(0, 20, (64, 100)).astype(np.float64), np.zeros((64, 100), bool)
        hits[np.arange(64), rng.integers(0, 100, 64)] = True
        self.agree(scores, np.ones((64, 100), bool), hits, np.ones(64, np.int64))

    def test_the_order_of_the_targets_means_nothing(self) -> None:
        scores = np.array([[5.0, 4.0, 3.0, 3.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
        owners, targets = np.array([1, 0, 0, 0]), np.array([2, 4, 0, 2])
        rivals = np.array([[0, 1, 0, 1, 0], [1, 1, 0, 1, 1]], bool)
        assert target_places(scores, rivals, owners, targets).tolist() == [4, 4, 0, 3]

    def test_nobody_gains_by_a_score_that_is_no_number(self) -> None:
        scores = np.array([[np.nan, 1.0, 0.0], [1.0, np.nan, 0.0]])
        places = target_places(scores, np.array([[0, 1, 1], [0, 1, 1]], bool), np.array([0, 1]), np.array([0, 0]))
        assert places.tolist() == [2, 1]

    def test_no_targets_at_all(self) -> None:
        none = np.zeros(0, np.int64)
        found = place_metrics(np.zeros((2, 3)), np.ones((2, 3), bool), none, none, np.array([1, 0]))
        assert all(values.tolist() == [0, 0] for values in found.values())


def test_a_paired_interval_sees_what_two_single_ones_hide() -> None:
    """Users differ much, the two methods by the same little for everyone: the difference is sure."""
    rng = np.random.default_rng(2)
    theirs = rng.random(200)
    ours, users = theirs + 0.01 + rng.normal(0, 0.001, 200), np.arange(200)
    low, high = paired_interval(ours, theirs, users)
    assert 0 < low < 0.01 < high < 0.02
    assert bootstrap_interval(ours, users)[0] < bootstrap_interval(theirs, users)[1]
    assert paired_interval(theirs, theirs, users) == (0.0, 0.0)
    assert paired_interval(theirs, ours, users) == pytest.approx((-high, -low), abs=1e-4)
