"""The real work: `build_shard` makes one finished shard of one task. It reads files and writes files, and nothing else
decides what it writes: the same task gives the same bytes in any process, on any machine with the same libraries.

Letters: n items or users of a shard, E events, D dimensions.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import polars as pl

from indexer.hashing import MAX_SHARDS, hashes, ranges_of
from indexer.source import DELETED
from indexer.spill import read_shard
from recsys import _native  # noqa: F401  (before torch and faiss)
from recsys.data.catalogue import Catalogue
from recsys.data.histories import Clock, Histories
from recsys.data.items import read_items
from recsys.data.report import Example, Findings, Problem
from recsys.encode.text import TextEncoder
from recsys.errors import InvalidInput, RecsysError
from recsys.snapshot.files import sync_tree

T = TypeVar("T")

VERSION = 1
"""Of what shards hold: raise it where the same input comes to give another output."""

_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False, "": False}


class Task(Protocol):
    """What one shard is made of. Tasks are small and can be pickled: data travels in files."""

    @property
    def kind(self) -> str: ...

    @property
    def digest(self) -> str:
        """Names all that decides the output."""
        ...

    @property
    def done(self) -> Path:
        """The folder of finished shards."""
        ...

    def build(self, folder: Path) -> None:
        """Write the shard into an existing empty folder."""
        ...


def place_of(task: Task) -> Path:
    """Where the finished shard lies."""
    return task.done / f"{task.kind}-{task.digest}"


def build_shard(task: Task) -> Path:
    """Build `task` beside its place, and rename it there: a finished shard is whole, also after a power loss."""
    place = place_of(task)
    aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    aside.mkdir(parents=True)
    try:
        task.build(aside)
        sync_tree(aside)
        try:
            aside.rename(place)
        except OSError:
            if not place.exists():  # another attempt may have come first
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # nothing is there once it was renamed
    return place


def digest_of(*parts: object) -> str:
    """32 hex digits for a shard's inputs, code version included."""
    return hashlib.sha256(json.dumps([VERSION, *map(str, parts)]).encode()).hexdigest()[:32]


# --- items -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsTask:
    """Raw item rows, checked; `spilled` may be missing where no row fell into the shard."""

    spilled: Path
    spilled_digest: str
    done: Path
    kind: str = "items"

    @property
    def digest(self) -> str:
        return digest_of(self.kind, self.spilled_digest)

    def build(self, folder: Path) -> None:
        raw = read_shard(self.spilled)
        deleted: list[str] = []
        catalogue, problems = Catalogue([]), tuple[Problem, ...]()
        if raw is not None:
            gone = _deleted(raw)
            deleted = raw.filter(gone)["key"].unique().sort().to_list()
            kept = raw.filter(~gone)
            found = read_items(kept.drop("row", "key", DELETED, strict=False).lazy())
            catalogue = Catalogue(in_order(found.items, [item.item_id for item in found.items]))
            problems = tuple(_as_in_source(problem, kept["row"]) for problem in found.problems)
        catalogue.write(folder / "items.parquet")
        _write_facts(folder, problems, deleted=deleted)


@dataclass(frozen=True, slots=True)
class ItemsShard:
    """Good items in order, ids of deleted ones, and what was wrong."""

    frame: pl.DataFrame
    deleted: list[str]
    problems: tuple[Problem, ...]

    @classmethod
    def read(cls, place: Path) -> ItemsShard:
        facts, problems = _read_facts(place)
        return cls(pl.read_parquet(place / "items.parquet"), facts["deleted"], problems)


def _deleted(raw: pl.DataFrame) -> pl.Series:
    if DELETED not in raw.columns:
        return pl.Series([False] * len(raw), dtype=pl.Boolean)
    texts = raw[DELETED].cast(pl.String).str.to_lowercase().fill_null("")
    for row, text in zip(raw["row"], texts, strict=True):
        if text not in _BOOLEANS:
            raise InvalidInput.of(f"items[{row + 1}].{DELETED}", text, "must be true or false")
    return texts.replace_strict(_BOOLEANS, return_dtype=pl.Boolean)


def _as_in_source(problem: Problem, rows: pl.Series) -> Problem:
    """Rows of the shard as rows of the table that it was cut from."""
    return replace(problem, examples=tuple(Example(rows[each.row - 1] + 1, each.value) for each in problem.examples))


def in_order(values: Sequence[T], ids: Sequence[str]) -> list[T]:
    """`values` by (hash, id) of their ids: the order of rows everywhere in a rebuild."""
    hashed = hashes(pl.Series(ids, dtype=pl.String)).tolist()
    return [values[at] for at in sorted(range(len(ids)), key=lambda at: (hashed[at], ids[at]))]


