"""Questions, hits and ranker rows against plain loops; training rows are serving rows."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.histories import Histories
from recsys.features import feature_names
from recsys.flow import allowed_mask, rank_field
from recsys.match import States
from recsys.model import Model, ModelSettings
from recsys.rank import Examples
from recsys.states import user_state
from recsys.train.examples import Queries, build_examples, concat, fields
from recsys.train.fit import make_stages, stage_flow, train_ranker
from recsys.types import Event, User
from tests.world import ENCODER, chains, histories_of, item_of, quick, recommender_of, shop, table_of

ITEMS = table_of([item_of(row) for row in range(10)])


def queries() -> Queries:
    states = States(histories=histories_of([[0], [1, 2], [3], []]), now=np.arange(4.0), items=ITEMS)
    return Queries(states=states, indptr=np.array([0, 2, 3, 5, 6]), targets=np.array([1, 5, 2, 0, 9, 7], np.int32))


def test_hits_are_the_targets_among_the_candidates() -> None:
    candidates = np.array([[5, 1, 7, -1], [9, -1, 2, 0], [0, 5, -1, -1]], np.int32)
    assert queries().hits(np.array([0, 2, 3]), candidates).tolist() == [
        [True, True, False, False],
        [True, False, False, True],
        [False, False, False, False],
    ]


def test_padding_hits_nothing_beside_the_largest_row() -> None:
    """-1 beside a target of the highest row: the neighbours in a flat numbering."""
    candidates = np.array([[-1, 9], [-1, 9]], np.int32)
    assert queries().hits(np.array([2, 3]), candidates).tolist() == [[False, True], [False, False]]


def test_hits_equal_the_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.integers(0, 4, 6)
        candidates = rng.integers(-1, 10, (6, 7)).astype(np.int32)
        asked = queries()
        wanted = [
            [int(c) in asked.targets[asked.indptr[q] : asked.indptr[q + 1]].tolist() for c in line]
            for q, line in zip(rows, candidates, strict=True)
        ]
        assert asked.hits(rows, candidates).tolist() == wanted


def test_taken_queries_keep_their_states_and_targets() -> None:
    taken = queries().take(np.array([2, 0, 0]))
    assert taken.indptr.tolist() == [0, 2, 4, 6]
    assert taken.targets.tolist() == [0, 9, 1, 5, 1, 5]
    assert taken.states.now.tolist() == [2, 0, 0]
    assert taken.states.histories.items.tolist() == [3, 0, 0]
    assert len(queries().take(np.zeros(0, np.int64))) == 0


def test_single_is_one_target_a_query() -> None:
    states = queries().states
    asked = Queries.single(states, np.array([4, 5, 6, 7], np.int32))
    assert asked.hits(np.arange(4), np.array([[4], [4], [6], [7]], np.int32)).tolist() == [
        [True],
        [False],
        [True],
        [True],
    ]


def test_concat_puts_queries_one_after_the_other() -> None:
    parts = [
        Examples(features=np.full((n, 2), n, np.float32), labels=np.eye(1, n, dtype=np.float32)[0], sizes=np.array([n]))
        for n in (2, 3)
    ]
    both = concat(parts)
    assert both.sizes.tolist() == [2, 3]
    assert both.features[:, 0].tolist() == [2, 2, 3, 3, 3]
    assert both.labels.tolist() == [1, 0, 1, 0, 0]


@pytest.fixture(scope="module")
def world() -> tuple[Model, Queries]:
    """A model over the test stage's memory, so that its moments can be asked again the way a server is asked."""
    dataset, config = shop(), quick()
    items = table_of(dataset.catalogue.items)
    stages = make_stages(dataset.histories, items, config)
    flow = stage_flow(stages.test, items, config)
    model = Model(
        settings=ModelSettings(encoder=None, encoder_fingerprint=ENCODER.fingerprint, include_seen=stages.include_seen),
        items=items,
        users=dataset.users,
        histories=dataset.histories,
        flow=flow,
        ranker=train_ranker(stages, items, config)[0],
    )
    return model, stages.test.queries


def asker(model: Model, past: Histories, query: int, now: float) -> User:
    """The one who stood in a query's state, as a request of a caller tells it."""
    mine = past.slice(query)
    events = tuple(
        Event(user_id="", item_id=model.items.item(int(item)).item_id, timestamp=float(at))
        for item, at in zip(past.items[mine], past.times[mine], strict=True)
    )
    return User(events=events, replace_history=True, now=now)


