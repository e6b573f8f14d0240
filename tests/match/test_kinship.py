"""What follows is told from what says the same."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.encode.items import ItemTable
from recsys.match import Corpus, States
from recsys.match import kinship as module
from recsys.match.kinship import Kinship
from recsys.types import Item
from tests.world import histories_of, table_of

KINDS, EACH, DIMENSIONS = 4, 10, 16
NUM_ITEMS = KINDS * EACH


def items_of(rng: np.random.Generator) -> ItemTable:
    """Items of four kinds, those of a kind with texts much alike."""
    catalogue = table_of([Item(item_id=f"i{row}", title=f"t{row}") for row in range(NUM_ITEMS)]).catalogue
    centres = np.linalg.qr(rng.normal(size=(DIMENSIONS, KINDS)))[0].T
    vectors = np.repeat(centres, EACH, axis=0) + 0.15 * rng.normal(size=(NUM_ITEMS, DIMENSIONS))
    return ItemTable(catalogue, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))


def in_turns(rng: np.random.Generator, users: int = 200, length: int = 6) -> list[list[int]]:
    """Lives in which an item of one kind is always followed by one of the next."""
    return [[int((start + at) % KINDS * EACH + rng.integers(EACH)) for at in range(length)] for start in range(users)]


def scores(matcher: Kinship, items: ItemTable, life: list[int]) -> np.ndarray:
    states = States(histories=histories_of([life]), now=np.zeros(1), items=items)
    return matcher.read(states).score(np.arange(len(items), dtype=np.int32)[None])[0]


def test_the_kind_that_follows_stands_above_the_kind_that_is_alike() -> None:
    rng = np.random.default_rng(0)
    items = items_of(rng)
    matcher = Kinship.fit(Corpus(histories=histories_of(in_turns(rng)), items=items))
    for kind in range(KINDS):
        last = scores(matcher, items, [kind * EACH])[:, 0].reshape(KINDS, EACH)
        follows = (kind + 1) % KINDS
        assert last[follows].min() > np.delete(last, follows, axis=0).max()


def test_a_new_item_is_proposed_by_its_text() -> None:
    rng = np.random.default_rng(1)
    items = items_of(rng)
    matcher = Kinship.fit(Corpus(histories=histories_of(in_turns(rng)), items=items))
    known = items.extended([Item(item_id="new", title="new")], items.base[EACH : EACH + 1])
    states = States(histories=histories_of([[0]]), now=np.zeros(1), items=known)
    assert NUM_ITEMS in matcher.read(states).propose(np.ones((1, NUM_ITEMS + 1), bool))[0]
    found = scores(matcher, known, [0])
    np.testing.assert_allclose(found[NUM_ITEMS], found[EACH], atol=1e-5)


def test_what_comes_before_and_after_is_uncorrelated_but_pairwise() -> None:
    rng = np.random.default_rng(2)
    items = items_of(rng)
    lives = in_turns(rng)
    matcher = Kinship.fit(Corpus(histories=histories_of(lives), items=items))
    pairs = [(life[:at], life[at]) for life in lives for at in range(1, len(life))]
    pasts = [sum(module.DECAY**age * items.base[item] for age, item in enumerate(past[::-1])) for past, _ in pairs]
    before = np.stack([past / np.linalg.norm(past) for past in pasts]) - matcher.before_mean
    after = items.base[[item for _, item in pairs]] - matcher.after_mean
    crossed = (before @ matcher.before).T @ (after @ matcher.after) / len(pairs)
    off = crossed - np.diag(np.diag(crossed))
    assert np.abs(off).max() < 1e-3
    assert (np.diff(np.diag(crossed)) < 1e-4).all()


def test_without_moments_or_texts_it_says_nothing() -> None:
    items = items_of(np.random.default_rng(3))
    silent = Kinship.fit(Corpus(histories=histories_of([[0], [1]]), items=items))
    assert not scores(silent, items, [0]).any()
    bare = ItemTable(items.catalogue, np.zeros_like(items.base))
    assert not scores(Kinship.fit(Corpus(histories=histories_of([[0, 1, 2]]), items=bare)), bare, [0]).any()


def test_more_moments_than_are_needed_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    items = items_of(rng)
    corpus = Corpus(histories=histories_of(in_turns(rng, users=400)), items=items)
    whole = Kinship.fit(corpus)
    monkeypatch.setattr(module, "MAX_MOMENTS", 500)
    thinned = Kinship.fit(corpus)
    assert np.abs(thinned.vectors - whole.vectors).max() > 0
    assert scores(thinned, items, [0])[:, 0].reshape(KINDS, EACH).mean(axis=1).argmax() == 1
