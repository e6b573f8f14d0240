"""Everybody's past moments as the codes of one index: trained once, coded a shard at a time, carried over where nothing
about a moment changed.

The key of a moment hangs on the last items before it and on their codes (`recsys.memory.keys`), and its code on the key
and on what the index learnt. So a moment of the base snapshot is good as it is if its user's events up to there are the
same, the codes of its last items are, and the index learnt nothing new.

Letters: E events, M moments (events that something followed), N items, D dimensions, W window.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from indexer.shard import UsersShard, digest_of
from recsys._kernel import long_kernel
from recsys.data.histories import Clock, Histories
from recsys.index.faiss import FaissIndex
from recsys.index.parts import Part, Trained, coded, codes_of, merged
from recsys.match.neighbours import NeighboursConfig
from recsys.memory.keys import next_items


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentsTask:
    """The moments of one users shard that are not carried over. `carried`: a file that says which of the
    shard's moments are."""

    users: Path
    users_digest: str
    clock: Clock
    ignored_types: tuple[str, ...]
    codes: Path
    codes_digest: str
    trained: Path
    trained_digest: str
    carried: Path
    carried_digest: str
    config: NeighboursConfig
    done: Path
    kind: str = "moments"

    @property
    def digest(self) -> str:
        told = (self.users_digest, self.clock, self.ignored_types, self.codes_digest, self.trained_digest)
        return digest_of(self.kind, *told, self.carried_digest, self.config)

    def build(self, folder: Path) -> None:
        life = UsersShard.read(self.users, self.clock).histories
        codes = np.load(self.codes, allow_pickle=False)
        keys = np.zeros((0, codes.shape[1]), np.float32)
        if life is not None:
            told = life.without_types(self.ignored_types)
            moments = moments_of(told)[~np.load(self.carried, allow_pickle=False)]
            keys = keys_of(told, moments, codes, self.config)
        coded(load_trained(self.trained), keys).save(folder / "part.npz")


def moments_of(histories: Histories) -> Int64[np.ndarray, " M"]:
    """The events that something followed."""
    return np.flatnonzero(next_items(histories) >= 0)


def keys_of(
    histories: Histories, moments: Int64[np.ndarray, " M"], codes: Float32[np.ndarray, "N D"], config: NeighboursConfig
) -> Float32[np.ndarray, "M D"]:
    """The keys after some events: `superpose(recent_items(...))` of them alone, in one pass."""
    out = np.zeros((len(moments), codes.shape[1]), np.float32)
    starts = np.repeat(histories.indptr[:-1], histories.lengths)[moments]
    decays = np.array([config.decay**age for age in range(config.window)], np.float32)
    _keys(np.ascontiguousarray(histories.items), starts, moments, np.ascontiguousarray(codes), decays, out)
    return out


def carried_rows(
    told: Histories,
    past: Histories,
    *,
    base_users: Int64[np.ndarray, " U"],
    item_rows: Int32[np.ndarray, " N0"],
    same_code: Bool[np.ndarray, " N"],
    window: int,
) -> Int32[np.ndarray, " M"]:
    """For each moment of `told` the row of the equal one in the index over `past`, -1 where there is none.

    `base_users`: the row in `past` of each user, -1: none. `item_rows`: the new row of each old item, -1: gone.
    `same_code`: whether a new row's item has the code that it had.
    """
    number = np.cumsum(next_items(past) >= 0) - 1
    out = np.full(told.num_events, -1, np.int32)
    _carry(
        np.ascontiguousarray(told.items),
        told.indptr,
        base_users,
        item_rows[past.items],
        past.indptr,
        number,
        same_code,
        window,
        out,
    )
    return np.asarray(out[moments_of(told)])


def join(
    trained: Trained,
    parts: list[Part],
    carried: Int32[np.ndarray, " M"],
    base: FaissIndex | None,
) -> FaissIndex:
    """The index of all moments in order: fresh ones from `parts`, the others from `base`."""
    if base is None or not (carried >= 0).any():
        return merged(trained, parts)
    old = carried >= 0
    both = Part.joined([*parts, codes_of(base, carried[old].astype(np.int64))])
    place = np.empty(len(carried), np.int64)
    place[~old] = np.arange(int((~old).sum()))
    place[old] = int((~old).sum()) + np.arange(int(old.sum()))
    return merged(trained, [both.take(place)])


def save_trained(trained: Trained, path: Path) -> None:
    np.savez(path, kind=trained.kind, dimension=trained.dimension, template=trained.template)


def load_trained(path: Path) -> Trained:
    """What `save_trained` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return Trained(str(file["kind"]), int(file["dimension"]), file["template"])


@long_kernel
def _keys(items, starts, moments, codes, decays, out):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    for row in range(len(moments)):
        event = moments[row]
        for age in range(min(len(decays), event - starts[row] + 1)):
            code = codes[items[event - age]]
            for at in range(codes.shape[1]):
                out[row, at] += decays[age] * code[at]


@long_kernel
def _carry(items, ends, base_users, old_items, old_ends, number, same_code, window, out):  # type: ignore[no-untyped-def]
    for user in range(len(ends) - 1):
        base = base_users[user]
        if base < 0:
            continue
        start, old = ends[user], old_ends[base]
        both = min(ends[user + 1] - start, old_ends[base + 1] - old) - 1  # the last event of a history is no moment
        unlike = -1  # the last place whose item is coded otherwise
        for place in range(both):
            item = items[start + place]
            if old_items[old + place] != item:
                break
            if not same_code[item]:
                unlike = place
            if unlike < 0 or place - unlike >= window:
                out[start + place] = number[old + place]
