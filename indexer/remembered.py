"""The `neighbours` matcher of a rebuild: item codes, what the index learns, shards of moments, and their merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int32

from indexer.base import Base, Learnt
from indexer.merge import codes_of_items
from indexer.moments import MomentsTask, carried_rows, join, keys_of, moments_of, save_trained
from indexer.plan import Shards, file_digest
from indexer.result import Rebuilt
from indexer.shard import UsersShard, UsersTask, place_of
from recsys.data.dataset import Dataset
from recsys.data.histories import Histories
from recsys.encode.codes import ItemCodes
from recsys.encode.items import ItemTable
from recsys.index.kinds import chosen
from recsys.index.parts import Part, Trained, sample_size, train, trained_of
from recsys.match.neighbours import Neighbours, NeighboursConfig
from recsys.memory.collective import CollectiveMemory
from recsys.memory.keys import next_items

RETRAINED_BEYOND = 2.0
"""The index learns anew where there are more than so many times as many moments as when it learnt, or fewer."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What moments are written from."""

    dataset: Dataset
    items: ItemTable
    ignored_types: tuple[str, ...]
    config: NeighboursConfig

    @cached_property
    def told(self) -> Histories:
        return self.dataset.histories.without_types(self.ignored_types)

    @cached_property
    def num_moments(self) -> int:
        return len(moments_of(self.told))


@dataclass(frozen=True, slots=True)
class _Kept:
    """Of the base: what it learnt, which items have the code that they had, and the row of each moment in its index."""

    learnt: Learnt
    same_code: Bool[np.ndarray, " N"]
    codes: Float32[np.ndarray, "n D"]
    rows: Int32[np.ndarray, " M"]


def remembered(
    written: Written, users: Sequence[UsersTask], base: Base | None, shards: Shards, told: Rebuilt, *, kind: str
) -> tuple[Neighbours, Learnt]:
    """The matcher, and what the next rebuild may go on from."""
    kept = _kept(written, base, kind)
    learnt = kept.learnt if kept else _learn(written)
    codes = codes_of_items(written.items, written.config, learnt.texts, (kept.same_code, kept.codes) if kept else None)
    trained = trained_of(base.index) if kept and base else _train(written, codes, kind)
    rows = kept.rows if kept else np.full(written.num_moments, -1, np.int32)
    told.moments_carried = int((rows >= 0).sum())
    told.moments_coded = len(rows) - told.moments_carried
    tasks = _tasks(written, users, codes, trained, rows, shards)
    parts = [Part.load(place / "part.npz") for place in shards.map(tasks)]
    index = join(trained, parts, rows, base.index if kept and base else None)
    memory = CollectiveMemory(index, next_items(written.told)[moments_of(written.told)])
    return Neighbours.of(written.config, written.told, codes, memory), learnt


def _kept(written: Written, base: Base | None, kind: str) -> _Kept | None:
    learnt = base.learnt(written.config) if base else None
    if base is None or learnt is None or not written.num_moments:
        return None
    growth = written.num_moments / max(learnt.num_moments, 1)
    wanted = chosen(kind, written.num_moments)
    if base.index.kind != wanted or not 1 / RETRAINED_BEYOND <= growth <= RETRAINED_BEYOND:
        return None
    catalogue = written.items.catalogue
    old = base.catalogue.ids.rows(list(catalogue.ids.ids), unknown=-1)
    same = old >= 0
    same[same] = (base.vectors[old[same]] == written.items.base[same]).all(axis=1)
    rows = carried_rows(
        written.told,
        base.past,
        base_users=base.users.rows(list(written.dataset.users.ids), unknown=-1).astype(np.int64),
        item_rows=catalogue.ids.rows(list(base.catalogue.ids.ids), unknown=-1),
        same_code=same,
        window=written.config.window,
    )
    return _Kept(learnt, same, base.codes[old[same]], rows)


def _learn(written: Written) -> Learnt:
    return Learnt(ItemCodes.fit(written.items.base, written.config.dimensions // 2), written.num_moments)


def _train(written: Written, codes: Float32[np.ndarray, "N D"], kind: str) -> Trained:
    """On evenly spaced moments of them all, which are the same however they are cut into shards."""
    wanted = sample_size(kind, written.num_moments)
    moments = (
        moments_of(written.told)[:: max(1, written.num_moments // max(wanted, 1))] if wanted else np.zeros(0, np.int64)
    )
    return train(keys_of(written.told, moments, codes, written.config), kind=kind, size=written.num_moments)


def _tasks(
    written: Written,
    users: Sequence[UsersTask],
    codes: Float32[np.ndarray, "N D"],
    trained: Trained,
    rows: Int32[np.ndarray, " M"],
    shards: Shards,
) -> list[MomentsTask]:
    run = shards.work.run
    np.save(run / "codes.npy", codes)
    save_trained(trained, run / "trained.npz")
    digest = file_digest(run / "codes.npy")
    tasks, start = [], 0
    for number, task in enumerate(users):
        size = _num_moments(task, written)
        path = run / f"carried-{number:02d}.npy"
        np.save(path, rows[start : start + size] >= 0)
        start += size
        tasks.append(
            MomentsTask(
                users=place_of(task),
                users_digest=task.digest,
                clock=written.dataset.histories.clock,
                ignored_types=written.ignored_types,
                codes=run / "codes.npy",
                codes_digest=digest,
                trained=run / "trained.npz",
                trained_digest=trained.fingerprint,
                carried=path,
                carried_digest=file_digest(path),
                config=written.config,
                done=shards.work.done,
            )
        )
    return tasks


def _num_moments(task: UsersTask, written: Written) -> int:
    life = UsersShard.read(place_of(task), written.dataset.histories.clock).histories
    return 0 if life is None else len(moments_of(life.without_types(written.ignored_types)))
