"""Snapshots without erased users: what is made of single users' events is made anew from those of the others.

Made anew: users, histories, and every matcher, so also what many users make together (transitions, popularity, item
weights, everybody's moments). Left as they are, until the next training: the ranker's trees and the history encoder's
weights, in which a user is one of all that they were fitted on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from recsys.data.catalogue import Catalogue
from recsys.data.histories import Histories
from recsys.data.ids import IdMap
from recsys.encode.items import ItemTable
from recsys.errors import NotFound, SnapshotError
from recsys.match.interest import Interest
from recsys.match.suite import KNOWN
from recsys.model import Model
from recsys.snapshot import Manifest, clear_litter, current_id, list_snapshots, open_snapshot, remove
from recsys.train.fit import Progress, fit_flow, quiet
from recsys.train.publish import publish
from recsys.types import Item


class Tombstones(Protocol):
    """What is asked of the event store."""

    @property
    def last_erased_seq(self) -> int: ...
    def erased_among(self, user_ids: Iterable[str], *, after_seq: int) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A snapshot that holds erased users; `user_ids` is empty where it is damaged and cannot be looked into."""

    manifest: Manifest
    user_ids: frozenset[str]
    damaged: bool = False


def without_users(model: Model, user_ids: Collection[str], progress: Progress = quiet) -> Model:
    """The model as if `user_ids` had never been, but for trees and weights that were trained.

    Items keep their rows. One that nobody else met and of which nothing but the id is known loses that id, too.
    """
    gone = model.users.rows([user_id for user_id in user_ids if user_id in model.users])
    kept = np.setdiff1d(np.arange(len(model.users)), gone)
    life = _of_present_types(model.histories.take(kept))
    items = _nameless(model.items, model.histories, life)
    told = life.without_types(model.settings.ignored_types)
    fitted = {matcher.name: matcher for matcher in model.flow.matchers}
    interest = fitted.pop(Interest.name, None)
    flow = fit_flow(
        told,
        items,
        kinds=[kind for name in fitted for kind in KNOWN if kind.name == name],
        sequence=interest.sequence if isinstance(interest, Interest) else None,
        progress=progress,
    )
    users = IdMap((model.users.ids[row] for row in kept), name="user_id")
    return replace(model, items=items, users=users, histories=life, flow=flow)


def holding_erased(root: Path, store: Tombstones) -> Iterator[Holding]:
    """The snapshots below `root` that hold users whom `store` erased, oldest first. Costs a query where nobody was."""
    last = store.last_erased_seq
    for manifest in reversed(list_snapshots(root)):
        store_seq = int(manifest.config.get("store_seq", 0))
        if store_seq >= last:
            continue
        try:
            users = open_snapshot(root, manifest.snapshot_id).file("users.parquet")
        except NotFound:  # pruned meanwhile
            continue
        except SnapshotError:
            yield Holding(manifest=manifest, user_ids=frozenset(), damaged=True)
            continue
        if gone := store.erased_among(pl.read_parquet(users)["user_id"], after_seq=store_seq):
            yield Holding(manifest=manifest, user_ids=gone)


def rewrite_erased(root: Path, store: Tombstones, progress: Progress = quiet) -> dict[str, str]:
    """Puts a snapshot without the erased users in the place of each that holds some: (old id -> new id).

    Each is whole before the old one goes, so it may die anywhere and be called again. A damaged one is removed, for
    nothing can be served from it; the current one alone is left, since it names what is wrong.
    """
    clear_litter(root)
    renamed: dict[str, str] = {}
    for found in list(holding_erased(root, store)):
        old = found.manifest.snapshot_id
        if not found.damaged:
            model = without_users(Model.load(open_snapshot(root, old).path), found.user_ids, progress)
            renamed[old] = publish(model, root, replaces=old)
        elif old != _current(root):
            remove(root, old)
    return renamed


def _current(root: Path) -> str:
    try:
        return current_id(root)
    except (NotFound, SnapshotError):
        return ""


def _of_present_types(life: Histories) -> Histories:
    """The same events, without the names of types that none of them has."""
    present = np.unique(life.types)
    if len(present) == len(life.event_types):
        return life
    place = np.zeros(len(life.event_types), np.int16)
    place[present] = np.arange(len(present))
    return replace(life, event_types=tuple(life.event_types[code] for code in present), types=place[life.types])


def _nameless(items: ItemTable, before: Histories, after: Histories) -> ItemTable:
    """Ids of things that only the erased met and nobody described are theirs alone: others take their place."""
    lost = np.flatnonzero(before.met(len(items)) & ~after.met(len(items)))
    bare = [int(row) for row in lost if not items.item(int(row)).text]
    if not bare:
        return items
    known = list(items.catalogue.items)
    taken = set(items.catalogue.ids)
    for row in bare:
        known[row] = Item(item_id=_free(f"erased-{row}", taken))
    return ItemTable(Catalogue(known), items.base, items.tail)


def _free(item_id: str, taken: set[str]) -> str:
    while item_id in taken:
        item_id += "-"
    return item_id
