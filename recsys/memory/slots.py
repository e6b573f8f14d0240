"""Slots: a fixed matrix of prototypes a user, addressed by content; a life of any length in the same bytes.

An event r goes to the nearest slot m by cosine. From `threshold` up it is more of the same and moves the slot:

    delta   m <- m + max(rate, 1 / strength) (r - m)    an error-correcting step: a mean at first, recent events later
    hebb    m <- m + r, kept divided by its strength    the plain Hebbian sum: a mean for ever

Below it, r is something else and takes a free slot. Where none is free, the two slots closest to each other become one,
weighted by strength^`merge_power`; if no pair is closer than r is to its slot, r goes there instead. So what is unlike
all else keeps its slot, however rare and long ago it was: closeness costs a slot its place, not weakness.

After the delta rule of fast weights (Widrow and Hoff 1960; Schlag, Irie and Schmidhuber 2021, "Linear transformers are
secretly fast weight programmers") and incremental clustering by the closest pair (Charikar et al. 1997).

Events wait in a buffer until `block` of them can be folded in at once: repeats of an item count as one write, and what
a slot takes clearly is added up. Blocks are cut by the user's own count of events, so a life written in pieces becomes
the same memory. A read sees the waiting events as they are.

A vector is kept as a direction of eight bits a coordinate and a length: twice as many slots in the same bytes keep more
than half as coarse ones would.

Cost: a write is O(S D) an event, a read O((S + block) D) a query, whatever the length of the life. Bytes a user:
S (D + 14) + 4 block + 8, as many slots as fit into 64 KiB: 838 of 64 dimensions, 460 of 128.

Letters: U users, A users at once, R users of a round, C events of a block, S slots, D dimensions.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32, Int64

from recsys.data.histories import Histories
from recsys.errors import InvalidInput
from recsys.memory.far import Recalled, checked, load_parts, nearest, save_parts, to_write, unit, usable, weightiest

VERSION = 1

WORK_BYTES = 64 * 2**20
"""Slots in single precision held by a write at once: bounds how many users it follows side by side."""

SLOT_BYTES = 14
"""Of a slot, beside its vector."""

STALE = 2e-3
"""Half precision's rounding of a cosine near 1: a cached one that differs by less is taken for true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsConfig:
    """`threshold`: the cosine from which an event is more of what a slot holds. `half_life`: in events, of strengths;
    None keeps them for ever: rare is not lost. `slots`: by default as many as `size_bytes` hold."""

    size_bytes: int = 64 * 1024
    slots: int | None = None
    threshold: float = 0.77
    rate: float = 0.05
    rule: Literal["delta", "hebb"] = "delta"
    merge_power: float = 0.5
    half_life: float | None = None
    block: int = 32

    def __post_init__(self) -> None:
        if self.slots is not None and not 2 <= self.slots < 2**15:
            raise InvalidInput.of("slots", self.slots, "between 2 and 32,767")
        if not 0.0 < self.threshold <= 1.0:
            raise InvalidInput.of("threshold", self.threshold, "above 0 and at most 1")
        if not 0.0 <= self.rate <= 1.0:
            raise InvalidInput.of("rate", self.rate, "between 0 and 1")
        if self.rule not in ("delta", "hebb"):
            raise InvalidInput.of("rule", self.rule, "delta or hebb")
        if self.half_life is not None and not self.half_life > 0.0:
            raise InvalidInput.of("half_life", self.half_life, "above 0, or None")
        if self.block < 1:
            raise InvalidInput.of("block", self.block, "at least 1")

    def num_slots(self, dimensions: int) -> int:
        """`slots`, or what `size_bytes` hold of slots of so many dimensions."""
        if self.slots is not None:
            return self.slots
        fitting = (self.size_bytes - 4 * self.block - 8) // (dimensions + SLOT_BYTES)
        if fitting < 2:
            raise InvalidInput.of("size_bytes", self.size_bytes, f"holds no two slots of {dimensions} dimensions")
        return min(fitting, 2**15 - 1)


