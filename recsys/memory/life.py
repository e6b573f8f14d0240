"""Life: a pyramid of means; what just happened event by event, yesterday by session, last year by era, and all in one.

The latest events are kept as they are. Events make sessions, which end with a pause or when they are full; `fan`
sessions make a segment, `fan` segments an era, and so on; each level keeps its last `keep` means and forgets older
ones, which live on in the levels above. So what is k times as old is remembered k times as coarsely, and a life of any
length takes levels * keep means (the exponential histogram of Datar et al. 2002, "Maintaining stream statistics over
sliding windows", with overlapping spans). One mean of everything stands above all.

A part that is still growing is an entry too. Which events make a part depends on the events alone, not on how they were
written.

Cost: a write O(D) an event, a read O((recent + levels * keep) D) a query. Bytes a user: levels keep (2 D + 8) +
(levels + 1) (8 D + 12) + 4 recent + 8; with the defaults 25 KiB at 64 dimensions and 49 KiB at 128.

Letters: U users, B users of a batch, L events of one user, X levels, G means kept a level, R recent events, Q queries a
user, N items, D dimensions.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Float32, Int64

from recsys.data.histories import Histories
from recsys.errors import InvalidInput
from recsys.memory.far import Recalled, checked, load_parts, nearest, save_parts, to_write, unit, usable, weightiest

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeConfig:
    """`pause_s`: a longer time between two events ends a session, where times are in seconds; `session`: so do that
    many events. `levels` of `keep` means each reach back session * fan^(levels - 1) * keep events: two million."""

    recent: int = 64
    session: int = 16
    pause_s: float = 1_800.0
    fan: int = 8
    levels: int = 5
    keep: int = 32

    def __post_init__(self) -> None:
        for name, least in (("recent", 0), ("session", 1), ("fan", 2), ("levels", 1), ("keep", 1)):
            if getattr(self, name) < least:
                raise InvalidInput.of(name, getattr(self, name), f"at least {least}")
        if not self.pause_s > 0.0:
            raise InvalidInput.of("pause_s", self.pause_s, "above 0")


@dataclass(frozen=True, slots=True)
class _Held:
    """All that is kept, a row a user. `sums`, `counts`, `parts`: of what grows at each level, the last is the life."""

    means: np.ndarray  # float16 [U X G D], a ring
    weights: np.ndarray  # int32 [U X G], events behind each mean, 0: none
    ends: np.ndarray  # int32 [U X G], the place of each one's last event
    made: np.ndarray  # int32 [U X], how many means were ever made
    sums: np.ndarray  # float64 [U X+1 D]
    counts: np.ndarray  # int32 [U X+1], events behind the sum
    parts: np.ndarray  # int32 [U X], parts in the sum
    recent: np.ndarray  # int32 [U R], item rows, a ring
    num_events: np.ndarray  # int32 [U]
    last_time: np.ndarray  # float64 [U]

    @classmethod
    def empty(cls, num_users: int, dimensions: int, config: LifeConfig) -> Self:
        ring = (num_users, config.levels, config.keep)
        return cls(
            means=np.zeros((*ring, dimensions), np.float16),
            weights=np.zeros(ring, np.int32),
            ends=np.zeros(ring, np.int32),
            made=np.zeros(ring[:2], np.int32),
            sums=np.zeros((num_users, config.levels + 1, dimensions), np.float64),
            counts=np.zeros((num_users, config.levels + 1), np.int32),
            parts=np.zeros(ring[:2], np.int32),
            recent=np.zeros((num_users, config.recent), np.int32),
            num_events=np.zeros(num_users, np.int32),
            last_time=np.full(num_users, np.nan),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class _Parts:
    """A row of finished parts: `sums` [L, D] of their events' codes, how many events, and the place of the last."""

    sums: np.ndarray
    counts: np.ndarray
    ends: np.ndarray

    def grouped(self, starts: np.ndarray) -> _Parts:
        """Groups that begin at `starts`, the first at 0."""
        last = np.append(starts[1:], len(self.counts)) - 1
        return _Parts(np.add.reduceat(self.sums, starts), np.add.reduceat(self.counts, starts), self.ends[last])

    def __getitem__(self, at: slice) -> _Parts:
        return _Parts(self.sums[at], self.counts[at], self.ends[at])


