"""What every matcher does. The worlds are small, so that proposals are not cut where equal scores would decide."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.data.histories import Histories
from recsys.flow import batches
from recsys.match import Corpus, Matcher, States, Witness
from recsys.match.suite import KNOWN
from recsys.types import Item
from tests.world import corpus_of, histories_of, random_states, renumbered, reordered, sequence_of, shop, table_of

READS_TEXTS = {"interest", "text", "kinship", "lexical", "facets", "recall"}
NUM_ITEMS = 50
NEW = [
    Item(item_id="new1", title="maker1 thing1", description="a kind1 of maker1", categories=("all", "kind1")),
    Item(item_id="new2", title="novelty", description="words never met"),
]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return corpus_of(shop(80, NUM_ITEMS))


@pytest.fixture(scope="module")
def states(corpus: Corpus) -> States:
    return random_states(corpus.items)


@pytest.fixture(scope="module", params=KNOWN, ids=lambda kind: str(kind.name))
def matcher(request: pytest.FixtureRequest, corpus: Corpus) -> Matcher:
    fitted: Matcher = request.param.fit(corpus)
    return fitted


def everything(states: States) -> np.ndarray:
    """All rows of the states' items, then padding, as candidates of each state."""
    row = np.append(np.arange(len(states.items), dtype=np.int32), np.int32(-1))
    return np.tile(row, (len(states), 1))


def score(matcher: Matcher, states: States, candidates: np.ndarray | None = None) -> np.ndarray:
    return matcher.read(states).score(everything(states) if candidates is None else candidates)


def proposed(matcher: Matcher, states: States, allowed: np.ndarray | None = None) -> list[set[int]]:
    mask = np.ones((len(states), len(states.items)), bool) if allowed is None else allowed
    return [set(row[row >= 0].tolist()) for row in matcher.read(states).propose(mask)]


def extended(states: States) -> States:
    """The same states where NEW items are known, too."""
    return replace(states, items=states.items.extended(NEW, table_of(NEW).base))


def one(states: States, user: int) -> States:
    rows = np.array([user])
    return States(histories=states.histories.take(rows), now=states.now[rows], items=states.items)


def test_a_column_for_each_signal(matcher: Matcher, states: States) -> None:
    scores = score(matcher, states)
    assert scores.shape == (len(states), NUM_ITEMS + 1, len(matcher.signals))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert len({signal.name for signal in matcher.signals}) == len(matcher.signals)
    assert all(signal.name.startswith(matcher.name) for signal in matcher.signals)


def test_knows_something(matcher: Matcher, states: States) -> None:
    assert (score(matcher, states)[2:, :-1] != 0).any(axis=(0, 1)).all()


def test_padding_scores_nothing(matcher: Matcher, states: States) -> None:
    assert (score(matcher, states)[:, -1] == 0).all()


def test_candidates_are_scored_where_they_stand(matcher: Matcher, states: States) -> None:
    candidates = np.random.default_rng(3).integers(-1, NUM_ITEMS, (len(states), 17)).astype(np.int32)
    whole = np.take_along_axis(score(matcher, states), candidates[..., None], axis=1)  # row -1 is the padding
    np.testing.assert_allclose(score(matcher, states, candidates), whole, rtol=1e-5, atol=1e-6)


def test_new_items_score_by_their_texts_alone(matcher: Matcher, states: States) -> None:
    scores = score(matcher, extended(states))[2:, NUM_ITEMS : NUM_ITEMS + 2]
    assert np.isfinite(scores).all()
    assert (scores != 0).any() == (matcher.name in READS_TEXTS)


def test_new_items_in_a_history_do_no_harm(matcher: Matcher, states: States) -> None:
    wider = extended(states)
    late = wider.histories.ages == 0
    met = replace(wider.histories, items=np.where(late, NUM_ITEMS, wider.histories.items).astype(np.int32))
    met_new = replace(wider, histories=met)
    assert np.isfinite(score(matcher, met_new)).all()
    assert all(rows <= set(range(NUM_ITEMS + 2)) for rows in proposed(matcher, met_new))


def test_proposes_what_is_allowed(matcher: Matcher, states: States) -> None:
    allowed = np.random.default_rng(5).random((len(states), NUM_ITEMS)) < 0.3
    rows = matcher.read(states).propose(allowed)
    assert rows.dtype == np.int32
    assert (rows >= 0).sum(axis=1).max() <= sum(signal.proposes for signal in matcher.signals)
    assert rows.min(initial=-1) >= -1
    assert np.take_along_axis(allowed, np.maximum(rows, 0), axis=1)[rows >= 0].all()
    none = matcher.read(states).propose(np.zeros((len(states), NUM_ITEMS), bool))
    assert (none == -1).all()


def test_proposes_what_it_scores_highest(matcher: Matcher, states: States) -> None:
    """Each of the best rows of a proposing signal is proposed: at least `proposes` of them, as many as are positive."""
    scores, found = score(matcher, states)[:, :NUM_ITEMS], proposed(matcher, states)
    for column, signal in enumerate(matcher.signals):
        for user in range(len(states)):
            order = np.argsort(-scores[user, :, column], kind="stable")[: signal.proposes]
            assert {int(row) for row in order if scores[user, row, column] > 1e-6} <= found[user]


def test_an_empty_history_says_nothing_of_its_own(matcher: Matcher, states: States) -> None:
    scores, found = score(matcher, states)[:2], proposed(matcher, states)[:2]
    np.testing.assert_array_equal(scores[0], scores[1])
    if matcher.name != "popularity":
        assert (scores == 0).all()
        assert found == [set(), set()]


