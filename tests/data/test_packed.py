"""Packed ids are the ids that were packed, and their rows are those of a dictionary."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.ids import IdMap
from recsys.data.packed import IdTable, PackedIds

some_ids = st.lists(st.text(max_size=12), max_size=60)


@given(some_ids)
def test_packing_loses_nothing(ids: list[str]) -> None:
    packed = PackedIds.of(ids)
    assert list(packed) == ids
    assert packed == ids
    assert len(packed) == len(ids)
    assert list(packed[1:]) == ids[1:]
    assert PackedIds.of(packed) is packed


@settings(deadline=None)  # the first call compiles
@given(some_ids, some_ids)
def test_rows_are_those_of_a_dictionary(ids: list[str], asked: list[str]) -> None:
    known = list(dict.fromkeys(ids))
    rows = {id_: row for row, id_ in enumerate(known)}
    wanted = [*asked, *known]
    assert IdTable(known).rows(PackedIds.of(wanted)).tolist() == [rows.get(each, -1) for each in wanted]


@settings(deadline=None)
@given(some_ids, some_ids, some_ids)
def test_a_map_answers_packed_ids_as_it_answers_strings(base: list[str], added: list[str], hidden: list[str]) -> None:
    """Whatever was added to it and hidden in it since."""
    ids = IdMap(dict.fromkeys(base))
    asked = [*base, *added, "never heard of"]
    for each in (ids, ids.extended(added), ids.extended(added).without(hidden), ids.without(hidden).extended(added)):
        assert each.rows(PackedIds.of(asked), unknown=-1).tolist() == each.rows(asked, unknown=-1).tolist()


def test_ids_in_another_order_share_the_buffer() -> None:
    packed = PackedIds.of(["a", "bc", "d"])
    assert list(packed.take(packed.starts.argsort()[::-1])) == ["d", "bc", "a"]
    assert packed.take(packed.starts[:1]).data is packed.data


def test_what_has_no_utf8_is_refused_unless_asked_for() -> None:
    with pytest.raises(UnicodeEncodeError):
        PackedIds.of(["\ud800"])
    assert IdTable(["\ud800", "a"]).rows(PackedIds.of(["a"])).tolist() == [1]