class Life:
    """A `FarMemory` of means over ever longer spans."""

    name: ClassVar[str] = "life"
    __slots__ = ("_codes", "_config", "_held", "_known", "_lock")

    def __init__(self, codes: Float32[np.ndarray, "N D"], config: LifeConfig, held: _Held) -> None:
        self._codes, self._known = codes, usable(codes)
        self._config, self._held = config, held
        self._lock = threading.Lock()  # a reader copies, the writer changes one user at a time

    @classmethod
    def empty(cls, num_users: int, codes: Float32[np.ndarray, "N D"], config: LifeConfig | None = None) -> Self:
        config = config or LifeConfig()
        return cls(codes, config, _Held.empty(num_users, codes.shape[1], config))

    def write(self, users: Int64[np.ndarray, " B"], histories: Histories) -> None:
        users, histories = to_write(users, histories, len(self._held.num_events), self._known)
        for row, user in enumerate(users):
            if histories.lengths[row]:
                with self._lock:
                    self._write(int(user), histories.of(row))

    def _write(self, user: int, history: Histories) -> None:
        held, num_new = self._held, history.num_events
        places = held.num_events[user] + np.arange(num_new)
        parts = _Parts(self._codes[history.items].astype(np.float64), np.ones(num_new, np.int32), places)
        held.sums[user, -1] += parts.sums.sum(axis=0)
        held.counts[user, -1] += num_new
        begins, in_session = self._sessions(user, history)
        parts = self._close(user, 0, parts, begins, in_session)
        for level in range(1, self._config.levels):
            number = held.parts[user, level] + np.arange(len(parts.counts))
            # A group is done with its last part, so the next one begins a new group.
            grown = (number[-1] % self._config.fan + 1) if len(number) else held.parts[user, level]
            parts = self._close(user, level, parts, number % self._config.fan == 0, int(grown))
        if self._config.recent:
            newest = slice(-self._config.recent, None)
            held.recent[user, places[newest] % self._config.recent] = history.items[newest]
        held.num_events[user] += num_new
        held.last_time[user] = history.times[-1]

    def _sessions(self, user: int, history: Histories) -> tuple[np.ndarray, int]:
        """(which events begin a session, how many events the last session has)."""
        config, held = self._config, self._held
        paused = np.zeros(history.num_events, bool)
        if history.clock != "position":
            paused = np.diff(history.times, prepend=held.last_time[user]) > config.pause_s
        # Places in the session as if it could not be full, counted on from what has been written.
        at = np.arange(history.num_events)
        since = np.maximum.accumulate(np.where(paused, at, -1))
        within = np.where(since >= 0, at - since, at + held.parts[user, 0])
        begins = within % config.session == 0
        return begins, int(within[-1] % config.session + 1)

    def _close(self, user: int, level: int, parts: _Parts, begins: np.ndarray, grown: int) -> _Parts:
        """Adds parts to what grows at a level; returns the sums of what was finished. A part that `begins` ends it."""
        held = self._held
        starts = np.flatnonzero(begins)
        if len(parts.counts) == 0:
            return parts
        groups = parts.grouped(np.union1d(starts, [0]))
        if not begins[0] or held.counts[user, level] == 0:
            groups.sums[0] += held.sums[user, level]
            groups.counts[0] += held.counts[user, level]
            done = groups[:-1]
        else:
            end = parts.ends[0] - parts.counts[0]
            old = _Parts(held.sums[user, level][None], held.counts[user, level][None], np.array([end]))
            done = _joined(old, groups[:-1])
        held.sums[user, level], held.counts[user, level] = groups.sums[-1], groups.counts[-1]
        held.parts[user, level] = grown
        self._keep(user, level, done)
        return done

    def _keep(self, user: int, level: int, done: _Parts) -> None:
        held, keep = self._held, self._config.keep
        at = (held.made[user, level] + np.arange(len(done.counts)))[-keep:] % keep
        newest = done[slice(-keep, None)]
        held.means[user, level, at] = newest.sums / newest.counts[:, None]
        held.weights[user, level, at], held.ends[user, level, at] = newest.counts, newest.ends
        held.made[user, level] += len(done.counts)

    def read(self, users: Int64[np.ndarray, " B"], queries: Float32[np.ndarray, "B Q D"], k: int = 1) -> Recalled:
        return nearest(*self._now(users), queries, k)

    def entries(self, users: Int64[np.ndarray, " B"], most: int) -> Recalled:
        return weightiest(*self._now(users), most)

    def _now(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(unit vectors, weight, age) of the means kept, of what grows, and of the recent events."""
        users = checked(users, len(self._held.num_events))
        with self._lock:
            held = _Held(**{name: array[users] for name, array in self._held.arrays().items()})
        num_users, dimensions = len(users), self._codes.shape[1]
        events = held.num_events[:, None]
        back = (events - 1 - np.arange(self._config.recent)) if self._config.recent else np.zeros((num_users, 0), int)
        some = back >= 0
        rows = np.take_along_axis(held.recent, np.where(some, back % max(self._config.recent, 1), 0), axis=1)
        recent = self._codes[rows] if len(self._codes) else np.zeros((*rows.shape, dimensions), np.float32)
        num_means = self._config.levels * self._config.keep
        means = held.means.reshape(num_users, num_means, dimensions).astype(np.float32)
        vectors = np.concatenate([unit(means), unit(held.sums.astype(np.float32)), recent], axis=1)
        weight = np.concatenate([held.weights.reshape(num_users, num_means), held.counts, some], axis=1)
        # What grows was touched by the event that came last, or at a higher level by the last part that was finished.
        ages = np.concatenate(
            [events - 1 - held.ends.reshape(num_users, num_means), self._growing_ages(held), events - 1 - back], 1
        )
        return vectors, weight.astype(np.float32), ages.astype(np.float32)

    @staticmethod
    def _growing_ages(held: _Held) -> np.ndarray:
        """Events since each growing part was touched: those that still wait in the levels below it."""
        waiting = np.cumsum(held.counts[:, :-1], axis=1)
        ages = np.zeros(held.counts.shape, np.int64)
        ages[:, 1:-1] = waiting[:, :-1]
        return ages

    def size_bytes(self) -> Int64[np.ndarray, " U"]:
        num_users = len(self._held.num_events)
        total = sum(array.nbytes for array in self._held.arrays().values())
        return np.full(num_users, total // max(num_users, 1), np.int64)

    def save(self, folder: Path) -> None:
        with self._lock:
            save_parts(folder, self.name, VERSION, self._codes, asdict(self._config), self._held.arrays())

    @classmethod
    def load(cls, folder: Path, codes: Float32[np.ndarray, "N D"]) -> Self:
        config, arrays = load_parts(folder, cls.name, VERSION, codes)
        return cls(codes, LifeConfig(**config), _Held(**arrays))


def _joined(one: _Parts, other: _Parts) -> _Parts:
    pairs = ((one.sums, other.sums), (one.counts, other.counts), (one.ends, other.ends))
    return _Parts(*(np.concatenate(pair) for pair in pairs))
