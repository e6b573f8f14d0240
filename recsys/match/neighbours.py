"""Sequence neighbours: who was ever where this user is now, and what came next.

Two reads of the collective memory. `shared`: by address, exactly, over every moment that shares an item with the user's
last W; score = sum of overlap^1.5 by what followed. `nearest`: by search in a vector index over dense keys, which also
finds moments that share no item when the codes of similar items are close. Both are divided by popularity^0.2. On ML-1M
the exact read alone reaches NDCG@10 .164 and is the strongest single signal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Float32, Int32

from recsys.data.histories import Histories
from recsys.encode.codes import ItemCodes
from recsys.encode.items import ItemTable
from recsys.match import Corpus, KeptDenseReading, Signal, States
from recsys.memory.addresses import Addresses
from recsys.memory.collective import CollectiveMemory
from recsys.memory.keys import latest_items, next_items, recent_items, superpose


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighboursConfig:
    """`decay`, `window`: of the keys. `power`: how much closer moments outvote others. `k`: moments a search finds."""

    decay: float = 0.75
    window: int = 10
    power: float = 1.5
    popularity_power: float = 0.2
    nearest_power: float = 3.0
    k: int = 1_000
    dimensions: int = 128
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Reads of everybody's past by address and by search.

    `rarity` is the inverse document frequency: sharing a rare item says more than sharing a hit. `discount` is what a
    popular item's votes are multiplied by.
    """

    config: NeighboursConfig
    histories: Histories
    codes: Float32[np.ndarray, "N D"]
    addresses: Addresses
    memory: CollectiveMemory
    rarity: Float32[np.ndarray, " N"]
    discount: Float32[np.ndarray, " N"]
    name: ClassVar[str] = "neighbours"
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("neighbours_shared", proposes=100),
        Signal("neighbours_nearest", proposes=40),
    )

    @classmethod
    def fit(cls, corpus: Corpus, config: NeighboursConfig | None = None) -> Self:
        config = config or NeighboursConfig()
        codes = item_codes(corpus.items, config.dimensions, config.seed)
        keys = superpose(recent_items(corpus.histories, config.window), codes, config.decay)
        memory = CollectiveMemory.build(keys, next_items(corpus.histories))
        return cls.of(config, corpus.histories, codes, memory)

    @classmethod
    def of(cls, config: NeighboursConfig, histories: Histories, codes: np.ndarray, memory: CollectiveMemory) -> Self:
        """The matcher over a memory of the moments of `histories`, whose keys were written in `codes`."""
        addresses = Addresses.build(histories, len(codes), decay=config.decay, window=config.window)
        popularity = np.bincount(histories.items, minlength=len(codes)).astype(np.float32)
        rarity = np.clip(np.log(max(len(histories), 1) / (popularity + 1)), 0.3, None).astype(np.float32)
        discount = ((popularity + 1.0) ** -config.popularity_power).astype(np.float32)
        return cls(config, histories, codes, addresses, memory, rarity, discount)

    def read(self, states: States) -> KeptDenseReading:
        scores = np.stack([self._shared(states), self._nearest(states)])
        return KeptDenseReading(self.signals, scores * self.discount)

    def _shared(self, states: States) -> Float32[np.ndarray, "B N"]:
        return self.addresses.votes(states.histories, self.rarity, self.config.power)

    def _nearest(self, states: States) -> Float32[np.ndarray, "B N"]:
        config = self.config
        keys = superpose(latest_items(states.histories, config.window), self.codes, config.decay)
        # `votes` counts positive similarities alone.
        power = config.nearest_power
        return self.memory.votes(keys, config.k, lambda cos: np.maximum(cos, 0) ** power, num_items=len(self.codes))

    def without_users(self, users: Int32[np.ndarray, " n"], histories: Histories) -> Self:
        gone = np.isin(histories.users, users)
        memory = self.memory.without(gone[next_items(histories) >= 0])
        return replace(self, addresses=self.addresses.without(gone), memory=memory)

    def save(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(asdict(self.config)))
        np.save(folder / "codes.npy", self.codes)
        self.histories.save(folder / "past.npz")
        self.memory.save(folder)

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> Self:
        config = NeighboursConfig(**json.loads((folder / "config.json").read_text()))
        histories = Histories.load(folder / "past.npz")
        codes = np.load(folder / "codes.npy", allow_pickle=False)
        return cls.of(config, histories, codes, CollectiveMemory.load(folder))


def item_codes(
    items: ItemTable, dimensions: int, seed: int, texts: ItemCodes | None = None
) -> Float32[np.ndarray, "N D"]:
    """Half a random code of the item itself, half its text's main directions, so that similar items lie near.

    Rows of the first half are signs of length 1 with nearly orthogonal directions (Kanerva 2009, hyperdimensional
    computing). They hang on the item's id alone, so neither the catalogue's order nor its growth moves a key. The text
    half is `texts` of the item's vector, those fitted on these items where none are given; zero without a text.
    """
    half = dimensions // 2
    texts = texts or ItemCodes.fit(items.base, half)
    signs = _signs(items.catalogue.ids, half, seed)
    return np.concatenate([0.8 * signs, 0.6 * texts.of(items.base)], axis=1).astype(np.float32)


def _signs(ids: Iterable[str], width: int, seed: int) -> Float32[np.ndarray, "N W"]:
    """A row of +-1/sqrt(width) an id, from the bits of its hash."""
    size_bytes = -(-width // 8)
    names = (f"{seed}\0{id_}".encode("utf-8", "surrogatepass") for id_ in ids)
    hashes = b"".join(hashlib.shake_128(name).digest(size_bytes) for name in names)
    bits = np.unpackbits(np.frombuffer(hashes, np.uint8)).reshape(-1, 8 * size_bytes)[:, :width]
    return np.asarray((2.0 * bits - 1.0) / np.sqrt(width), np.float32)
