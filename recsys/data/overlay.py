"""A sequence that shares its base: a few rows replaced, a few appended, a million not copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Overlay(Sequence[T], Generic[T]):
    """`base` with `replaced` rows changed and `added` rows at the end; never changed after it is made.

    Changing it again costs the size of what was changed since the base, whatever the base's size.
    """

    __slots__ = ("_added", "_base", "_replaced")

    def __init__(self, base: Sequence[T], added: Sequence[T] = (), replaced: Mapping[int, T] | None = None) -> None:
        self._base = base
        self._added = tuple(added)
        self._replaced = dict(replaced or {})

    @classmethod
    def of(cls, rows: Sequence[T]) -> Overlay[T]:
        """`rows` as an overlay with nothing laid over it (itself if it is one already)."""
        return rows if isinstance(rows, Overlay) else cls(rows)

    def changed(self, added: Sequence[T] = (), replaced: Mapping[int, T] | None = None) -> Overlay[T]:
        """The same rows with those of `replaced` (row -> value) changed and `added` at the end."""
        start = len(self._base)
        fresh = list(self._added) + list(added)
        over = dict(self._replaced)
        for row, value in (replaced or {}).items():
            if row < start:
                over[row] = value
            else:
                fresh[row - start] = value
        return Overlay(self._base, fresh, over)

    def __len__(self) -> int:
        return len(self._base) + len(self._added)

    @overload
    def __getitem__(self, row: int) -> T: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[T]: ...
    def __getitem__(self, row: int | slice) -> T | Sequence[T]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        at = row + len(self) if row < 0 else row
        if not 0 <= at < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        if at >= len(self._base):
            return self._added[at - len(self._base)]
        return self._replaced[at] if at in self._replaced else self._base[at]

    def __iter__(self) -> Iterator[T]:
        for row, value in enumerate(self._base):
            yield self._replaced.get(row, value) if self._replaced else value
        yield from self._added
