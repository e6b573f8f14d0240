"""The ranker: learns, explains, survives as text, and says what it cannot do."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.errors import InvalidInput, MixedSnapshot
from recsys.rank import Examples, Ranker, RankerConfig, fit_ranker

NAMES = ("signal", "noise", "half")
CONFIG = RankerConfig(max_trees=40, min_data_in_leaf=10, patience=10, learning_rate=0.2, num_threads=1)


def examples(seed: int, num_queries: int = 80, num_rows: int = 12) -> Examples:
    """In each query the row of the highest `signal` is what happened."""
    rng = np.random.default_rng(seed)
    features = rng.random((num_queries, num_rows, 3)).astype(np.float32)
    features[..., 2] = 0.5 * features[..., 0] + 0.5 * features[..., 2]
    labels = features[..., 0] == features[..., 0].max(axis=1, keepdims=True)
    return Examples(
        features=features.reshape(-1, 3),
        labels=labels.astype(np.float32).ravel(),
        sizes=np.full(num_queries, num_rows, np.int64),
    )


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return fit_ranker(NAMES, examples(0), examples(1), CONFIG)


def test_learns_what_happened(ranker: Ranker) -> None:
    held = examples(2)
    best = ranker.score(held.features).reshape(80, 12).argmax(axis=1)
    happened = held.labels.reshape(80, 12).argmax(axis=1)
    assert (best == happened).mean() > 0.7
    assert next(iter(ranker.importance())) == "signal"


def test_contributions_and_base_sum_to_the_score(ranker: Ranker) -> None:
    rows = examples(3).features
    shares = ranker.explain(rows)
    assert shares.shape == (len(rows), len(NAMES) + 1)
    np.testing.assert_allclose(shares.sum(axis=1), ranker.score(rows), rtol=1e-5, atol=1e-9)
    assert np.ptp(shares[:, -1]) == 0  # one base for all


def test_text_keeps_every_score(ranker: Ranker) -> None:
    again = Ranker.from_text(ranker.to_text(), NAMES)
    rows = examples(4).features
    np.testing.assert_array_equal(again.score(rows), ranker.score(rows))
    assert again.features == NAMES
    assert again.to_text() == ranker.to_text()


@pytest.mark.parametrize("names", [("signal", "noise"), (*NAMES, "more"), ("noise", "signal", "half")])
def test_columns_it_was_not_trained_on_are_refused(ranker: Ranker, names: tuple[str, ...]) -> None:
    with pytest.raises(MixedSnapshot, match="feature"):
        Ranker.from_text(ranker.to_text(), names)


def test_equal_seeds_train_equal_rankers(ranker: Ranker) -> None:
    assert fit_ranker(NAMES, examples(0), examples(1), CONFIG).to_text() == ranker.to_text()


def test_stops_where_validation_is_best() -> None:
    """Labels of pure chance: trees past the first few only learn the training set by heart."""
    rng = np.random.default_rng(0)
    chance = [
        Examples(
            features=rng.random((960, 3)).astype(np.float32),
            labels=np.tile(np.eye(1, 12, dtype=np.float32).ravel(), 80),
            sizes=np.full(80, 12, np.int64),
        )
        for _ in range(2)
    ]
    config = RankerConfig(max_trees=200, min_data_in_leaf=5, patience=5, num_threads=1)
    done: list[tuple[int, int]] = []
    ranker = fit_ranker(NAMES, *chance, config, on_tree=lambda at, most: done.append((at, most)))
    assert ranker.booster.num_trees() <= len(done) - 5
    assert done == [(at, 200) for at in range(1, len(done) + 1)]
    assert len(done) < 200


def test_queries_without_a_positive_are_left_out() -> None:
    both = Examples(
        features=np.arange(15, dtype=np.float32).reshape(5, 3),
        labels=np.array([0, 1, 0, 0, 0], np.float32),
        sizes=np.array([2, 3], np.int64),
    )
    kept = both.with_positive()
    assert kept.sizes.tolist() == [2]
    assert kept.features.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert kept.labels.tolist() == [0, 1]


@pytest.mark.parametrize("empty", ["train", "validation"])
def test_no_positive_query_is_an_error_that_says_so(empty: str) -> None:
    good = examples(0)
    bad = Examples(features=good.features, labels=np.zeros_like(good.labels), sizes=good.sizes)
    pair = (bad, good) if empty == "train" else (good, bad)
    with pytest.raises(InvalidInput, match=f"{empty}.*target"):
        fit_ranker(NAMES, *pair, CONFIG)


def test_no_rows_have_no_scores(ranker: Ranker) -> None:
    nothing = np.zeros((0, 3), np.float32)
    assert ranker.score(nothing).shape == (0,)
    assert ranker.explain(nothing).shape == (0, 4)
