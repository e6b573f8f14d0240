"""A model: all that a snapshot holds, in memory. Fitted once, never changed; `save` and `load` are its file layout.

catalogue.parquet  vectors.npy                items, and the vectors of their texts
users.parquet      histories.npz              who did what
matchers/NAME/...                             fitted matchers, a folder each
ranker.txt                                    LightGBM's own text format
model.json                                    settings, matcher names, feature names
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import polars as pl
from jaxtyping import Int64
from polars.exceptions import PolarsError

from recsys.data.catalogue import Catalogue
from recsys.data.histories import Histories
from recsys.data.ids import IdMap
from recsys.encode.items import ItemTable
from recsys.errors import DamagedSnapshot, InvalidInput, MixedSnapshot
from recsys.flow import Flow
from recsys.match import Erasable
from recsys.match.suite import load_matchers, save_matchers
from recsys.rank import LightGBMError, Ranker


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How the model was made and how it wants to be asked.

    `encoder`: name or path of the text encoder, None for the embedded one. `encoder_fingerprint`,
    `encoder_max_tokens`: of the encoder that made the vectors. `include_seen`: whether its users take the same item
    again. `store_seq`: rows of the event store it holds. `ignored_types`: events that are remembered but do not speak
    for an item.
    """

    encoder: str | None
    encoder_fingerprint: str
    include_seen: bool
    encoder_max_tokens: int = 256
    ignored_types: tuple[str, ...] = ("return",)
    store_seq: int = 0
    data_fingerprint: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Model:
    """Items, users, their histories, what was fitted on them, and the ranker over it (None: not trained yet)."""

    settings: ModelSettings
    items: ItemTable
    users: IdMap
    histories: Histories
    flow: Flow
    ranker: Ranker | None

    @cached_property
    def last_s(self) -> float:
        """The time of the newest event it holds, on the clock of its histories; -inf without any."""
        return float(self.histories.times.max(initial=-np.inf))

    @cached_property
    def popularity(self) -> Int64[np.ndarray, " N"]:
        """How often each item was met."""
        return np.bincount(self.histories.items, minlength=len(self.items.base))

    def without_users(self, user_ids: Iterable[str]) -> Model:
        """The same model, where nobody knows these users and none of their moments votes; quick, and not to be saved.

        Counts and weights that many users made together still hold their part: `train.erase` leaves that out as well.
        """
        gone = [user_id for user_id in user_ids if user_id in self.users]
        if not gone:
            return self
        rows, told = self.users.rows(gone), self.histories.without_types(self.settings.ignored_types)
        matchers = tuple(
            each.without_users(rows, told) if isinstance(each, Erasable) else each for each in self.flow.matchers
        )
        return replace(self, users=self.users.without(gone), flow=replace(self.flow, matchers=matchers))

    def save(self, folder: Path) -> None:
        """Write every part into an existing empty folder."""
        self.items.catalogue.write(folder / "catalogue.parquet")
        np.save(folder / "vectors.npy", self.items.base)
        users = pl.DataFrame({"user_id": list(self.users)}, schema={"user_id": pl.String})
        users.write_parquet(folder / "users.parquet")
        self.histories.save(folder / "histories.npz")
        save_matchers(self.flow.matchers, folder / "matchers")
        if self.ranker:
            (folder / "ranker.txt").write_text(self.ranker.to_text())
        (folder / "model.json").write_text(json.dumps(self._description(), indent=1))

    def _description(self) -> dict[str, object]:
        return {
            "settings": asdict(self.settings),
            "matchers": [matcher.name for matcher in self.flow.matchers],
            "features": list(self.flow.features),
        }

    @classmethod
    def load(cls, folder: Path) -> Model:
        """The model that `save` wrote, from a folder whose files the snapshot has verified.

        Raises MixedSnapshot where its parts do not fit together, DamagedSnapshot where one cannot be read: checksums
        say that the files are those that were written, not that what was written was sound.
        """
        try:
            return cls._read(folder)
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            MemoryError,
            BadZipFile,
            PolarsError,
            InvalidInput,
            LightGBMError,
        ) as error:
            raise DamagedSnapshot(f"{folder.name} cannot be read: {type(error).__name__}: {error}") from error

    @classmethod
    def _read(cls, folder: Path) -> Model:
        description = json.loads((folder / "model.json").read_text())
        vectors = np.load(folder / "vectors.npy", allow_pickle=False)
        items = ItemTable(Catalogue.read(folder / "catalogue.parquet"), vectors)
        users = IdMap(pl.read_parquet(folder / "users.parquet")["user_id"].to_list(), name="user_id")
        histories = Histories.load(folder / "histories.npz")
        settings = settings_of(description["settings"])
        met = histories.without_types(settings.ignored_types).met(len(items))
        flow = Flow(load_matchers(folder / "matchers", items, description["matchers"]), met)
        ranker_file = folder / "ranker.txt"
        ranker = Ranker.from_text(ranker_file.read_text(), description["features"]) if ranker_file.exists() else None
        model = cls(
            settings=settings,
            items=items,
            users=users,
            histories=histories,
            flow=flow,
            ranker=ranker,
        )
        model._check(description["features"])
        return model

    def _check(self, features: list[str]) -> None:
        facts = {
            "vectors": (len(self.items.base), len(self.items.catalogue)),
            "histories": (len(self.histories), len(self.users)),
            "features": (tuple(features), self.flow.features),
        }
        for name, (found, wanted) in facts.items():
            if found != wanted:
                raise MixedSnapshot(f"{name}: the snapshot holds {found!r}, its other parts want {wanted!r}")
        rows, indptr = self.histories.items, self.histories.indptr
        if self.histories.num_events and not (int(rows.min()) >= 0 and int(rows.max()) < len(self.items)):
            raise MixedSnapshot(f"histories: item rows {rows.min()} to {rows.max()} of {len(self.items)} items")
        if indptr[0] != 0 or indptr[-1] != len(rows) or (np.diff(indptr) < 0).any():
            raise MixedSnapshot("histories: the users' slices do not cover the events")
        if not np.isfinite(self.items.base).all():
            raise MixedSnapshot("vectors: NaN or infinity")


def settings_of(values: dict[str, object]) -> ModelSettings:
    """The settings that `model.json` holds. Raises MixedSnapshot where they are of another version."""
    known = {f.name for f in fields(ModelSettings)}
    if strange := set(values) ^ known:
        raise MixedSnapshot(f"model.json: settings {sorted(strange)} are of another version")
    values["ignored_types"] = tuple(values["ignored_types"])  # type: ignore[arg-type]  # JSON has no tuples
    return ModelSettings(**values)  # type: ignore[arg-type]  # checked by name above, written by this version
