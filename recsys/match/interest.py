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
from jaxtyping import Bool, Float32

from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder, Table
from recsys.encode.window import Far
from recsys.errors import InvalidInput
from recsys.match import Corpus, DenseReading, Signal, States
from recsys.memory.collective import CollectiveMemory
from recsys.memory.keys import next_moments
from recsys.memory.lookback import before_window, snapshots_of


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
        far = None
        if corpus.sequence.remembers:
            codes = corpus.sequence.codes.of(corpus.items.base)
            far = snapshots_of(corpus.histories, codes, corpus.sequence.every)
        states = corpus.sequence.moments(corpus.histories, table, far)
        following = next_moments(corpus.histories, np.random.default_rng(config.seed))
        return cls(config, corpus.sequence, table, CollectiveMemory.build(states, following))

    def read(self, states: States) -> DenseReading:
        table = self.sequence.with_tail(self.table, states.items)
        here = self.sequence.present(states.histories, table, self._far(states))
        cosine = here @ table.unit.T
        some = (states.histories.lengths > 0)[:, None]
        best = cosine.max(axis=1, keepdims=True, initial=-1.0)
        share = np.where(some, np.exp(self.sequence.scale * (cosine - best)), 0.0)
        return DenseReading(self.signals, [share.astype(np.float32), cosine, self._moments(here, some, len(table))])

    def _far(self, states: States) -> Far | None:
        if not self.sequence.remembers:
            return None
        # Codes of what was met only: a request must not cost what the catalogue holds.
        met, rows = np.unique(states.histories.items, return_inverse=True)
        codes = self.sequence.codes.of(states.items.vectors(met))
        histories = replace(states.histories, items=rows.astype(np.int32))
        return before_window(histories, self.sequence.shape.window, codes)

    def _moments(
        self, here: Float32[np.ndarray, "B D"], some: Bool[np.ndarray, "B 1"], num_items: int
    ) -> Float32[np.ndarray, "B N"]:
        sharp = self.config.sharpness
        votes = self.memory.votes(here, self.config.k, lambda cos: np.exp(sharp * (cos - 1.0)), num_items=num_items)
        return np.asarray(votes.toarray() * some, np.float32)

    def save(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(asdict(self.config)))
        self.sequence.save(folder)
        self.memory.save(folder)

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        config = InterestConfig(**json.loads((folder / "config.json").read_text()))
        sequence = SequenceEncoder.load(folder)
        return cls(config, sequence, sequence.items(items.base), CollectiveMemory.load(folder))
