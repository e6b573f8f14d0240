"""The items the engine knows: ids, texts, categories; a row is a position and never moves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import polars as pl

from recsys.data.ids import IdMap
from recsys.data.overlay import Overlay
from recsys.errors import InvalidInput
from recsys.types import Item

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "item_id": pl.String,
    "title": pl.String,
    "description": pl.String,
    "categories": pl.List(pl.String),
    "attributes": pl.String,
}


class Catalogue:
    """N items by row, and their ids. Immutable; `extended` makes a new one that shares what is there."""

    def __init__(self, items: Sequence[Item], *, ids: IdMap | None = None) -> None:
        """`ids` spares building the map where the caller has it. Raises InvalidInput where an id comes twice."""
        self._items = Overlay.of(items)
        self.ids = IdMap((item.item_id for item in items), name="item_id") if ids is None else ids

    @classmethod
    def of_ids(cls, ids: Sequence[str]) -> Catalogue:
        """Items of which nothing is known but the id."""
        known = IdMap(ids, name="item_id")
        return cls(_Bare(known.ids), ids=known)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Catalogue({len(self)} items)"

    @property
    def items(self) -> Sequence[Item]:
        return self._items

    @cached_property
    def texts(self) -> Sequence[str]:
        """What the text encoder reads, by row; "" where nothing is known but the id."""
        return [item.text for item in self._items]

    def get(self, item_id: str) -> Item | None:
        """The item, None where it is unknown."""
        row = self.ids.get(item_id)
        return None if row is None else self._items[row]

    def extended(self, items: Sequence[Item]) -> Catalogue:
        """These items and the new ones after them; an item whose id is known replaces the old one in its row.

        Whoever holds vectors by row has to encode a replaced row anew: `changed_rows` names it. Of two
        items with one id the later counts.
        """
        latest = {item.item_id: item for item in items}
        known = {row: item for id_, item in latest.items() if (row := self.ids.get(id_)) is not None}
        fresh = [item for id_, item in latest.items() if id_ not in self.ids]
        return Catalogue(
            self._items.changed(added=fresh, replaced=known), ids=self.ids.extended(item.item_id for item in fresh)
        )

    def changed_rows(self, items: Sequence[Item]) -> list[int]:
        """The rows whose text `extended(items)` changes, in ascending order; new rows are not among them."""
        latest = {item.item_id: item for item in items}
        rows = ((self.ids.get(id_), item) for id_, item in latest.items())
        return sorted(row for row, item in rows if row is not None and self._items[row].text != item.text)

    def to_frame(self) -> pl.DataFrame:
        """One row an item; `attributes` is a JSON object."""
        rows = [
            (it.item_id, it.title, it.description, list(it.categories), json.dumps(dict(it.attributes)))
            for it in self._items
        ]
        return pl.DataFrame(rows, schema=_COLUMNS, orient="row")

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> Catalogue:
        """The inverse of `to_frame`. Raises InvalidInput where a column is missing."""
        missing = [name for name in _COLUMNS if name not in frame.columns]
        if missing:
            raise InvalidInput.of("columns", frame.columns, f"a catalogue needs {missing}")
        return cls(
            [
                Item(
                    item_id=id_,
                    title=title,
                    description=text,
                    categories=tuple(categories),
                    attributes=json.loads(attributes),
                )
                for id_, title, text, categories, attributes in frame.select(list(_COLUMNS)).iter_rows()
            ]
        )

    def write(self, path: Path) -> None:
        """Writes a parquet file."""
        self.to_frame().write_parquet(path)

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """Reads what `write` wrote. Raises InvalidInput where it is something else."""
        try:
            return cls.from_frame(pl.read_parquet(path))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InvalidInput.of("path", str(path), f"cannot be read as a catalogue: {error}") from error


class _Bare(Sequence[Item]):
    """Items made when looked at: a million of them would take seconds and say nothing."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, row: int) -> Item: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Item]: ...
    def __getitem__(self, row: int | slice) -> Item | Sequence[Item]:
        if isinstance(row, slice):
            return [Item(item_id=id_) for id_ in self._ids[row]]
        return Item(item_id=self._ids[row])
