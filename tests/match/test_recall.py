"""The user's own memory: a match far back is found, and its age told."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.match import Corpus, States
from recsys.match.recall import Recall
from recsys.memory.bank import read_bank
from recsys.types import Item
from tests.world import histories_of, table_of

FILLER = [Item(item_id=f"f{n}", title=f"filler number{n}") for n in range(30)]
ITEMS = table_of([Item(item_id="a", title="red canoe"), Item(item_id="b", title="red canoe"), *FILLER])


def scores(life: list[int], candidates: list[int]) -> np.ndarray:
    states = States(histories=histories_of([life]), now=np.zeros(1), items=ITEMS)
    return (
        Recall.fit(Corpus(histories=states.histories, items=ITEMS))
        .read(states)
        .score(np.array([candidates], np.int32))[0]
    )


def test_a_match_of_long_ago_is_found_with_its_age() -> None:
    life = [0, *(2 + n % 30 for n in range(1_000))]
    best, often, age = scores(life, [1])[0]
    assert best == pytest.approx(1.0, abs=1e-5)
    assert age == pytest.approx(np.log1p(1_000))
    assert often >= np.log(2) - 1e-5


def test_often_counts_the_matches() -> None:
    once, thrice = scores([0, 5], [1])[0, 1], scores([0, 5, 0, 0], [1])[0, 1]
    assert np.expm1(thrice) - np.expm1(once) == pytest.approx(2.0, abs=1e-3)


def test_age_is_of_the_latest_match() -> None:
    assert scores([0, 5, 0, 6], [1])[0, 2] == pytest.approx(np.log(2))


def test_witness_names_the_events_that_resemble() -> None:
    states = States(histories=histories_of([[0, 5, 0, 9]]), now=np.zeros(1), items=ITEMS)
    weights = Recall.fit(Corpus(histories=states.histories, items=ITEMS)).witness(states, 1)
    np.testing.assert_allclose(weights[[0, 2]], 1.0, atol=1e-4)
    assert weights[[1, 3]].max() < 0.5


def test_only_the_nearest_items_are_looked_up() -> None:
    """What was met speaks for a candidate that has it among its nearest, and for no other."""
    states = States(histories=histories_of([[0, 5]]), now=np.zeros(1), items=ITEMS)
    few = Recall.fit(Corpus(histories=states.histories, items=ITEMS), nearest=2)
    found = few.read(states).score(np.array([[1, 5, 9]], np.int32))[0]
    np.testing.assert_allclose(found[:2, 0], 1.0, atol=1e-5)
    assert ITEMS.vectors(np.array([9])) @ ITEMS.vectors(np.array([5])).T > 0
    assert not {0, 5} & set(few.nearest[9].tolist())
    assert found[2].tolist() == [0, 0, 0]


def test_what_came_after_the_fit_is_compared_as_well() -> None:
    """A new item in the life is found by an old candidate, and the other way round, as far as they are near."""
    fresh = [Item(item_id="n", title="red canoe")]
    wider = ITEMS.extended(fresh, table_of(fresh).base)
    fitted = Recall.fit(Corpus(histories=histories_of([[0]]), items=ITEMS))
    for life, candidate in (([32, 5], 1), ([0, 5], 32), ([32, 5], 32)):
        states = States(histories=histories_of([life]), now=np.zeros(1), items=wider)
        best, often, age = fitted.read(states).score(np.array([[candidate]], np.int32))[0, 0]
        assert best == pytest.approx(1.0, abs=1e-5)
        assert often >= np.log(2) - 1e-5
        assert age == pytest.approx(np.log(2))


def test_a_life_that_goes_round_is_read_as_if_event_by_event() -> None:
    rng = np.random.default_rng(0)
    life, candidates = rng.integers(0, len(ITEMS), 400).tolist(), list(range(len(ITEMS)))
    every = read_bank(ITEMS.vectors(np.array(life)), ITEMS.vectors(np.array(candidates)))
    wanted = np.stack([every.best, np.log1p(every.mass), np.log1p(len(life) - 1 - every.place)], axis=1)
    np.testing.assert_allclose(scores(life, candidates), wanted, rtol=1e-4, atol=1e-5)
