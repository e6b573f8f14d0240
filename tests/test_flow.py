"""The flow's small tools against sets, and the whole flow against renumbered items."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.flow import Field, Flow, allowed_mask, batches, distinct, fallback_scores, rank_field, states_of
from recsys.match import Signal, States
from recsys.rank import Ranker, RankerConfig, fit_ranker
from recsys.train.examples import Queries, build_examples
from recsys.train.fit import fit_flow
from tests.world import chains, histories_of, item_of, random_states, renumbered, reordered, shop, table_of

NUM_ITEMS = 40
rows = st.lists(st.lists(st.integers(-1, 6), min_size=5, max_size=5), min_size=1, max_size=4)


@dataclass(frozen=True)
class World:
    flow: Flow
    states: States
    ranker: Ranker


def world(place: np.ndarray, ranker: Ranker | None = None) -> World:
    """A small shop whose item i is called place[i]."""
    dataset = shop(60, NUM_ITEMS)
    items = table_of(reordered(dataset.catalogue.items, place))
    histories = renumbered(dataset.histories, place)
    flow = fit_flow(histories.drop_last(3), items)
    states = random_states(items, 10)
    states = replace(states, histories=renumbered(states.histories, place))
    return World(flow, states, ranker or small_ranker(flow, states_of(histories.drop_last(1), items), histories.items))


def small_ranker(flow: Flow, states: States, items: np.ndarray) -> Ranker:
    targets = items[np.cumsum(states.histories.lengths + 1) - 1]
    examples = build_examples(flow, Queries.single(states, targets), include_seen=True)
    config = RankerConfig(max_trees=15, min_data_in_leaf=10, patience=15, num_threads=1)
    return fit_ranker(flow.features, examples, examples, config)


def field_of(world: World, states: States | None = None) -> Field:
    asked = world.states if states is None else states
    return world.flow.field(asked, allowed_mask(asked, include_seen=True))


@pytest.fixture(scope="module")
def small() -> World:
    return world(np.arange(NUM_ITEMS))


@given(rows)
def test_distinct_keeps_each_row_once(lists: list[list[int]]) -> None:
    found = distinct(np.array(lists, np.int32))
    wanted = [set(row) - {-1} for row in lists]
    assert [set(row) - {-1} for row in found.tolist()] == wanted
    assert (found >= 0).sum(axis=1).tolist() == [len(row) for row in wanted]
    assert found.shape[1] == max(len(row) for row in wanted)
    assert ((found[:, :-1] >= 0) | (found[:, 1:] < 0)).all()  # padding stands behind


def test_distinct_of_nothing() -> None:
    assert distinct(np.zeros((3, 0), np.int32)).shape == (3, 0)
    assert distinct(np.full((2, 4), -1, np.int32)).shape == (2, 0)


def test_what_was_met_is_not_allowed_again() -> None:
    items = table_of([item_of(row) for row in range(4)])
    states = States(histories=histories_of([[1, 1, 3], []]), now=np.zeros(2), items=items)
    assert allowed_mask(states, include_seen=False).tolist() == [[True, False, True, False], [True] * 4]
    assert allowed_mask(states, include_seen=True).all()


def test_batches_cover_all_states_in_order() -> None:
    items = table_of([item_of(row) for row in range(4)])
    states = States(histories=histories_of([[0], [1, 2], [], [3], [1]]), now=np.arange(5.0), items=items)
    parts = list(batches(states, 2))
    assert [part[0].tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert np.concatenate([part[1].now for part in parts]).tolist() == [0, 1, 2, 3, 4]
    assert np.concatenate([part[1].histories.items for part in parts]).tolist() == [0, 1, 2, 3, 1]


def test_states_are_asked_at_their_last_event() -> None:
    items = table_of([item_of(0)])
    assert states_of(histories_of([[0, 0], [0]], [[3.0, 9.0], [4.0]]), items).now.tolist() == [9, 4]


def test_padding_is_never_ranked(small: World) -> None:
    allowed = np.random.default_rng(0).random((len(small.states), NUM_ITEMS)) < 0.5
    field = small.flow.field(small.states, allowed)
    assert (~field.valid).any()
    for scores in (rank_field(field, small.ranker), fallback_scores(field, small.flow.signals)):
        assert np.isneginf(scores[~field.valid]).all()
        assert np.isfinite(scores[field.valid]).all()


def test_the_order_without_a_ranker_is_the_mean_share() -> None:
    signals = (Signal("a", proposes=1), Signal("b", absolute=True), Signal("c", proposes=1))
    scores = np.array([[[4, 9, 0], [2, 9, 1], [0, 9, 0]]], np.float32)
    field = Field(candidates=np.array([[5, 6, -1]], np.int32), scores=scores, features=np.zeros((1, 3, 0), np.float32))
    assert fallback_scores(field, signals).tolist() == [[0.5, 0.75, -np.inf]]


def test_asked_candidates_are_judged_in_the_field_of_all(small: World) -> None:
    """Few are asked for; their places and shares are those among all proposals."""
    allowed = allowed_mask(small.states, include_seen=True)
    whole = small.flow.field(small.states, allowed)
    asked = np.full((len(small.states), 1), 7, np.int32)
    wider = small.flow.field(small.states, allowed, asked)
    assert (wider.candidates == 7).any(axis=1).all()
    already = (whole.candidates == 7).any(axis=1)
    assert already.any()
    for user in np.flatnonzero(already):
        mine, theirs = whole.features[user][whole.valid[user]], wider.features[user][wider.valid[user]]
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_batch_equals_one_by_one(small: World) -> None:
    whole = field_of(small)
    for user in range(len(small.states)):
        alone = States(
            histories=small.states.histories.take(np.array([user])),
            now=small.states.now[[user]],
            items=small.states.items,
        )
        field = field_of(small, alone)
        valid = whole.valid[user]
        np.testing.assert_array_equal(field.candidates[0], whole.candidates[user][valid])
        np.testing.assert_allclose(field.features[0], whole.features[user][valid], rtol=1e-4, atol=1e-5)


def test_nothing_allowed_is_an_empty_field(small: World) -> None:
    field = small.flow.field(small.states, np.zeros((len(small.states), NUM_ITEMS), bool))
    assert field.candidates.shape == (len(small.states), 0)
    assert rank_field(field, small.ranker).shape == fallback_scores(field, small.flow.signals).shape == (10, 0)


def test_renumbering_the_items_renumbers_the_ranking(small: World) -> None:
    """No item's place in the catalogue leaks into any feature, nor into the ranker's order."""
    place = np.random.default_rng(4).permutation(NUM_ITEMS)
    other = world(place, small.ranker)
    mine, theirs = field_of(small), field_of(other)
    for user in range(len(small.states)):
        names, moved = mine.candidates[user][mine.valid[user]], theirs.candidates[user][theirs.valid[user]]
        assert {int(place[row]) for row in names} == set(moved.tolist())
        order, moved_order = np.argsort(place[names]), np.argsort(moved)
        features = mine.features[user][mine.valid[user]][order]
        moved_features = theirs.features[user][theirs.valid[user]][moved_order]
        np.testing.assert_allclose(moved_features, features, rtol=2e-3, atol=2e-4)
        # A split may lie within the rounding of a feature, but not often.
        same = np.isclose(small.ranker.score(moved_features), small.ranker.score(features))
        assert same.mean() > 0.95


def test_a_chain_is_followed() -> None:
    """After 20, 21, 22 of a world that mostly steps by one, 23 is the first of the mean share's order."""
    dataset = chains()
    items = table_of(dataset.catalogue.items)
    flow = fit_flow(dataset.histories, items)
    states = States(histories=histories_of([[20, 21, 22]]), now=np.zeros(1), items=items)
    field = flow.field(states, allowed_mask(states, include_seen=False))
    assert field.candidates[0, fallback_scores(field, flow.signals)[0].argmax()] == 23
