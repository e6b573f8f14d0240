"""Facets in common: the category path, and the head of the title, which in shops is mostly the brand or the series.

Equality with the last item, and the share of the last 10 that are equal. A facet that is empty equals nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float32, Int32

from recsys._kernel import kernel
from recsys.encode.items import ItemTable
from recsys.match import Corpus, Signal, States
from recsys.memory.keys import latest_items
from recsys.types import Item

WINDOW = 10


@dataclass(frozen=True, slots=True)
class Facets:
    """`codes` [N, 2]: category path and title head as numbers, 0 for none; `known` maps the words of each to them."""

    codes: Int32[np.ndarray, "N 2"]
    known: tuple[dict[str, int], dict[str, int]]
    name: ClassVar[str] = "facets"
    signals: ClassVar[tuple[Signal, ...]] = tuple(
        Signal(f"facets_{facet}_{span}", absolute=True) for facet in ("category", "head") for span in ("last", "share")
    )

    @classmethod
    def fit(cls, corpus: Corpus) -> Self:
        return cls.of(corpus.items)

    @classmethod
    def of(cls, items: ItemTable) -> Self:
        words = [facets_of(item) for item in items.catalogue.items]
        known: tuple[dict[str, int], dict[str, int]] = ({"": 0}, {"": 0})
        codes = [[known[f].setdefault(pair[f], len(known[f])) for f in (0, 1)] for pair in words]
        return cls(np.array(codes, np.int32).reshape(-1, 2), known)

    def read(self, states: States) -> FacetsReading:
        latest = latest_items(states.histories, WINDOW)
        return FacetsReading(self, states.items, latest, self.rows(states.items, latest))

    def rows(self, items: ItemTable, rows: Int32[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape 2"]:
        """Facet numbers of item rows; words never met before get -2, which counts as none."""
        last = len(self.codes) - 1
        out = self.codes[np.clip(rows, 0, last)] if len(self.codes) else np.zeros((*rows.shape, 2), np.int32)
        out[rows < 0] = 0
        for place in np.argwhere(rows > last):
            words = facets_of(items.item(int(rows[tuple(place)])))
            out[tuple(place)] = [self.known[f].get(words[f], -2) for f in (0, 1)]
        return out

    def save(self, folder: Path) -> None:
        """Nothing to keep: the catalogue says it all."""

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        return cls.of(items)


@dataclass(frozen=True, slots=True)
class FacetsReading:
    """The latest items and their facets. It proposes nothing, and compares only the candidates asked for."""

    matcher: Facets
    items: ItemTable
    latest: Int32[np.ndarray, "B W"]
    past: Int32[np.ndarray, "B W 2"]

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B 0"]:
        return np.full((len(allowed), 0), -1, np.int32)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        codes, rows = self.matcher.codes, np.ascontiguousarray(candidates)
        if rows.max(initial=-1) >= len(codes):  # what came after the fit stands behind it, for this once
            late, rows = candidates >= len(codes), candidates.copy()
            rows[late] = len(codes) + np.arange(np.count_nonzero(late))
            codes = np.concatenate([codes, self.matcher.rows(self.items, candidates[late])])
        out = np.zeros((*candidates.shape, len(self.matcher.signals)), np.float32)
        _compare(self.latest, self.past, codes, rows, out)
        return out

    @property
    def size_bytes(self) -> int:
        return self.latest.nbytes + self.past.nbytes

    def renewed(self, states: States) -> Self | None:
        """Items that came after the fit may have been told anew."""
        if states.items is not self.items and self.latest.max(initial=-1) >= len(self.matcher.codes):
            return None
        return type(self)(self.matcher, states.items, self.latest, self.past)


@kernel
def _compare(latest, past, codes, rows, out):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    for user in range(rows.shape[0]):
        length = 0
        for age in range(latest.shape[1]):
            length += latest[user, age] >= 0
        for place in range(rows.shape[1]):
            row = rows[user, place]
            for facet in range(codes.shape[1] if row >= 0 else 0):
                word = codes[row, facet]
                if word > 0:
                    equal = 0
                    for age in range(past.shape[1]):
                        equal += past[user, age, facet] == word
                    out[user, place, 2 * facet] = past[user, 0, facet] == word
                    out[user, place, 2 * facet + 1] = equal / max(length, 1)


def facets_of(item: Item) -> tuple[str, str]:
    """(category path, title head) in lower case; a `brand` attribute stands in for the head where there is one."""
    words = item.attributes.get("brand", "").split() or item.title.split()
    return " > ".join(item.categories).lower(), words[0].lower() if words else ""
