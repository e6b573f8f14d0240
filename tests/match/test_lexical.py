"""Shared words against scikit-learn's own cosine."""

from __future__ import annotations

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from recsys.match import Corpus, States
from recsys.match.lexical import BEST_OF, DECAY, WINDOW, Lexical
from recsys.types import Item
from tests.world import histories_of, table_of

TITLES = [
    "Alpine tent two persons",
    "Alpine tent three persons",
    "Coleman lamp",
    "Coleman lamp large",
    "tent pegs",
    "Alpine stove",
    "lamp oil",
    "solitary word",
]
ITEMS = table_of([Item(item_id=f"i{row}", title=title) for row, title in enumerate(TITLES)])
EVERYTHING = np.arange(len(TITLES), dtype=np.int32)


def similarity(titles: list[str]) -> np.ndarray:
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    return np.asarray(cosine_similarity(vectorizer.fit(TITLES).transform(titles)))


def scores(life: list[int], items: object = ITEMS, candidates: np.ndarray = EVERYTHING) -> np.ndarray:
    fitted = Lexical.fit(Corpus(histories=histories_of([[0]]), items=ITEMS))
    states = States(histories=histories_of([life]), now=np.zeros(1), items=items)  # type: ignore[arg-type]
    return fitted.read(states).score(candidates[None])[0]


def test_equals_the_cosine_of_scikit_learn() -> None:
    alike = similarity(TITLES)
    rng = np.random.default_rng(0)
    for length in (1, 2, 5, 40):
        life = rng.integers(0, len(TITLES), length).tolist()
        found, latest = scores(life), life[::-1]
        recent = sum(DECAY**age * alike[item] for age, item in enumerate(latest[:WINDOW]))
        np.testing.assert_allclose(found[:, 0], alike[latest[0]], atol=1e-5)
        np.testing.assert_allclose(found[:, 1], recent, atol=1e-5)
        np.testing.assert_allclose(found[:, 2], alike[latest[:BEST_OF]].max(axis=0), atol=1e-5)


def test_new_items_are_read_on_the_spot() -> None:
    fresh = [Item(item_id="n1", title="Alpine lamp"), Item(item_id="n2", title="unheard of")]
    wider = ITEMS.extended(fresh, table_of(fresh).base)
    found = scores([4, 0], wider, np.array([8, 9, -1, 1], np.int32))
    alike = similarity([*TITLES, "Alpine lamp"])[8]
    np.testing.assert_allclose(found[0], [alike[0], alike[0] + DECAY * alike[4], alike[[0, 4]].max()], atol=1e-5)
    assert not found[1:3].any()
    np.testing.assert_allclose(found[3], scores([4, 0])[1], atol=1e-6)


def test_a_new_item_in_the_history_speaks_for_its_like() -> None:
    fresh = [Item(item_id="n1", title="Coleman lamp")]
    wider = ITEMS.extended(fresh, table_of(fresh).base)
    assert scores([8], wider)[:, 2].argmax() == 2
