"""IdMap and the overlay under it, against a plain list and dict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.ids import IdMap
from recsys.data.overlay import Overlay
from recsys.errors import InvalidInput

ids = st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=20)


def test_rows_follow_the_order_given() -> None:
    known = IdMap(["b", "a", "c"])
    assert list(known.rows(["c", "b"])) == [2, 0]
    assert known.rows(["c"]).dtype == np.int32
    assert (known.row("a"), known.get("z"), known.ids[1], "b" in known, 3 in known) == (1, None, "a", True, False)


def test_an_unknown_id_is_named_or_minus_one() -> None:
    known = IdMap(["a"], name="item_id")
    with pytest.raises(InvalidInput, match=r"item_ids\[1\]='nope': unknown"):
        known.rows(["a", "nope"])
    with pytest.raises(InvalidInput, match="item_id='nope': unknown"):
        known.row("nope")
    assert list(known.rows(["a", "nope"], unknown=-1)) == [0, -1]


def test_an_id_that_comes_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="user_id='b': comes more than once"):
        IdMap(["a", "b", "c", "b"], name="user_id")


@given(ids, st.lists(ids, max_size=4))
def test_extending_is_like_building_anew(first: list[str], more: list[list[str]]) -> None:
    grown, plain = IdMap(first), list(first)
    for new in more:
        before = list(grown)
        larger = grown.extended(new)
        assert list(grown) == before
        grown, plain = larger, list(dict.fromkeys(plain + new))
    assert list(grown.ids) == plain
    assert list(grown.rows(plain)) == list(range(len(plain)))


def test_extending_shares_the_base() -> None:
    base = IdMap(map(str, range(1000)))
    grown = base.extended(["x"]).extended(["y", "7"])
    assert grown._base is base._base
    assert (grown.row("y"), len(grown), len(base)) == (1001, 1002, 1000)
    assert base.extended(["7"]) is base


def test_two_maps_grown_from_one_do_not_meet() -> None:
    base = IdMap(["a"])
    left, right = base.extended(["l"]), base.extended(["r"])
    assert (left.get("r"), right.get("l"), left.row("l"), right.row("r")) == (None, None, 1, 1)


@given(st.lists(st.integers(), max_size=8), st.data())
def test_an_overlay_is_a_changed_list(base: list[int], data: st.DataObject) -> None:
    overlay, plain = Overlay(base), list(base)
    for _ in range(2):
        added = data.draw(st.lists(st.integers(), max_size=3))
        rows = st.sampled_from(range(len(plain))) if plain else st.nothing()
        replaced = data.draw(st.dictionaries(rows, st.integers(), max_size=3)) if plain else {}
        overlay = overlay.changed(added, replaced)
        plain = [replaced.get(row, value) for row, value in enumerate(plain)] + added
    assert list(overlay) == plain
    assert [overlay[i] for i in range(-len(plain), len(plain))] == plain + plain
    assert overlay[1:3] == plain[1:3]
    with pytest.raises(IndexError):
        overlay[len(plain)]


def test_hidden_ids_keep_their_rows_and_are_not_found() -> None:
    whole = IdMap(["a", "b", "c"]).extended(["d"])
    some = whole.without(["b", "d", "never heard of"])
    assert [some.get(id_) for id_ in "abcd"] == [0, None, 2, None]
    assert some.rows(["a", "b", "d"], unknown=-1).tolist() == [0, -1, -1]
    assert list(some.ids) == ["a", "b", "c", "d"]
    assert whole.get("b") == 1
    again = some.extended(["b", "e"])  # a new life has a new row
    assert [again.get(id_) for id_ in "abde"] == [0, 4, None, 5]
    assert again.rows(["b", "e"]).tolist() == [4, 5]
