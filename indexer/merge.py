"""Finished shards -> the parts of a model, in the order of their shards, which is the order of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32

from indexer.hashing import hashes, shards_of
from indexer.shard import ItemsShard, UsersShard, in_order
from recsys.data.catalogue import Catalogue
from recsys.data.histories import Clock, Histories
from recsys.data.report import MAX_EXAMPLES, Problem
from recsys.encode.codes import ItemCodes
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder
from recsys.flow import Flow
from recsys.match.interest import Interest
from recsys.match.neighbours import Neighbours, NeighboursConfig, item_codes
from recsys.match.suite import KNOWN
from recsys.train.fit import Progress, fit_flow, quiet
from recsys.types import Item


def catalogue_of(shards: Iterable[ItemsShard], told: Iterable[Item], met: Iterable[str]) -> tuple[Catalogue, set[str]]:
    """All items in order, and the ids of those that were deleted. `told`: of the event store, whose word counts more
    than the table's; `met`: ids that occur in events, of which nothing else may be known."""
    items: dict[str, Item] = {}
    deleted: set[str] = set()
    for shard in shards:
        items |= {item.item_id: item for item in Catalogue.from_frame(shard.frame).items}
        deleted |= set(shard.deleted)
    items |= {item.item_id: item for item in told}
    for item_id in met:
        items.setdefault(item_id, Item(item_id=item_id))
    kept = [item for item in items.values() if item.item_id not in deleted]
    return Catalogue(in_order(kept, [item.item_id for item in kept])), deleted


def item_rows(catalogue: Catalogue, deleted: Iterable[str]) -> pl.DataFrame:
    """Columns item_id, item (its row; -1 for a deleted one), from which users shards take rows."""
    gone = sorted(deleted)
    rows = [*range(len(catalogue)), *([-1] * len(gone))]
    return pl.DataFrame(
        {"item_id": [*catalogue.ids.ids, *gone], "item": rows}, schema={"item_id": pl.String, "item": pl.Int32}
    )


def texts_by_shard(texts: Iterable[str], num_shards: int) -> list[pl.Series]:
    """Distinct texts, each in the shard of its hash, in order."""
    distinct = pl.Series("text", list(dict.fromkeys(texts)), dtype=pl.String)
    hashed = hashes(distinct)
    ordered = pl.DataFrame({"text": distinct, "hash": hashed}).sort("hash", "text")
    bounds = np.searchsorted(shards_of(ordered["hash"].to_numpy(), num_shards), np.arange(num_shards + 1))
    return [ordered["text"][start:stop] for start, stop in pairwise(bounds.tolist())]


def histories_of(shards: Sequence[UsersShard], clock: Clock) -> tuple[list[str], Histories]:
    """All users in order, and their histories; a basket's number is that of its first event."""
    lives = [shard.histories for shard in shards if shard.histories is not None]
    types = tuple(sorted({name for life in lives for name in life.event_types}))
    starts = np.concatenate([[0], np.cumsum([life.num_events for life in lives])]).astype(np.int64)

    def joined(columns: Sequence[np.ndarray], kind: type) -> np.ndarray:
        return np.concatenate([np.zeros(0, kind), *columns]).astype(kind)

    numbers = [np.array([types.index(name) for name in life.event_types], np.int16) for life in lives]
    baskets = [
        np.where(life.baskets >= 0, life.baskets + start, -1) for life, start in zip(lives, starts[:-1], strict=True)
    ]
    indptrs = [life.indptr[1:] + start for life, start in zip(lives, starts[:-1], strict=True)]
    histories = Histories(
        indptr=joined([np.zeros(1, np.int64), *indptrs], np.int64),
        items=joined([life.items for life in lives], np.int32),
        times=joined([life.times for life in lives], np.float64),
        types=joined([place[life.types] for place, life in zip(numbers, lives, strict=True)], np.int16),
        values=joined([life.values for life in lives], np.float32),
        baskets=joined(baskets, np.int32),
        event_types=types,
        clock=clock,
    )
    return [user_id for shard in shards for user_id in shard.user_ids], histories


def problems_of(found: Iterable[Problem]) -> tuple[Problem, ...]:
    """The shards' problems, of each kind one, with its first examples."""
    together: dict[tuple[str, str, str], Problem] = {}
    for each in found:
        key = (each.table, each.field, each.kind)
        before = together.get(key)
        examples = sorted((*(before.examples if before else ()), *each.examples), key=lambda example: example.row)
        count = each.count + (before.count if before else 0)
        together[key] = replace(each, count=count, examples=tuple(examples[:MAX_EXAMPLES]))
    return tuple(together[key] for key in sorted(together))


def codes_of_items(
    items: ItemTable, config: NeighboursConfig, texts: ItemCodes, kept: tuple[Bool[np.ndarray, " N"], np.ndarray] | None
) -> Float32[np.ndarray, "N D"]:
    """The codes that keys are written in; those of the rows in `kept` (which, codes) are taken as they are."""
    codes = item_codes(items, config.dimensions, config.seed, texts)
    if kept is not None:
        codes[kept[0]] = kept[1]
    return codes


def flow_of(
    told: Histories,
    items: ItemTable,
    names: Sequence[str],
    *,
    neighbours: Neighbours | None,
    sequence: SequenceEncoder | None,
    progress: Progress = quiet,
) -> Flow:
    """The matchers of `names` in that order, all but `neighbours` fitted on `told`."""
    made = {Neighbours.name, Interest.name}
    kinds = [kind for name in names for kind in KNOWN if kind.name == name and name not in made]
    fitted = fit_flow(told, items, kinds=kinds, sequence=sequence, progress=progress)
    by_name = {matcher.name: matcher for matcher in fitted.matchers}
    if neighbours is not None:
        by_name[neighbours.name] = neighbours
    return replace(fitted, matchers=tuple(by_name[name] for name in names))