def test_rows_hold_each_query_with_a_hit(world: tuple[Model, Queries]) -> None:
    model, asked = world
    whole = build_examples(model.flow, asked, include_seen=True)
    assert whole.features.shape == (whole.sizes.sum(), len(feature_names(model.flow.signals)))
    starts = np.concatenate([[0], np.cumsum(whole.sizes)[:-1]])
    positives = np.add.reduceat(whole.labels, starts)
    assert (positives >= 1).all()
    found = [hits.sum(axis=1) for _, _, hits in fields(model.flow, asked, include_seen=True)]
    assert positives.tolist() == [n for n in np.concatenate(found).tolist() if n]


def test_sampled_negatives_leave_targets_and_features_as_they_are(world: tuple[Model, Queries]) -> None:
    model, asked = world
    some = asked.take(np.arange(30))
    whole = build_examples(model.flow, some, include_seen=True)
    sampled = build_examples(model.flow, some, include_seen=True, negatives=5, seed=1)
    assert sampled.labels.sum() == whole.labels.sum()
    assert len(sampled.sizes) == len(whole.sizes)
    positives = np.add.reduceat(sampled.labels, np.concatenate([[0], np.cumsum(sampled.sizes)[:-1]]))
    assert (sampled.sizes - positives <= 5).all()
    rows = {row.tobytes() for row in whole.features}
    assert all(row.tobytes() in rows for row in sampled.features)
    again = build_examples(model.flow, some, include_seen=True, negatives=5, seed=1)
    np.testing.assert_array_equal(again.features, sampled.features)
    other = build_examples(model.flow, some, include_seen=True, negatives=5, seed=2)
    assert not np.array_equal(other.features, sampled.features)


def test_progress_counts_the_queries(world: tuple[Model, Queries]) -> None:
    model, asked = world
    seen: list[tuple[int, int]] = []
    build_examples(model.flow, asked.take(np.arange(100)), include_seen=True, on_batch=lambda *at: seen.append(at))
    assert seen[-1] == (100, 100)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_training_rows_are_serving_rows(world: tuple[Model, Queries]) -> None:
    """The same person at the same moment: what the ranker is trained on, in batches, is what a request computes."""
    model, asked = world
    some = asked.take(np.arange(0, len(asked), max(1, len(asked) // 25)))
    for rows, field, _ in fields(model.flow, some, include_seen=model.settings.include_seen):
        for at, query in enumerate(rows):
            user = asker(model, some.states.histories, int(query), float(some.states.now[query]))
            states = user_state(model, model.items, user)
            mask = allowed_mask(states, include_seen=model.settings.include_seen)
            served = model.flow.field(states, mask)
            valid = field.valid[at]
            np.testing.assert_array_equal(served.candidates[0], field.candidates[at][valid])
            np.testing.assert_allclose(served.features[0], field.features[at][valid], rtol=1e-4, atol=1e-5)


def test_a_served_answer_is_the_trained_rankers_order(world: tuple[Model, Queries]) -> None:
    model, asked = world
    recommender = recommender_of(model)
    some = asked.take(np.arange(0, len(asked), max(1, len(asked) // 10)))
    for rows, field, _ in fields(model.flow, some, include_seen=model.settings.include_seen):
        assert model.ranker is not None
        scores = rank_field(field, model.ranker)
        for at, query in enumerate(rows):
            user = asker(model, some.states.histories, int(query), float(some.states.now[query]))
            answer = recommender.recommend(user, k=5)
            best = np.sort(scores[at])[::-1][:5]
            # A split may lie within the rounding of a feature; then a leaf differs, not the answer's sense.
            np.testing.assert_allclose([item.score for item in answer.items], best, atol=0.2)


def test_chains_are_asked_without_what_was_seen() -> None:
    dataset, config = chains(100), quick()
    items = table_of(dataset.catalogue.items)
    stages = make_stages(dataset.histories, items, config)
    assert not stages.include_seen
    flow = stage_flow(stages.test, items, config)
    past = stages.test.queries.states.histories
    for rows, field, _ in fields(flow, stages.test.queries, include_seen=False):
        for at, query in enumerate(rows):
            assert not set(past.items[past.slice(int(query))].tolist()) & set(field.candidates[at].tolist())