def test_a_batch_equals_one_by_one(matcher: Matcher, states: States) -> None:
    whole, found = score(matcher, states), proposed(matcher, states)
    for user in range(len(states)):
        alone = one(states, user)
        np.testing.assert_allclose(score(matcher, alone)[0], whole[user], rtol=1e-4, atol=1e-6)
        assert proposed(matcher, alone)[0] == found[user]


def test_no_states_are_no_error(matcher: Matcher, states: States) -> None:
    nobody = next(iter(batches(states, 4)))[1]
    nobody = States(histories=nobody.histories.take(np.zeros(0, np.int64)), now=np.zeros(0), items=states.items)
    assert score(matcher, nobody).shape == (0, NUM_ITEMS + 1, len(matcher.signals))


def test_loaded_answers_as_saved(matcher: Matcher, states: States, corpus: Corpus, tmp_path: Path) -> None:
    matcher.save(tmp_path)
    loaded = type(matcher).load(tmp_path, corpus.items)
    wider = extended(states)
    assert loaded.signals == matcher.signals
    np.testing.assert_array_equal(score(loaded, wider), score(matcher, wider))
    assert proposed(loaded, states) == proposed(matcher, states)


def test_concurrent_reads_equal_serial_ones(matcher: Matcher, states: States) -> None:
    alone = [one(states, user) for user in range(len(states))] * 4
    serial = [score(matcher, state) for state in alone]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda state: score(matcher, state), alone))
    for mine, theirs in zip(serial, at_once, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_reading_changes_nothing(matcher: Matcher, states: States) -> None:
    before = [states.histories.items.copy(), states.now.copy(), states.items.base.copy()]
    first = score(matcher, states)
    proposed(matcher, states)
    np.testing.assert_array_equal(score(matcher, states), first)
    for was, now in zip(before, (states.histories.items, states.now, states.items.base), strict=True):
        np.testing.assert_array_equal(was, now)


def test_renumbering_the_items_renumbers_the_answer(matcher: Matcher, states: States, corpus: Corpus) -> None:
    """No signal leaks the place that an item happens to have in the catalogue."""
    place = np.random.default_rng(9).permutation(NUM_ITEMS)
    items = table_of(reordered(corpus.items.catalogue.items, place))
    other = type(matcher).fit(
        Corpus(histories=renumbered(corpus.histories, place), items=items, sequence=sequence_of(items))
    )
    moved = replace(states, histories=renumbered(states.histories, place), items=items)
    mine = score(matcher, states)[:, :NUM_ITEMS]
    theirs = score(other, moved)[:, place]
    np.testing.assert_allclose(theirs, mine, rtol=2e-3, atol=2e-5)
    assert proposed(other, moved) == [{int(place[row]) for row in rows} for rows in proposed(matcher, states)]


@pytest.mark.parametrize("lives", [[[0]], [[0], [1], []], [[0, 1]], [[2, 2, 2]]], ids=str)
@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: str(kind.name))
def test_a_scanty_world_is_no_error(kind: type[Matcher], lives: list[list[int]], corpus: Corpus) -> None:
    items = table_of(corpus.items.catalogue.items[:3])
    histories = histories_of(lives)
    fitted = kind.fit(Corpus(histories=histories, items=items, sequence=sequence_of(items)))
    states = States(histories=histories, now=np.zeros(len(lives)), items=items)
    assert np.isfinite(score(fitted, states)).all()
    assert all(rows <= {0, 1, 2} for rows in proposed(fitted, states))


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: str(kind.name))
def test_items_without_texts_are_no_error(kind: type[Matcher], corpus: Corpus) -> None:
    items = table_of([Item(item_id=f"bare{n}") for n in range(NUM_ITEMS)])
    fitted = kind.fit(Corpus(histories=corpus.histories, items=items, sequence=sequence_of(items)))
    assert np.isfinite(score(fitted, random_states(items))).all()


@pytest.mark.parametrize("kind", [kind for kind in KNOWN if issubclass(kind, Witness)], ids=lambda kind: str(kind.name))
def test_witnesses_weigh_each_event(kind: type[Matcher], states: States, corpus: Corpus) -> None:
    witness, state = kind.fit(corpus), one(states, 5)
    assert isinstance(witness, Witness)
    weights = np.stack([witness.witness(state, row) for row in range(NUM_ITEMS)])
    assert weights.shape == (NUM_ITEMS, state.histories.num_events)
    assert np.isfinite(weights).all()
    assert (weights > 0).any()
    assert np.isfinite(witness.witness(one(extended(states), 5), NUM_ITEMS)).all()


def test_a_witness_speaks_for_what_it_scores(corpus: Corpus) -> None:
    """Of a chain 0, 1, 2 walked by many, the event 1 speaks for 2; nothing speaks for an item nobody reached."""
    histories: Histories = histories_of([[0, 1, 2]] * 30 + [[7, 8]] * 30)
    for kind in KNOWN:
        fitted = kind.fit(Corpus(histories=histories, items=corpus.items, sequence=corpus.sequence))
        if isinstance(fitted, Witness) and fitted.name not in READS_TEXTS:
            state = States(histories=histories_of([[7, 0, 1]]), now=np.zeros(1), items=corpus.items)
            weights = fitted.witness(state, 2)
            assert weights[2] > 0, fitted.name
            assert weights[0] <= 0, fitted.name
            assert (fitted.witness(state, 40) <= 0).all(), fitted.name
