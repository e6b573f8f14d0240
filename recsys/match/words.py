"""Texts as unit-length rows of weighted words and pairs of neighbouring words (TF-IDF; Salton & Buckley 1988, "Term
weighting approaches in automatic text retrieval"): 1 + log of the count, times 1 + log((1 + n) / (1 + texts with it)).

Weights and rows are those of scikit-learn's `TfidfVectorizer`, without the second that importing it takes.

Letters: n texts, V terms.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Words:
    """`columns`: a column a term; `rarity` [V]: what a term's count is multiplied by."""

    columns: Mapping[str, int]
    rarity: Float32[np.ndarray, " V"]

    @classmethod
    def fit(cls, texts: Sequence[str], *, min_texts: int) -> Self:
        """The terms that stand in at least `min_texts` of `texts`, in alphabetical order."""
        found = Counter(term for text in texts for term in set(_terms(text)))
        kept = sorted(term for term, count in found.items() if count >= min_texts)
        counts = np.array([found[term] for term in kept], np.float32)
        rarity = np.log(np.float32(len(texts) + 1) / (counts + np.float32(1))) + np.float32(1)
        return cls({term: column for column, term in enumerate(kept)}, rarity.astype(np.float32))

    def rows(self, texts: Sequence[str]) -> sp.csr_matrix:
        """Sparse [n, V] of float32; a text without a known term is an empty row."""
        found = [sorted(Counter(self._known(text)).items()) for text in texts]
        ends = np.cumsum([0, *map(len, found)])
        pairs = np.array([pair for row in found for pair in row], np.int64).reshape(-1, 2)
        columns = pairs[:, 0].astype(np.int32)
        values = (np.log(pairs[:, 1].astype(np.float32)) + np.float32(1)) * self.rarity[columns]
        rows = np.repeat(np.arange(len(texts)), np.diff(ends))
        lengths = np.sqrt(np.bincount(rows, values.astype(np.float64) ** 2, minlength=len(texts)))
        unit = (values / lengths[rows]).astype(np.float32)
        return sp.csr_matrix((unit, columns, ends), shape=(len(texts), len(self.columns)))

    def _known(self, text: str) -> Iterator[int]:
        return (column for term in _terms(text) if (column := self.columns.get(term)) is not None)


def _terms(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [*words, *(f"{one} {next_}" for one, next_ in pairwise(words))]