@dataclass(frozen=True, slots=True)
class _Held:
    """All that is kept, a row a user. A slot is free where its strength is 0. `near` and `closeness`: each slot's
    nearest other, and an upper bound on their cosine. `last`: the place of the event that last touched a slot."""

    directions: np.ndarray  # int8 [U S D], the largest coordinate at 127
    lengths: np.ndarray  # float16 [U S]
    strength: np.ndarray  # float32 [U S]
    last: np.ndarray  # int32 [U S]
    near: np.ndarray  # int16 [U S]
    closeness: np.ndarray  # float16 [U S]
    waiting: np.ndarray  # int32 [U C], item rows
    num_waiting: np.ndarray  # int32 [U]
    folded: np.ndarray  # int32 [U], events that are in the slots

    @classmethod
    def empty(cls, num_users: int, dimensions: int, config: SlotsConfig) -> Self:
        shape = (num_users, config.num_slots(dimensions))
        return cls(
            directions=np.zeros((*shape, dimensions), np.int8),
            lengths=np.zeros(shape, np.float16),
            strength=np.zeros(shape, np.float32),
            last=np.zeros(shape, np.int32),
            near=np.zeros(shape, np.int16),
            closeness=np.full(shape, -np.inf, np.float16),
            waiting=np.zeros((num_users, config.block), np.int32),
            num_waiting=np.zeros(num_users, np.int32),
            folded=np.zeros(num_users, np.int32),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Slots:
    """A `FarMemory` of S prototypes a user."""

    name: ClassVar[str] = "slots"
    __slots__ = ("_codes", "_config", "_held", "_known", "_lock")

    def __init__(self, codes: Float32[np.ndarray, "N D"], config: SlotsConfig, held: _Held) -> None:
        self._codes, self._known = codes, usable(codes)
        self._config, self._held = config, held
        self._lock = threading.Lock()  # a reader copies, a writer publishes: neither sees half of the other's work

    @classmethod
    def empty(cls, num_users: int, codes: Float32[np.ndarray, "N D"], config: SlotsConfig | None = None) -> Self:
        config = config or SlotsConfig()
        return cls(codes, config, _Held.empty(num_users, codes.shape[1], config))

    def write(self, users: Int64[np.ndarray, " B"], histories: Histories) -> None:
        users, histories = to_write(users, histories, len(self._held.folded), self._known)
        size = max(1, WORK_BYTES // (4 * self._held.strength.shape[1] * max(self._codes.shape[1], 1)))
        for start in range(0, len(users), size):
            at = np.arange(start, min(start + size, len(users)))
            self._write(users[at], histories.take(at))

    def _write(self, users: np.ndarray, histories: Histories) -> None:
        config, held = self._config, self._held
        events, starts = _after_waiting(held.waiting[users], held.num_waiting[users], histories)
        lengths = np.diff(starts)
        blocks = lengths // config.block
        order = np.argsort(-blocks, kind="stable")
        folding = order[blocks[order] > 0]
        work = _Work.of(held, users[folding], config)
        for step in range(int(blocks.max(initial=0))):
            active = int(np.searchsorted(-blocks[folding], -step))
            at = starts[folding[:active], None] + step * config.block + np.arange(config.block)
            work.fold(active, events[at], self._codes)
        with self._lock:
            work.publish(held, users[folding])
            rest = lengths - blocks * config.block
            at = starts[:-1, None] + (blocks * config.block)[:, None] + np.arange(config.block)
            some = np.arange(config.block) < rest[:, None]
            held.waiting[users] = np.where(some, events[np.where(some, at, 0)], 0) if len(events) else 0
            held.num_waiting[users] = rest
            held.folded[users] += (blocks * config.block).astype(np.int32)

    def read(self, users: Int64[np.ndarray, " B"], queries: Float32[np.ndarray, "B Q D"], k: int = 1) -> Recalled:
        return nearest(*self._now(users), queries, k)

    def entries(self, users: Int64[np.ndarray, " B"], most: int) -> Recalled:
        return weightiest(*self._now(users), most)

    def _now(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(unit vectors, weight, age) of the slots and of the waiting events."""
        users, held = checked(users, len(self._held.folded)), self._held
        with self._lock:
            directions, strength, last = held.directions[users], held.strength[users], held.last[users]
            waiting, num_waiting, folded = held.waiting[users], held.num_waiting[users], held.folded[users]
        ages = (folded + num_waiting - 1)[:, None] - last
        places = np.arange(self._config.block)
        some = places < num_waiting[:, None]
        new = np.where(some[..., None], self._codes[waiting], np.float32(0.0)) if len(self._codes) else None
        slots = unit(directions.astype(np.float32))
        vectors = slots if new is None else np.concatenate([slots, new], axis=1)
        weight = np.concatenate([strength * _faded(ages, self._config), some], axis=1).astype(np.float32)
        age = np.concatenate([ages, (num_waiting - 1)[:, None] - places], axis=1).astype(np.float32)
        return vectors, weight[:, : vectors.shape[1]], age[:, : vectors.shape[1]]

    def size_bytes(self) -> Int64[np.ndarray, " U"]:
        num_users = len(self._held.folded)
        total = sum(array.nbytes for array in self._held.arrays().values())
        return np.full(num_users, total // max(num_users, 1), np.int64)

    def save(self, folder: Path) -> None:
        with self._lock:
            save_parts(folder, self.name, VERSION, self._codes, asdict(self._config), self._held.arrays())

    @classmethod
    def load(cls, folder: Path, codes: Float32[np.ndarray, "N D"]) -> Self:
        config, arrays = load_parts(folder, cls.name, VERSION, codes)
        return cls(codes, SlotsConfig(**config), _Held(**arrays))


def _faded(ages: np.ndarray, config: SlotsConfig) -> np.ndarray | np.float32:
    """What is left of a strength that was last touched so many events ago."""
    if config.half_life is None:
        return np.float32(1.0)
    return np.exp2(-ages / config.half_life).astype(np.float32)


def _after_waiting(waiting: np.ndarray, counts: np.ndarray, histories: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Each user's waiting events and the new ones after them: (rows, where each user's start)."""
    starts = np.concatenate([[0], np.cumsum(counts + histories.lengths)]).astype(np.int64)
    events = np.empty(starts[-1], np.int32)
    old = np.arange(waiting.shape[1]) < counts[:, None]
    events[(starts[:-1, None] + np.arange(waiting.shape[1]))[old]] = waiting[old]
    shift = np.repeat(starts[:-1] + counts - histories.indptr[:-1], histories.lengths)
    events[np.arange(histories.num_events) + shift] = histories.items
    return events, starts


def _distinct(items: Int32[np.ndarray, "A C"]) -> Float32[np.ndarray, "A C"]:
    """How often each item comes in its row, at its last place; 0 at the others."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    ends = np.ones(items.shape, bool)
    ends[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    at = np.flatnonzero(ends)
    counts = np.zeros(items.shape, np.float32)
    counts[at // items.shape[1], order.ravel()[at]] = np.diff(at, prepend=-1)
    return counts


class _Work:
    """The slots of the users of one write, in single precision, rounded at each step as they will be kept."""

    __slots__ = ("closeness", "config", "folded", "last", "lengths", "near", "strength", "units")

    def __init__(self, config: SlotsConfig, held: dict[str, np.ndarray]) -> None:
        self.config = config
        self.units = unit(held["directions"].astype(np.float32))
        self.lengths = held["lengths"].astype(np.float32)
        self.strength, self.last, self.near = held["strength"], held["last"], held["near"]
        self.closeness, self.folded = held["closeness"].astype(np.float32), held["folded"]

    @classmethod
    def of(cls, held: _Held, users: np.ndarray, config: SlotsConfig) -> Self:
        return cls(config, {name: array[users] for name, array in held.arrays().items()})

    def publish(self, held: _Held, users: np.ndarray) -> None:
        held.directions[users], held.lengths[users] = _eighths(self.units), self.lengths
        held.strength[users] = self.strength
        held.last[users], held.near[users], held.closeness[users] = self.last, self.near, self.closeness

    def fold(self, active: int, items: Int32[np.ndarray, "A C"], codes: Float32[np.ndarray, "N D"]) -> None:
        """One block of the first `active` users."""
        counts, events = _distinct(items), codes[items]
        cosine = events @ self.units[:active].transpose(0, 2, 1)
        slot = cosine.argmax(axis=2)
        best = np.take_along_axis(cosine, slot[..., None], axis=2)[..., 0]
        sure = (counts > 0) & (best >= self._limit(active)[:, None])
        if sure.any():
            self._add(sure, slot, counts, events)
            self._refresh(np.arange(active), slot)
        self._others((counts > 0) & ~sure, counts, events)
        self.folded[:active] += items.shape[1]

    def _limit(self, active: int) -> Float32[np.ndarray, " A"]:
        """The cosine from which an event joins a slot: `threshold`, or where all are taken that of the closest pair."""
        limit = np.full(active, self.config.threshold, np.float32)
        full = np.flatnonzero((self.strength[:active] > 0).all(axis=1))
        if len(full):
            limit[full] = np.minimum(limit[full], self._closest(full)[2])
        return limit

    def _add(self, sure: np.ndarray, slot: np.ndarray, counts: np.ndarray, events: np.ndarray) -> None:
        """Adds up what each slot takes of this block, and moves it once."""
        user, place = np.nonzero(sure)
        num_slots = self.strength.shape[1]
        key = user * num_slots + slot[user, place]
        order = np.argsort(key, kind="stable")
        user, place, key = user[order], place[order], key[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        count = counts[user, place]
        num = np.add.reduceat(count, first)
        mean = np.add.reduceat(events[user, place] * count[:, None], first) / num[:, None]
        at = np.maximum.reduceat(place, first)
        self._move(user[first], key[first] % num_slots, mean, num, at)

    def _vectors(self, user: np.ndarray, slot: np.ndarray) -> Float32[np.ndarray, "*any D"]:
        return np.asarray(self.units[user, slot] * self.lengths[user, slot][..., None], np.float32)

    def _move(self, user: np.ndarray, slot: np.ndarray, event: np.ndarray, num: np.ndarray, place: np.ndarray) -> None:
        """`num` events, `event` on average, the last of them at `place` of the block, are more of what slots hold."""
        time = self.folded[user] + place
        strength = self.strength[user, slot] * _faded(time - self.last[user, slot], self.config) + num
        step = num / strength
        if self.config.rule == "delta":
            step = np.maximum(step, 1.0 - (1.0 - self.config.rate) ** num)
        old = self._vectors(user, slot)
        self._put(user, slot, old + step[:, None] * (event - old), strength, time)

    def _put(
        self, user: np.ndarray, slot: np.ndarray, vector: np.ndarray, strength: np.ndarray, time: np.ndarray
    ) -> None:
        self.units[user, slot] = unit(_eighths(vector).astype(np.float32))
        self.lengths[user, slot] = _halved(np.sqrt(np.einsum("rd,rd->r", vector, vector)))
        self.strength[user, slot], self.last[user, slot] = strength, time

    def _others(self, left: Bool[np.ndarray, "A C"], counts: np.ndarray, events: np.ndarray) -> None:
        """Events that no slot took: one a user and round, for each may take a slot that the next one finds."""
        pending = left.sum(axis=1)
        order = np.argsort(~left, axis=1, kind="stable")
        for step in range(int(pending.max(initial=0))):
            user = np.flatnonzero(pending > step)
            place = order[user, step]
            self._place(user, events[user, place], counts[user, place], place)

    def _place(self, user: np.ndarray, event: np.ndarray, num: np.ndarray, place: np.ndarray) -> None:
        cosine = (self.units[user] @ event[:, :, None])[..., 0]
        slot = cosine.argmax(axis=1)
        best = cosine[np.arange(len(user)), slot]
        free = self.strength[user] == 0
        limit = np.full(len(user), self.config.threshold, np.float32)
        full = np.flatnonzero((best < limit) & ~free.any(axis=1))
        keep, give, limit[full] = self._pairs(user, full, limit)
        joins = best >= limit
        some = np.flatnonzero(joins)
        self._move(user[some], slot[some], event[some], num[some], place[some])
        merging = full[~joins[full]]
        self._merge(user[merging], keep[merging], give[merging])
        new = np.flatnonzero(~joins)
        target = np.where(free.any(axis=1), free.argmax(axis=1), give)[new]
        self._put(user[new], target, event[new], num[new], self.folded[user[new]] + place[new])
        slot[new] = target
        self._refresh(user, np.stack([slot, np.where(joins, slot, keep)], axis=1))

    def _pairs(
        self, user: np.ndarray, full: np.ndarray, limit: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The closest pair of users user[full], in rows of `user`: (one [R], the other [R], their cosine [full])."""
        keep, give = np.zeros(len(user), np.int64), np.zeros(len(user), np.int64)
        if len(full) == 0:
            return keep, give, limit[full]
        keep[full], give[full], closeness = self._closest(user[full])
        return keep, give, np.minimum(limit[full], closeness)

    def _merge(self, user: np.ndarray, keep: np.ndarray, give: np.ndarray) -> None:
        """Slots `keep` become what they and slots `give` were."""
        both = np.stack([keep, give])
        last = self.last[user, both]
        time = last.max(axis=0)
        strengths = self.strength[user, both] * _faded(time - last, self.config)
        share = strengths**self.config.merge_power
        share /= share.sum(axis=0)
        vector = (share[..., None] * self._vectors(user, both)).sum(axis=0)
        self._put(user, keep, vector, strengths.sum(axis=0), time)

    def _closest(self, user: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(slot, its nearest other, their cosine) of the closest pair of each user whose slots are all taken.

        `closeness` only bounds the truth from above, since a slot's nearest may have moved away: look at the largest,
        work it out, and look again if it was not true.
        """
        left = np.arange(len(user))
        while len(left):
            asked = user[left]
            top = self.closeness[asked].argmax(axis=1)
            bound = self.closeness[asked, top]
            self._work_out(asked, top[:, None])
            left = left[self.closeness[asked, top] < bound - STALE]
        rows = np.arange(len(user))
        one = self.closeness[user].argmax(axis=1)
        return one, self.near[user, one].astype(np.int64), self.closeness[user][rows, one]

    def _refresh(self, user: np.ndarray, slots: np.ndarray) -> None:
        """The nearest others of slots that moved, and of those that they moved close to."""
        cosine = self._work_out(user, slots)
        by = cosine.argmax(axis=1)
        pushed = np.take_along_axis(cosine, by[:, None], axis=1)[:, 0]
        at, slot = np.nonzero(pushed > self.closeness[user])
        self.closeness[user[at], slot] = _halved(pushed[at, slot])
        self.near[user[at], slot] = slots[at, by[at, slot]]

    def _work_out(self, user: np.ndarray, slots: np.ndarray) -> Float32[np.ndarray, "R X S"]:
        """Sets `near` and `closeness` of slots [R, X]; returns their cosines [R, X, S] with others, -inf for none."""
        rows = user[:, None]
        units = self.units[user]
        cosine: np.ndarray = units[np.arange(len(user))[:, None], slots] @ units.transpose(0, 2, 1)
        taken = self.strength[user] > 0
        cosine += np.where(taken, 0.0, -np.inf).astype(np.float32)[:, None, :]
        np.put_along_axis(cosine, slots[..., None], -np.inf, axis=2)
        cosine[~np.take_along_axis(taken, slots, axis=1)] = -np.inf
        near = cosine.argmax(axis=2)
        self.near[rows, slots] = near
        self.closeness[rows, slots] = _halved(np.take_along_axis(cosine, near[..., None], axis=2)[..., 0])
        return cosine


def _eighths(vectors: Float32[np.ndarray, "*any D"]) -> Int8[np.ndarray, "*any D"]:
    """Directions in eight bits: the same again for what came from them."""
    largest = np.abs(vectors).max(axis=-1, initial=0.0)[..., None]
    return np.rint(vectors * (127.0 / np.where(largest > 0.0, largest, 1.0))).astype(np.int8)


def _halved(cosine: np.ndarray) -> np.ndarray:
    """As half precision will keep it."""
    return np.asarray(cosine.astype(np.float16), np.float32)
