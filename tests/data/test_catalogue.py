from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.data.catalogue import Catalogue
from recsys.errors import InvalidInput
from recsys.types import Item

A = Item(item_id="a", title="Äpfel", categories=("fruit", "food"), attributes={"colour": "red"})
B = Item(item_id="b", title="Bread", description='with "seeds", 日本')


def test_a_row_is_a_position() -> None:
    catalogue = Catalogue([A, B])
    assert catalogue.ids.row("b") == 1
    assert catalogue.get("a") is A
    assert catalogue.get("z") is None
    assert list(catalogue.texts) == ["Äpfel. fruit, food. colour: red", 'Bread. with "seeds", 日本']


def test_extending_appends_and_replaces_in_place() -> None:
    old = Catalogue([A, B])
    better = Item(item_id="a", title="Apples")
    new = old.extended([Item(item_id="c"), better, Item(item_id="c", title="the later counts")])
    assert [item.title for item in new.items] == ["Apples", "Bread", "the later counts"]
    assert list(new.ids) == ["a", "b", "c"]
    assert list(new.texts) == ["Apples", B.text, "the later counts"]
    assert old.get("a") is A
    assert len(old) == 2
    assert new.extended([A]).get("a") is A


def test_changed_rows_are_those_to_encode_anew() -> None:
    catalogue = Catalogue([A, B])
    assert catalogue.changed_rows([Item(item_id="c"), B, Item(item_id="a", title="Apples")]) == [0]


def test_parquet_round_trip(tmp_path: Path) -> None:
    catalogue = Catalogue([A, B]).extended([Item(item_id="c")])
    catalogue.write(tmp_path / "items.parquet")
    back = Catalogue.read(tmp_path / "items.parquet")
    assert list(back.items) == list(catalogue.items)
    assert list(back.ids) == ["a", "b", "c"]


def test_what_is_no_catalogue_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(InvalidInput, match="cannot be read as a catalogue"):
        Catalogue.read(path)
    pl.DataFrame({"item_id": ["a"]}).write_parquet(path)
    with pytest.raises(InvalidInput, match="a catalogue needs"):
        Catalogue.read(path)


def test_ids_alone_make_nameless_items() -> None:
    catalogue = Catalogue.of_ids(["x", "y"])
    assert list(catalogue.items) == [Item(item_id="x"), Item(item_id="y")]
    assert list(catalogue.items[1:]) == [Item(item_id="y")]
    assert catalogue.extended([A, Item(item_id="y", title="Y")]).texts == ["", "Y", A.text]
