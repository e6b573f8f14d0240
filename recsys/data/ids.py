"""The one door where external string ids become int rows, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Literal

import numpy as np
from jaxtyping import Int32

from recsys.data.overlay import Overlay
from recsys.data.packed import IdTable, PackedIds
from recsys.errors import InvalidInput


class IdMap:
    """String ids <-> rows 0..N-1, in the order given; a row never changes its id. Immutable.

    `extended` shares the base map and copies only what was added since it was made. `without` hides ids: nobody finds
    them by name, and their rows stay.
    """

    __slots__ = ("_added", "_base", "_hidden", "_ids", "_name", "_tables")

    def __init__(self, ids: Iterable[str] = (), *, name: str = "id") -> None:
        """`name` is what errors call an id, e.g. `item_id`. Raises InvalidInput where an id comes twice."""
        rows = list(ids)
        self._name = name
        self._ids: Overlay[str] = Overlay(rows)
        self._base: Mapping[str, int] = {id_: row for row, id_ in enumerate(rows)}
        self._added: Mapping[str, int] = {}
        self._hidden: frozenset[str] = frozenset()
        self._tables: list[IdTable] = []  # of the base, made when packed ids are first asked for
        if len(self._base) != len(rows):
            raise InvalidInput.of(name, _first_repeat(rows), "comes more than once")

    @property
    def ids(self) -> Sequence[str]:
        """The ids by row."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, str) and self.get(id_) is not None

    def __repr__(self) -> str:
        return f"IdMap({len(self)} {self._name}s)"

    def get(self, id_: str) -> int | None:
        """The row of `id_`, None where it is unknown."""
        row = self._base.get(id_)
        return self._added.get(id_) if row is None or id_ in self._hidden else row

    def row(self, id_: str) -> int:
        """The row of `id_`; raises InvalidInput naming an unknown one."""
        row = self.get(id_)
        if row is None:
            raise InvalidInput.of(self._name, id_, "unknown")
        return row

    def rows(self, ids: Sequence[str], unknown: Literal["raise", -1] = "raise") -> Int32[np.ndarray, " n"]:
        """The rows of `ids`; an unknown one raises InvalidInput naming it, or becomes -1."""
        if isinstance(ids, PackedIds) and not self._hidden:
            rows = self._packed_rows(ids)
        else:
            rows = np.fromiter(self._found(ids), np.int32, count=len(ids))
        if unknown == "raise" and (rows < 0).any():
            at = int(np.argmax(rows < 0))
            raise InvalidInput.of(f"{self._name}s[{at}]", ids[at], "unknown")
        return rows

    def _found(self, ids: Sequence[str]) -> Iterator[int]:
        base, added, hidden = self._base, self._added, self._hidden
        found: Iterator[int] = map(base.get, ids, repeat(-1))
        if hidden:
            found = (-1 if id_ in hidden else row for id_, row in zip(ids, found, strict=True))
        if added:
            found = (added.get(id_, -1) if row < 0 else row for id_, row in zip(ids, found, strict=True))
        return found

    def _packed_rows(self, ids: PackedIds) -> Int32[np.ndarray, " n"]:
        if not self._tables:
            self._tables.append(IdTable(list(self._base)))
        rows = self._tables[0].rows(ids)
        for at in np.flatnonzero(rows < 0).tolist() if self._added else ():
            rows[at] = self._added.get(ids[at], -1)
        return rows

    def extended(self, new_ids: Iterable[str]) -> IdMap:
        """These ids and, after them, those of `new_ids` that were not there yet; the base is shared."""
        fresh = [id_ for id_ in dict.fromkeys(new_ids) if id_ not in self]
        if not fresh:
            return self
        out = object.__new__(IdMap)
        out._name, out._base, out._hidden, out._tables = self._name, self._base, self._hidden, self._tables
        out._ids = self._ids.changed(added=fresh)
        out._added = {**self._added, **{id_: len(self) + i for i, id_ in enumerate(fresh)}}
        return out

    def without(self, ids: Iterable[str]) -> IdMap:
        """The same rows, where `ids` are unknown; `extended` gives such an id a new row. Costs the number hidden."""
        out = object.__new__(IdMap)
        out._name, out._base, out._ids, out._tables = self._name, self._base, self._ids, self._tables
        gone = frozenset(ids)
        out._hidden = self._hidden | gone
        out._added = {id_: row for id_, row in self._added.items() if id_ not in gone}
        return out


def _first_repeat(ids: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(id_ for id_ in ids if id_ in seen or seen.add(id_))  # type: ignore[func-returns-value]
