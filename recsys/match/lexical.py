"""Words that items share: TF-IDF over unigrams and bigrams, where names, brands and numbers decide.

Sentence vectors blur exactly what tells two products apart; on Amazon sets the words bring a quarter of the quality.
To the last item, to the decayed last 20, and the best match among the last 10.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float32, Int32

from recsys._kernel import kernel
from recsys.encode.items import ItemTable
from recsys.match import Corpus, DenseReading, Signal, States, gather, load_sparse
from recsys.match.words import Words
from recsys.memory.keys import latest_items

WINDOW, DECAY, BEST_OF = 20, 0.6, 10
KEPT_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Lexical:
    """`words` [N, V]: unit-length TF-IDF rows; `by_word` the same by column [V, N]; `known` reads new items.

    `kept`: cosines of items that were read lately with all others, at most `KEPT_BYTES` of them.
    """

    known: Words
    words: sp.csr_matrix
    by_word: sp.csr_matrix
    kept: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    name: ClassVar[str] = "lexical"
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("lexical_last", absolute=True, proposes=60),
        Signal("lexical_recent", absolute=True, proposes=60),
        Signal("lexical_best", absolute=True),
    )

    @classmethod
    def fit(cls, corpus: Corpus) -> Self:
        texts = [item.text for item in corpus.items.catalogue.items]
        known = Words.fit(texts, min_texts=2 if len(texts) > 1 else 1)
        return cls._of(known, known.rows(texts))

    @classmethod
    def _of(cls, known: Words, words: sp.csr_matrix) -> Self:
        return cls(known, words, words.T.tocsr())

    def read(self, states: States) -> LexicalReading:
        num_items = self.words.shape[0]
        scores = np.zeros((len(self.signals), len(states), num_items), np.float32)
        for user, latest in enumerate(latest_items(states.histories, WINDOW)):
            last, recent, best = scores[:, user]
            for age, item in enumerate(latest[latest >= 0].tolist()):
                alike = self._alike(item) if item < num_items else self._alike_late(states, item)
                if item < num_items:
                    _add(alike, DECAY**age, recent)
                    if age == 0:
                        last[:] = alike
                if age < BEST_OF:
                    np.maximum(best, alike, out=best)
        return LexicalReading(self, states, scores)

    def _alike(self, item: int) -> Float32[np.ndarray, " N"]:
        """The cosine of one fitted item and each: popular ones are asked for again and again, so some are kept."""
        found = self.kept.get(item)
        if found is None:
            found = np.zeros(self.words.shape[0], np.float32)
            span = slice(self.words.indptr[item], self.words.indptr[item + 1])
            by_word = (self.by_word.data, self.by_word.indices, self.by_word.indptr)
            _add_postings(self.words.indices[span], self.words.data[span], *by_word, found)
            while len(self.kept) > max(KEPT_BYTES // max(found.nbytes, 1), WINDOW):
                self.kept.pop(next(iter(self.kept), item), None)
            self.kept[item] = found
        return found

    def _alike_late(self, states: States, item: int) -> Float32[np.ndarray, " N"]:
        words = self.rows(states, np.array([item], np.int32))
        return np.asarray((words @ self.by_word).toarray()[0], np.float32)

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
            rows = rows + sp.csr_matrix(place, shape=(len(candidates), len(late))) @ self.known.rows(texts)
        return sp.csr_matrix(rows, dtype=np.float32)

    def save(self, folder: Path) -> None:
        (folder / "vocabulary.json").write_text(json.dumps(list(self.known.columns), ensure_ascii=False))
        np.save(folder / "idf.npy", self.known.rarity)
        sp.save_npz(folder / "words.npz", self.words, compressed=False)

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        terms = json.loads((folder / "vocabulary.json").read_text())
        rarity = np.load(folder / "idf.npy", allow_pickle=False)
        known = Words({term: column for column, term in enumerate(terms)}, rarity)
        return cls._of(known, load_sparse(folder / "words.npz"))


@dataclass(frozen=True, slots=True)
class LexicalReading:
    """Dense scores over the fitted items; those that came later are compared where they are asked for."""

    matcher: Lexical
    states: States
    scores: Float32[np.ndarray, "S B N"]

    def propose(self, allowed: Bool[np.ndarray, "B N"]) -> Int32[np.ndarray, "B P"]:
        return DenseReading(self.matcher.signals, self.scores).propose(allowed)

    @property
    def size_bytes(self) -> int:
        return self.scores.nbytes

    def renewed(self, states: States) -> Self | None:
        """Items that came after the fit may have been told anew."""
        late = states.histories.items[-WINDOW:].max(initial=-1) >= self.matcher.words.shape[0]
        return None if late and states.items is not self.states.items else type(self)(self.matcher, states, self.scores)

    def score(self, candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
        out = gather(self.scores, candidates)
        fitted = self.matcher.words.shape[0]
        if candidates.max(initial=-1) < fitted:
            return out
        for user in np.flatnonzero((candidates >= fitted).any(axis=1)):
            late = candidates[user] >= fitted
            out[user, late] = self._late(int(user), candidates[user, late])
        return out

    def _late(self, user: int, rows: Int32[np.ndarray, " K"]) -> Float32[np.ndarray, "K S"]:
        out = np.zeros((len(rows), len(self.matcher.signals)), np.float32)
        latest = latest_items(self.states.histories, WINDOW)[user]
        latest = latest[latest >= 0]
        if len(latest) == 0:
            return out
        words, past = self.matcher.rows(self.states, rows), self.matcher.rows(self.states, latest)
        alike = (words @ past.T).toarray()
        known = latest < self.matcher.words.shape[0]
        out[:, 0] = alike[:, 0] * known[0]
        out[:, 1] = alike @ (np.power(DECAY, np.arange(len(latest))) * known)
        out[:, 2] = alike[:, :BEST_OF].max(axis=1)
        return out


@kernel
def _add(row, weight, out):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    for item in range(len(out)):
        out[item] += np.float32(weight) * row[item]


@kernel
def _add_postings(words, weights, data, items, starts, out):  # type: ignore[no-untyped-def]
    for at in range(len(words)):
        for place in range(starts[words[at]], starts[words[at] + 1]):
            out[items[place]] += weights[at] * data[place]
