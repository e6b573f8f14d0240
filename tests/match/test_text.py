"""Cosines of texts, by hand and against numpy."""

from __future__ import annotations

import numpy as np

from recsys.match import Corpus, States
from recsys.match.text import DECAY, Text
from recsys.types import Item
from tests.world import histories_of, item_of, table_of

ITEMS = table_of([*(item_of(row) for row in range(40)), Item(item_id="bare")])
CORPUS = Corpus(histories=histories_of([[0]]), items=ITEMS)
EVERYTHING = np.arange(41, dtype=np.int32)[None]


def states_of(life: list[int]) -> States:
    return States(histories=histories_of([life]), now=np.zeros(1), items=ITEMS)


def test_cosines_to_the_last_item_and_to_the_decayed_sum() -> None:
    found = Text.fit(CORPUS).read(states_of([4, 9, 2])).score(EVERYTHING)[0]
    np.testing.assert_allclose(found[:, 0], ITEMS.base @ ITEMS.base[2], atol=1e-6)
    recent = ITEMS.base[2] + DECAY * ITEMS.base[9] + DECAY**2 * ITEMS.base[4]
    np.testing.assert_allclose(found[:, 1], ITEMS.base @ recent / np.linalg.norm(recent), atol=1e-6)


def test_proposes_the_nearest_and_none_without_a_text() -> None:
    reading = Text.fit(CORPUS).read(states_of([3]))
    rows = reading.propose(np.ones((1, 41), bool))[0]
    assert 3 in rows
    assert 40 not in rows
    assert (reading.score(EVERYTHING)[0, rows[rows >= 0], 0] > 0).all()


def test_an_item_without_a_text_brings_nobody() -> None:
    assert (Text.fit(CORPUS).read(states_of([40])).propose(np.ones((1, 41), bool)) == -1).all()
