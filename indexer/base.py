"""What the current snapshot spares a rebuild: vectors of texts that did not change, codes of moments that did not, the
ranker and the history encoder. Where it has no part that fits, that part is made anew."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int32

from recsys.data.catalogue import Catalogue
from recsys.data.dataset import Dataset
from recsys.data.histories import Histories
from recsys.data.ids import IdMap
from recsys.data.report import ValidationReport
from recsys.encode.codes import ItemCodes
from recsys.encode.history import HistoryEncoder
from recsys.encode.sequence import SequenceEncoder
from recsys.index.faiss import FaissIndex
from recsys.match.interest import Interest
from recsys.match.neighbours import Neighbours, NeighboursConfig
from recsys.model import ModelSettings, settings_of
from recsys.rank import Ranker
from recsys.snapshot import Snapshot

LEARNT = "rebuild"
"""The folder of a snapshot in which a rebuild leaves what the next one goes on from."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What keys and index were learnt from: the texts' directions, and how many moments there were then."""

    texts: ItemCodes
    num_moments: int

    def save(self, folder: Path) -> None:
        (folder / LEARNT).mkdir()
        self.texts.save(folder / LEARNT / "texts.npz")
        (folder / LEARNT / "learnt.json").write_text(json.dumps({"num_moments": self.num_moments}))

    @classmethod
    def load(cls, folder: Path) -> Learnt:
        """What `save` wrote."""
        known = json.loads((folder / LEARNT / "learnt.json").read_text())
        return cls(ItemCodes.load(folder / LEARNT / "texts.npz"), int(known["num_moments"]))


class Base:
    """A verified snapshot, read part by part when it is asked for one: a whole model costs more than most parts."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._path = snapshot.path
        self.snapshot_id = snapshot.snapshot_id
        self._files = snapshot.manifest.files
        self._description = json.loads((self._path / "model.json").read_text())

    @cached_property
    def settings(self) -> ModelSettings:
        return settings_of(self._description["settings"])

    @property
    def matchers(self) -> tuple[str, ...]:
        return tuple(self._description["matchers"])

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self._description["features"])

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue.read(self._path / "catalogue.parquet")

    @cached_property
    def vectors(self) -> np.ndarray:
        return np.asarray(np.load(self._path / "vectors.npy", allow_pickle=False))

    @cached_property
    def users(self) -> IdMap:
        return IdMap(pl.read_parquet(self._path / "users.parquet")["user_id"].to_list(), name="user_id")

    def dataset(self) -> Dataset:
        """All that it holds, as if it were read from tables."""
        life = Histories.load(self._path / "histories.npz")
        report = ValidationReport(
            source=f"snapshot {self.snapshot_id}",
            events_read=life.num_events,
            events_kept=life.num_events,
            items_read=len(self.catalogue),
            items_kept=len(self.catalogue),
        )
        return Dataset(catalogue=self.catalogue, users=self.users, histories=life, report=report)

    def ranker(self) -> Ranker | None:
        file = self._path / "ranker.txt"
        return Ranker.from_text(file.read_text(), self.features) if file.exists() else None

    def sequence(self, item_rows: Int32[np.ndarray, " N"]) -> SequenceEncoder | None:
        """The history encoder, for items in other rows: new row n is its row `item_rows[n]`, -1 an item that it does
        not know and that is told by its text alone."""
        if Interest.name not in self.matchers:
            return None
        known = SequenceEncoder.load(self._path / "matchers" / Interest.name)
        return SequenceEncoder(tuple(_renumbered(each, item_rows) for each in known.members), known.codes)

    def learnt(self, config: NeighboursConfig) -> Learnt | None:
        """What its index learnt; None where that is not told, or its keys are made otherwise."""
        if f"{LEARNT}/learnt.json" not in self._files or Neighbours.name not in self.matchers:
            return None
        told = json.loads((self._neighbours / "config.json").read_text())
        return Learnt.load(self._path) if NeighboursConfig(**told) == config else None

    @property
    def past(self) -> Histories:
        """The histories whose moments its index holds."""
        return Histories.load(self._neighbours / "past.npz")

    @property
    def codes(self) -> np.ndarray:
        """Item codes [N, D], in which its keys are written."""
        return np.asarray(np.load(self._neighbours / "codes.npy", allow_pickle=False))

    @cached_property
    def index(self) -> FaissIndex:
        return FaissIndex.load(self._neighbours / "moments.index", device="cpu")

    @property
    def _neighbours(self) -> Path:
        return self._path / "matchers" / Neighbours.name


def _renumbered(member: HistoryEncoder, item_rows: Int32[np.ndarray, " N"]) -> HistoryEncoder:
    weights = dict(member.state_dict())
    old = weights["items.id.weight"]
    ids = old.new_zeros(len(item_rows), old.shape[1])
    known = np.flatnonzero((item_rows >= 0) & (item_rows < len(old)))
    ids[known] = old[item_rows[known]]
    weights["items.id.weight"] = ids
    out = HistoryEncoder(replace(member.config, num_items=len(item_rows)))
    out.load_state_dict(weights)
    return out.eval()
