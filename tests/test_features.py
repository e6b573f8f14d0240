"""Columns of the ranker: places with ties, shares, order of names, and no influence of padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.features import ABSOLUTE, CONTEXT, RELATIVE, build_features, competition_rank, feature_names
from recsys.match import Signal, States
from tests.world import DAY_S, histories_of, item_of, table_of

ITEMS = table_of([item_of(row) for row in range(6)])
SIGNALS = (Signal("near", proposes=5), Signal("like", absolute=True), Signal("far", proposes=5))


def states() -> States:
    histories = histories_of([[1, 2, 1], []], [[0.0, DAY_S, 2 * DAY_S], []], clock="timestamp")
    return States(histories=histories, now=np.array([3 * DAY_S, 5.0]), items=ITEMS)


def columns(candidates: np.ndarray, scores: np.ndarray, met: tuple[bool, ...] = (True,) * 6) -> dict[str, np.ndarray]:
    candidates, scores = candidates.astype(np.int32), scores.astype(np.float32)
    features = build_features(SIGNALS, states(), candidates, scores, np.array(met, bool))
    assert features.dtype == np.float32
    return {name: features[..., place] for place, name in enumerate(feature_names(SIGNALS))}


def test_places_by_hand() -> None:
    scores = np.array([[5, 7, 5, 1, 7, 0]], np.float32)
    assert competition_rank(scores, np.ones((1, 6), bool)).tolist() == [[2, 0, 2, 4, 0, 5]]
    valid = np.array([[True, False, True, True, True, True]])
    assert competition_rank(scores, valid)[valid].tolist() == [1, 1, 3, 0, 4]


def test_what_differs_by_rounding_only_is_a_tie() -> None:
    scores = np.float32([[0.3, 0.3 * (1 + 3e-7), 0.1, 0.1 - 1e-8, 1e-9, -1e-9, 0.3003]])
    assert competition_rank(scores, np.ones((1, 7), bool)).tolist() == [[1, 1, 3, 3, 5, 5, 0]]
    small = np.float32([[3e-9, 2e-9, 1e-9]])
    assert competition_rank(small, np.ones((1, 3), bool)).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("count", [1, 2, 700, 2_048, 2_049, 5_000])
def test_places_are_those_of_a_sort_by_the_whole_score(count: int) -> None:
    """However short the keys are that are sorted: many scores here differ in their last bits alone."""
    rng = np.random.default_rng(count)
    near = np.float32(1) + np.float32(2e-5) * rng.permutation(count).astype(np.float32)
    wide = (rng.normal(size=count) * 10.0 ** rng.integers(-6, 6, count)).astype(np.float32)
    for scores in (near, wide, np.where(rng.random(count) < 0.5, np.float32(0), wide)):
        falling = np.sort(scores)[::-1]
        apart = falling[:-1] - falling[1:] > RELATIVE * abs(falling[:-1]) + ABSOLUTE * abs(falling[0])
        first = np.maximum.accumulate(np.concatenate([[0], np.where(apart, np.arange(1, count), 0)]))
        order = np.argsort(-scores, kind="stable")
        found = competition_rank(scores[None], np.ones((1, count), bool))[0]
        np.testing.assert_array_equal(found[order], first)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=12))
def test_a_place_is_the_number_of_strictly_better_valid_ones(row: list[tuple[int, bool]]) -> None:
    scores = np.array([[score for score, _ in row]], np.float32).reshape(1, -1)
    valid = np.array([[good for _, good in row]], bool).reshape(1, -1)
    found = competition_rank(scores, valid)
    for place, (score, good) in enumerate(row):
        if good:
            assert found[0, place] == sum(other > score for other, counts in row if counts)


def test_names_are_in_the_order_of_the_columns() -> None:
    assert feature_names(SIGNALS) == (
        "near_norm", "like", "far_norm", "near_rank", "like_rank", "far_rank", "near_value", "far_value",
        "context_length", "context_gap", "context_variety", "context_found_by", "context_cold",
    )  # fmt: skip
    assert len(set(feature_names(SIGNALS))) == 2 * len(SIGNALS) + 2 + len(CONTEXT)


def test_shares_places_and_context_by_hand() -> None:
    candidates = np.array([[0, 3, 5], [2, -1, -1]])
    scores = np.zeros((2, 3, 3))
    scores[0] = [[4, -0.5, 0], [1, 0.5, 0], [0, 0.5, 2]]
    scores[1, 0] = [3, 0.25, 0]
    found = columns(candidates, scores, met=(True, True, False, True))
    assert found["near_norm"][0].tolist() == [1, 0.25, 0]
    assert found["like"][0].tolist() == [-0.5, 0.5, 0.5]
    assert found["far_norm"][0].tolist() == [0, 0, 1]
    assert found["near_value"][0].tolist() == [4, 1, 0]
    assert found["far_value"][0].tolist() == [0, 0, 2]
    assert found["near_rank"][0].tolist() == [0, 1, 2]
    assert found["like_rank"][0].tolist() == [2, 0, 0]
    assert found["context_found_by"][0].tolist() == [1, 1, 1]
    assert found["context_cold"][0].tolist() == [0, 0, 1]
    assert found["context_cold"][1, 0] == 1
    np.testing.assert_allclose(found["context_length"][:, 0], [np.log(4), 0], rtol=1e-6)
    np.testing.assert_allclose(found["context_gap"][:, 0], [np.log1p(DAY_S), 0], rtol=1e-6)
    np.testing.assert_allclose(found["context_variety"][:, 0], [2 / 3, 0], rtol=1e-6)


def test_an_empty_history_at_no_time_has_a_context() -> None:
    nowhere = States(histories=histories_of([[]]), now=np.array([-np.inf]), items=ITEMS)
    features = build_features(
        SIGNALS, nowhere, np.array([[1]], np.int32), np.ones((1, 1, 3), np.float32), np.ones(6, bool)
    )
    assert np.isfinite(features).all()


@pytest.mark.parametrize("seed", range(3))
def test_padding_and_the_order_of_candidates_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    candidates = np.stack([rng.permutation(6), rng.permutation(6)]).astype(np.int32)
    scores = rng.integers(-2, 5, (2, 6, 3)).astype(np.float32)
    plain = build_features(SIGNALS, states(), candidates, scores, np.ones(5, bool))
    order = rng.permutation(9)
    padded = np.pad(candidates, ((0, 0), (0, 3)), constant_values=-1)[:, order]
    wide = np.pad(scores, ((0, 0), (0, 3), (0, 0)))[:, order]
    found = build_features(SIGNALS, states(), padded, wide, np.ones(5, bool))
    np.testing.assert_array_equal(found[:, np.argsort(order)][:, :6], plain)


def test_no_candidates_are_no_error() -> None:
    empty = build_features(
        SIGNALS, states(), np.zeros((2, 0), np.int32), np.zeros((2, 0, 3), np.float32), np.ones(6, bool)
    )
    assert empty.shape == (2, 0, len(feature_names(SIGNALS)))
