"""Words that items share: TF-IDF over unigrams and bigrams, where names, brands and numbers decide.

Sentence vectors blur exactly what tells two products apart; on Amazon sets the words bring a quarter of the quality.
To the last item, to the decayed last 20, and the best match among the last 10.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float32, Int32
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.encode.items import ItemTable
from recsys.match import Corpus, Signal, States, gather, load_sparse, top_rows
from recsys.memory.keys import latest_items, recency_matrix

WINDOW, DECAY, BEST_OF = 20, 0.6, 10


@dataclass(frozen=True, slots=True)
class Lexical:
    """`words` [N, V]: unit-length TF-IDF rows; `by_word` the same by column [V, N]; `vectorizer` reads new items."""

    vectorizer: TfidfVectorizer
    words: sp.csr_matrix
    by_word: sp.csr_matrix
    name: ClassVar[str] = "lexical"
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("lexical_last", absolute=True, proposes=60),
        Signal("lexical_recent", absolute=True, proposes=60),
        Signal("lexical_best", absolute=True),
    )

    @classmethod
    def fit(cls, corpus: Corpus) -> Self:
        texts = [item.text for item in corpus.items.catalogue.items]
        vectorizer = _vectorizer(min_df=2 if len(texts) > 1 else 1)
        try:
            words = vectorizer.fit_transform(texts)
        except ValueError:  # no word occurs twice: nothing to compare by
            vectorizer = _vectorizer(min_df=1).fit(["none"])
            words = vectorizer.transform(texts)
        return cls._of(vectorizer, sp.csr_matrix(words, dtype=np.float32))

    @classmethod
    def _of(cls, vectorizer: TfidfVectorizer, words: sp.csr_matrix) -> Self:
        return cls(vectorizer, words, words.T.tocsr())

    def read(self, states: States) -> LexicalReading:
        num_items = self.words.shape[0]
        queries = [
            recency_matrix(states.histories, num_items, decay=decay, window=window) @ self.words
            for decay, window in ((1.0, 1), (DECAY, WINDOW))
        ]
        return LexicalReading(self, states, queries, [(query @ self.by_word).toarray() for query in queries])

    def rows(self, states: States, candidates: Int32[np.ndarray, " K"]) -> sp.csr_matrix:
        """Words of the candidates [K, V]; new items are read on the spot."""
        known = (candidates >= 0) & (candidates < self.words.shape[0])
        rows = self.words[np.where(known, candidates, 0)]
        if known.all():
            return rows
        rows = sp.diags(known.astype(np.float32)) @ rows
        late = np.flatnonzero(candidates >= self.words.shape[0])
        texts: Sequence[str] = [states.items.item(int(row)).text for row in candidates[late]]
        if texts:
            place = (np.ones(len(late), np.float32), (late, np.arange(len(late))))
            rows = rows + sp.csr_matrix(place, shape=(len(candidates), len(late))) @ self.vectorizer.transform(texts)
        return sp.csr_matrix(rows, dtype=np.float32)

    def save(self, folder: Path) -> None:
        vocabulary = sorted(self.vectorizer.vocabulary_, key=self.vectorizer.vocabulary_.__getitem__)
        (folder / "vocabulary.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
        np.save(folder / "idf.npy", self.vectorizer.idf_)
        sp.save_npz(folder / "words.npz", self.words, compressed=False)

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        words = json.loads((folder / "vocabulary.json").read_text())
        vectorizer = _vectorizer(min_df=1, vocabulary={word: column for column, word in enumerate(words)})
        vectorizer.idf_ = np.load(folder / "idf.npy", allow_pickle=False)
        return cls._of(vectorizer, load_sparse(folder / "words.npz"))


@dataclass(frozen=True, slots=True)
class LexicalReading:
    """Dense scores over the fitted items for two queries; the best match is computed for candidates only."""

    matcher: Lexical
    states: States
    queries: list[sp.csr_matrix]
    scores: list[Float32[np.ndarray, "B N"]]

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        pairs = zip(self.matcher.signals, self.scores, strict=False)
        return np.concatenate([top_rows(scores, signal.proposes, allowed) for signal, scores in pairs], axis=1)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        out = np.stack([*(gather(s, candidates) for s in self.scores), np.zeros(candidates.shape, np.float32)], -1)
        latest = latest_items(self.states.histories, BEST_OF)
        for user, row in enumerate(candidates):
            past = latest[user][latest[user] >= 0]
            words = self.matcher.rows(self.states, row)
            if len(past):
                out[user, :, 2] = (words @ self.matcher.rows(self.states, past).T).toarray().max(axis=1)
            late = row >= self.matcher.words.shape[0]
            if late.any():
                for column, query in enumerate(self.queries):
                    out[user, late, column] = (words[late] @ query[user].T).toarray().ravel()
        return out


def _vectorizer(*, min_df: int, vocabulary: dict[str, int] | None = None) -> TfidfVectorizer:
    return TfidfVectorizer(
        sublinear_tf=True,
        min_df=min_df,
        ngram_range=(1, 2),
        token_pattern=r"(?u)\b\w+\b",
        dtype=np.float32,
        vocabulary=vocabulary,
    )