# --- users -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersTask:
    """Events of some users, each once, in order of time. `item_rows`: a table of ids and rows, -1 for deleted items."""

    spilled: Path
    spilled_digest: str
    item_rows: Path
    item_rows_digest: str
    done: Path
    kind: str = "users"

    @property
    def digest(self) -> str:
        return digest_of(self.kind, self.spilled_digest, self.item_rows_digest)

    def build(self, folder: Path) -> None:
        raw = read_shard(self.spilled)
        if raw is None:
            _write_facts(folder, (), empty=True)
            return
        again = pl.col("event_id").is_not_null() & ~pl.struct("user_id", "event_id").is_first_distinct()
        events = raw.sort("row").filter(~again)
        num_duplicates = len(raw) - len(events)
        events = events.join(pl.read_parquet(self.item_rows), on="item_id", how="left", maintain_order="left")
        findings = Findings("events")
        unknown = events.filter(pl.col("item").is_null())
        if len(unknown):
            findings.add("item_id", "unknown", len(unknown), list(unknown.select("row", "item_id").head(5).iter_rows()))
        known = events.filter(pl.col("item") >= 0)
        num_of_deleted = len(events) - len(unknown) - len(known)
        self._write(known, folder)
        _write_facts(
            folder,
            findings.problems,
            empty=False,
            num_duplicates=num_duplicates,
            num_of_deleted=num_of_deleted,
            event_types=known["event_type"].unique().sort().to_list(),
        )

    def _write(self, events: pl.DataFrame, folder: Path) -> None:
        ids = events["user_id"].unique().to_list()
        users = pl.DataFrame({"user_id": in_order(ids, ids)}, schema={"user_id": pl.String})
        users.write_parquet(folder / "users.parquet")
        ranks = users.with_row_index("user").with_columns(pl.col("user").cast(pl.Int32))
        told = events.join(ranks, on="user_id", how="left").sort("user", "time", "ties", "row").with_row_index("place")
        types = pl.Enum(told["event_type"].unique().sort())
        first = pl.col("place").first().over("user", "basket").cast(pl.Int32)
        basket = pl.when(pl.col("basket").is_not_null()).then(first)
        told = told.with_columns(basket.fill_null(-1).alias("basket"), pl.col("event_type").cast(types).to_physical())
        np.savez(
            folder / "events.npz",
            indptr=np.concatenate([[0], np.cumsum(np.bincount(told["user"], minlength=len(users)))]).astype(np.int64),
            items=told["item"].to_numpy().astype(np.int32),
            times=told["time"].to_numpy(),
            types=told["event_type"].to_numpy().astype(np.int16),
            values=told["value"].fill_null(float("nan")).to_numpy().astype(np.float32),
            baskets=told["basket"].to_numpy().astype(np.int32),
        )


@dataclass(frozen=True, slots=True)
class UsersShard:
    """Users in order and their histories, item rows being those of the whole catalogue."""

    user_ids: list[str]
    histories: Histories | None
    num_duplicates: int
    num_of_deleted: int
    problems: tuple[Problem, ...]

    @classmethod
    def read(cls, place: Path, clock: Clock) -> UsersShard:
        facts, problems = _read_facts(place)
        if facts["empty"]:
            return cls([], None, 0, 0, problems)
        ids = pl.read_parquet(place / "users.parquet")["user_id"].to_list()
        with np.load(place / "events.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        life = Histories(**arrays, event_types=tuple(facts["event_types"]), clock=clock)
        return cls(ids, life, facts["num_duplicates"], facts["num_of_deleted"], problems)


# --- texts -----------------------------------------------------------------------------------------------------------


class EncoderSource(Hashable, Protocol):
    """Where a text encoder comes from; small and hashable, for it travels to workers and is kept there."""

    def load(self) -> TextEncoder: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedEncoder:
    """See `TextEncoder.load`. Without its cache of vectors: what is kept between rebuilds is the snapshot."""

    name: str | None = None
    device: str = "auto"
    max_tokens: int = 256

    def load(self) -> TextEncoder:
        return TextEncoder.load(self.name, device=self.device, max_tokens=self.max_tokens)


@lru_cache(maxsize=1)
def _encoder(source: EncoderSource) -> TextEncoder:
    return source.load()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsTask:
    """Distinct texts, in order of their hashes, encoded range by range of hashes.

    What stands beside a text in a batch moves the last bits of its vector. The ranges do not hang on the number of
    shards, so neither does any vector.
    """

    texts: Path
    texts_digest: str
    encoder: EncoderSource
    fingerprint: str
    done: Path
    kind: str = "texts"

    @property
    def digest(self) -> str:
        return digest_of(self.kind, self.texts_digest, self.fingerprint)

    def build(self, folder: Path) -> None:
        texts = pl.read_parquet(self.texts)["text"]
        encoder = _encoder(self.encoder)
        if encoder.fingerprint != self.fingerprint:
            raise RecsysError(f"this worker's text encoder is {encoder.fingerprint}, not {self.fingerprint}")
        bounds = np.searchsorted(ranges_of(hashes(texts)), np.arange(MAX_SHARDS + 1))
        parts = [
            encoder.encode(texts[start:stop].to_list()) for start, stop in pairwise(bounds.tolist()) if start < stop
        ]
        np.save(folder / "vectors.npy", np.concatenate(parts))


# --- facts -----------------------------------------------------------------------------------------------------------


def _write_facts(folder: Path, problems: tuple[Problem, ...], **facts: object) -> None:
    text = json.dumps(facts | {"problems": [asdict(each) for each in problems]})
    (folder / "facts.json").write_text(text, "utf-8", "surrogatepass")


def _read_facts(place: Path) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    facts = json.loads((place / "facts.json").read_text("utf-8", "surrogatepass"))
    problems = tuple(
        Problem(**each | {"examples": tuple(Example(**example) for example in each["examples"])})
        for each in facts.pop("problems")
    )
    return facts, problems
