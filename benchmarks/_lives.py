"""A real data set cut to size, and users of a given number of events written into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recsys.data.catalogue import Catalogue
from recsys.data.dataset import Dataset
from recsys.data.histories import Histories
from recsys.data.ids import IdMap

TASTE = 2_000
"""Items a life goes round, and at most a quarter of all: a life of 100,000 events that had met every film would leave
nothing to propose, and so less to do than a life of 1,000."""


def most_met(dataset: Dataset, num_items: int) -> Dataset:
    """`dataset` with its most popular items and the events about them alone."""
    met = np.bincount(dataset.histories.items, minlength=len(dataset.catalogue))
    rows = np.sort(np.argsort(-met, kind="stable")[:num_items])
    new_row = np.full(len(met), -1, np.int32)
    new_row[rows] = np.arange(len(rows))
    kept = dataset.histories.keep(new_row[dataset.histories.items] >= 0)
    catalogue = Catalogue([dataset.catalogue.items[row] for row in rows])
    return replace(dataset, catalogue=catalogue, histories=replace(kept, items=new_row[kept.items]))


def life_id(length: int) -> str:
    """The user id of the life of `length` events."""
    return f"life-of-{length}"


def with_lives(dataset: Dataset, lengths: Sequence[int], *, seed: int = 0) -> Dataset:
    """`dataset` and a user for each of `lengths`: real items, popular ones more often, spread over all its time."""
    rng = np.random.default_rng(seed)
    told = dataset.histories
    popularity = np.bincount(told.items, minlength=len(dataset.catalogue)) + 1.0
    taste = min(TASTE, len(popularity) // 4)
    lives = [_life(popularity, taste, length, rng) for length in lengths]
    users = IdMap([*dataset.users, *map(life_id, lengths)], name="user_id")
    return replace(dataset, users=users, histories=_joined(told, lives))


def drawn(dataset: Dataset, count: int, rng: np.random.Generator) -> list[str]:
    """Ids of `count` different items, popular ones more often: what a caller would ask to have ranked."""
    popularity = np.bincount(dataset.histories.items, minlength=len(dataset.catalogue)) + 1.0
    rows = rng.choice(len(popularity), count, replace=False, p=popularity / popularity.sum())
    return [dataset.catalogue.items[row].item_id for row in rows]


def _life(popularity: np.ndarray, taste: int, length: int, rng: np.random.Generator) -> np.ndarray:
    liked = rng.choice(len(popularity), taste, replace=False, p=popularity / popularity.sum())
    return rng.choice(liked, length, p=popularity[liked] / popularity[liked].sum()).astype(np.int32)


def _joined(told: Histories, lives: Sequence[np.ndarray]) -> Histories:
    lengths = np.array([len(life) for life in lives])
    first_s, last_s = float(told.times.min()), float(told.times.max())
    added = int(lengths.sum())
    return replace(
        told,
        indptr=np.concatenate([told.indptr, told.indptr[-1] + np.cumsum(lengths)]).astype(np.int64),
        items=np.concatenate([told.items, *lives]),
        times=np.concatenate([told.times, *(np.linspace(first_s, last_s, length) for length in lengths)]),
        types=np.concatenate([told.types, np.zeros(added, np.int16)]),
        values=np.concatenate([told.values, np.full(added, np.nan, np.float32)]),
        baskets=np.concatenate([told.baskets, np.full(added, -1, np.int32)]),
    )
