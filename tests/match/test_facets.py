"""Categories and brands in common, by hand."""

from __future__ import annotations

import numpy as np

from recsys.match import Corpus, States
from recsys.match.facets import Facets, facets_of
from recsys.types import Item
from tests.world import histories_of, table_of

ITEMS = table_of(
    [
        Item(item_id="0", title="Acme kettle", categories=("home", "kitchen")),
        Item(item_id="1", title="ACME toaster", categories=("home", "kitchen")),
        Item(item_id="2", title="Best kettle", categories=("home",)),
        Item(item_id="3", title="Great book", attributes={"brand": "Acme"}),
        Item(item_id="4"),
        Item(item_id="5"),
    ]
)


def scores(life: list[int], candidates: list[int], new: list[Item] | None = None) -> np.ndarray:
    items = ITEMS.extended(new, table_of(new).base) if new else ITEMS
    states = States(histories=histories_of([life]), now=np.zeros(1), items=items)
    fitted = Facets.fit(Corpus(histories=histories_of([[0]]), items=ITEMS))
    return fitted.read(states).score(np.array([candidates], np.int32))[0]


def test_equality_with_the_last_and_share_of_the_latest() -> None:
    """Of 2, 0, 0, 1 the last is 1: category "home > kitchen" of three of four, brand "acme" of three of four."""
    found = scores([2, 0, 0, 1], [0, 2, 3, -1])
    assert found.tolist() == [[1, 0.75, 1, 0.75], [0, 0.25, 0, 0.25], [0, 0, 1, 0.75], [0, 0, 0, 0]]


def test_empty_facets_equal_nothing() -> None:
    assert not scores([4], [4, 5]).any()


def test_new_items_are_compared_by_what_is_known() -> None:
    new = [
        Item(item_id="6", title="Acme pan", categories=("garden",)),
        Item(item_id="7", title="Novel pan", categories=("attic",)),
        Item(item_id="8", title="Other pan", categories=("cellar",)),
    ]
    assert scores([0], [6], new).tolist() == [[0, 0, 1, 1]]
    assert not scores([7], [8], new).any()


def test_a_brand_stands_in_for_the_head() -> None:
    assert facets_of(Item(item_id="x", title="The Kettle", attributes={"brand": "ACME Corp"})) == ("", "acme")
    assert facets_of(Item(item_id="x", attributes={"brand": "  "})) == ("", "")
