"""Items as the engine sees them: the catalogue's rows with their text vectors, open at the end for new items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Int

from recsys.data.catalogue import Catalogue
from recsys.types import Item


@dataclass(frozen=True, slots=True)
class ItemTable:
    """N items and their unit-length text vectors; a row without text has the zero vector.

    `base` is shared by every copy and never written; `tail` holds the vectors of items that came later, so adding one
    item to a million costs one row.
    """

    catalogue: Catalogue
    base: Float32[np.ndarray, "N0 D"]
    tail: Float32[np.ndarray, "N1 _"] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def __len__(self) -> int:
        return len(self.base) + len(self.tail)

    @property
    def dimension(self) -> int:
        return int(self.base.shape[1])

    def item(self, row: int) -> Item:
        return self.catalogue.items[row]

    def vectors(self, rows: Int[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape D"]:
        """The vectors of `rows`; zero for padding rows below 0."""
        out = self.base[np.clip(rows, 0, len(self.base) - 1)] if len(self.base) else self._zeros(rows)
        late = rows >= len(self.base)
        if late.any():
            out[late] = self.tail[rows[late] - len(self.base)]
        out[rows < 0] = 0.0
        return out

    def extended(self, items: Sequence[Item], vectors: Float32[np.ndarray, "n D"]) -> ItemTable:
        """A table that also holds `items`, whose ids must be new."""
        tail = np.concatenate([self.tail.reshape(-1, self.dimension), vectors])
        return ItemTable(self.catalogue.extended(items), self.base, tail)

    def replaced(self, items: Sequence[Item]) -> ItemTable:
        """A table in which `items`, whose ids must be known, have new texts; vectors stay until the next rebuild."""
        return ItemTable(self.catalogue.extended(items), self.base, self.tail)

    def of_categories(self, categories: Sequence[str]) -> Bool[np.ndarray, " N"]:
        """Which items have at least one of `categories`."""
        wanted = set(categories)
        items = self.catalogue.items
        return np.fromiter((not wanted.isdisjoint(item.categories) for item in items), bool, len(self))

    def _zeros(self, rows: Int[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape D"]:
        return np.zeros((*rows.shape, self.dimension), np.float32)
