"""The item table: rows, padding, and growth at the end that shares the base."""

from __future__ import annotations

import numpy as np

from recsys.data.catalogue import Catalogue
from recsys.encode.items import ItemTable
from recsys.types import Item

BASE = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
ITEMS = [Item(item_id="a", categories=("x", "y")), Item(item_id="b", categories=("y",)), Item(item_id="c")]
LATE = [Item(item_id="d", title="late", categories=("x",)), Item(item_id="e")]
LATE_VECTORS = np.array([[0, -1], [-1, 0]], np.float32)


def table() -> ItemTable:
    return ItemTable(Catalogue(ITEMS), BASE)


def test_vectors_by_row_are_zero_for_padding() -> None:
    rows = np.array([[2, -1], [0, 1]], np.int32)
    assert table().vectors(rows).tolist() == [[BASE[2].tolist(), [0, 0]], [[1, 0], [0, 1]]]
    assert table().vectors(np.zeros(0, np.int32)).shape == (0, 2)


def test_a_vector_taken_is_a_copy() -> None:
    items = table()
    items.vectors(np.array([0, -1]))[:] = 9
    assert items.base.tolist() == BASE.tolist()


def test_new_items_stand_at_the_end_and_the_base_is_shared() -> None:
    items = table()
    wider = items.extended(LATE[:1], LATE_VECTORS[:1]).extended(LATE[1:], LATE_VECTORS[1:])
    assert (len(items), len(wider), wider.dimension) == (3, 5, 2)
    assert wider.base is items.base
    assert wider.item(3).title == "late"
    assert wider.vectors(np.array([4, 0, 3, -1])).tolist() == [[-1, 0], [1, 0], [0, -1], [0, 0]]
    assert len(items.catalogue) == 3


def test_a_table_may_begin_empty() -> None:
    nothing = ItemTable(Catalogue([]), np.zeros((0, 2), np.float32))
    assert nothing.vectors(np.array([-1, -1])).tolist() == [[0, 0], [0, 0]]
    wider = nothing.extended(LATE, LATE_VECTORS)
    assert wider.vectors(np.array([1, -1, 0])).tolist() == [[-1, 0], [0, 0], [0, -1]]


def test_a_new_text_keeps_the_row_and_the_vector() -> None:
    items = table().replaced([Item(item_id="b", title="now with a title")])
    assert len(items) == 3
    assert items.item(1).title == "now with a title"
    assert items.vectors(np.array([1])).tolist() == [[0, 1]]


def test_any_of_the_categories_will_do() -> None:
    wider = table().extended(LATE, LATE_VECTORS)
    assert wider.of_categories(["x"]).tolist() == [True, False, False, True, False]
    assert wider.of_categories(["y", "x"]).tolist() == [True, True, False, True, False]
    assert not wider.of_categories(["z"]).any()
