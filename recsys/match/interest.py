"""Interest: the history encoder's opinion of what comes next, and what followed when others were in a like state.

`next`: exp(scale (cosine - best cosine)), so 1 for the best item. `cosine`: of state and item, which means the same for
everybody. `moments`: the states of all users' past moments are keys of a collective memory; the nearest vote for what
came next by exp(sharpness cos) (kNN-LM: Khandelwal et al. 2020, "Generalization through memorization"). The first two
see items by id and text, so an item without a past is scored by its text.

Letters: B states, N items, D width.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float32, Int32

from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder, Table
from recsys.errors import InvalidInput
from recsys.match import Corpus, DenseReading, Signal, States
from recsys.memory.collective import CollectiveMemory
from recsys.memory.keys import following, next_moments
from recsys.memory.lookback import looks_before, past_of, past_reader


@dataclass(frozen=True, slots=True, kw_only=True)
class InterestConfig:
    """`k` nearest moments vote with exp(sharpness cos): 400 and 20 were best on ML-1M."""

    k: int = 400
    sharpness: float = 20.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Interest:
    """A trained encoder, the items in its space, and everybody's states with what followed them."""

    config: InterestConfig
    sequence: SequenceEncoder
    table: Table
    memory: CollectiveMemory
    name: ClassVar[str] = "interest"
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("interest_next", proposes=100),
        Signal("interest_cosine", absolute=True),
        Signal("interest_moments", proposes=80),
    )

    @classmethod
    def fit(cls, corpus: Corpus, config: InterestConfig | None = None) -> Self:
        """Write all moments of the corpus under its encoder. Raises InvalidInput for a corpus without an encoder."""
        if corpus.sequence is None:
            raise InvalidInput.of("matchers", cls.name, "needs a trained history encoder")
        config = config or InterestConfig()
        table = corpus.sequence.items(corpus.items.base)
        far = past_reader(corpus.sequence, corpus.histories, corpus.items)
        states = corpus.sequence.moments(corpus.histories, table, far)
        values = next_moments(corpus.histories, np.random.default_rng(config.seed))
        return cls(config, corpus.sequence, table, CollectiveMemory.build(states, values))

    @property
    def looks_back(self) -> int:
        return self.sequence.shape.window + looks_before(self.sequence)

    def read(self, states: States) -> InterestReading:
        table = self.sequence.with_tail(self.table, states.items)
        here = self.sequence.present(states.histories, table, past_of(self.sequence, states.histories, states.items))
        cosine = here @ table.unit.T
        some = (states.histories.lengths > 0)[:, None]
        best = cosine.max(axis=1, keepdims=True, initial=-1.0)
        share = np.where(some, np.exp(self.sequence.scale * (cosine - best)), 0.0)
        scores = np.stack([share.astype(np.float32), cosine, self._moments(here, some, len(table))])
        return InterestReading(self.signals, scores)

    def _moments(
        self, here: Float32[np.ndarray, "B D"], some: Bool[np.ndarray, "B 1"], num_items: int
    ) -> Float32[np.ndarray, "B N"]:
        sharp = self.config.sharpness
        votes = self.memory.votes(here, self.config.k, lambda cos: np.exp(sharp * (cos - 1.0)), num_items=num_items)
        return np.asarray(votes * some, np.float32)

    def without_users(self, users: Int32[np.ndarray, " n"], histories: Histories) -> Self:
        gone = np.isin(histories.users, users)
        return replace(self, memory=self.memory.without(gone[following(histories)[1] > 0]))

    def save(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(asdict(self.config)))
        self.sequence.save(folder)
        self.memory.save(folder)

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        config = InterestConfig(**json.loads((folder / "config.json").read_text()))
        sequence = SequenceEncoder.load(folder)
        return cls(config, sequence, sequence.items(items.base), CollectiveMemory.load(folder))


@dataclass(frozen=True, slots=True)
class InterestReading(DenseReading):
    """Scores over all items, those that came later among them."""

    @property
    def size_bytes(self) -> int:
        return self.scores.nbytes

    def renewed(self, states: States) -> Self | None:
        return self if len(states.items) == self.scores.shape[2] else None
