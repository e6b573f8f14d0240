"""Users as the server keeps them: a bounded summary of each life, grown by the events that come, never read again.

What is kept of a life is its latest events, what was met in it (`recsys.memory.meetings`) and, until its next event,
what matchers found for it (`recsys.flow.Kept`). Where room is short, what was found goes before lives do, that of users
asked for longest ago first. The store stays the truth: a life knows the number of the last stored event in it, and
every call brings what came later.

Letters: B users.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, overload

import numpy as np

from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.flow import Kept
from recsys.match import States
from recsys.memory.meetings import Meetings
from recsys.model import Model
from recsys.states import history_of, time_of
from recsys.types import Event, User
from recsys.watch import asked, staged

MAX_BYTES = 256 * 1024**2
"""Of all lives together, by default."""


class Journal(Protocol):
    """Where events are stored."""

    def numbered_events(self, user_id: str, *, after_seq: int = 0) -> list[tuple[int, Event]]:
        """(number, event) of a user, written after `after_seq`, in order of time."""
        ...


class Told(Sequence[Event]):
    """A user's events since a snapshot: those stored under numbers up to `upto_seq`, then `extra`.

    They are read when somebody looks at them; whoever knows the user's life up to some number asks for the `later`.
    """

    __slots__ = ("_read", "after_seq", "erased_seq", "extra", "journal", "upto_seq", "user_id")

    def __init__(
        self,
        journal: Journal,
        user_id: str,
        *,
        after_seq: int,
        upto_seq: int,
        erased_seq: int = 0,
        extra: Sequence[Event] = (),
    ) -> None:
        """`erased_seq`: the last erasure of any user; lives that were kept before it are read anew."""
        self.journal, self.user_id, self.extra = journal, user_id, tuple(extra)
        self.after_seq, self.upto_seq, self.erased_seq = after_seq, upto_seq, erased_seq
        self._read: tuple[Event, ...] | None = None

    def later(self, seq: int) -> tuple[Event, ...]:
        """The stored ones with numbers beyond `seq`."""
        seq = max(seq, self.after_seq)
        if seq >= self.upto_seq:
            return ()
        found = self.journal.numbered_events(self.user_id, after_seq=seq)
        return tuple(event for number, event in found if number <= self.upto_seq)

    @property
    def all(self) -> tuple[Event, ...]:
        """What it is a sequence of."""
        if self._read is None:
            self._read = (*self.later(self.after_seq), *self.extra)
        return self._read

    @property
    def num_held(self) -> int:
        """Events in memory."""
        return len(self.extra if self._read is None else self._read)

    def __len__(self) -> int:
        return len(self.all)

    @overload
    def __getitem__(self, at: int) -> Event: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Event]: ...
    def __getitem__(self, at: int | slice) -> Event | Sequence[Event]:
        return self.all[at]

    def __iter__(self) -> Iterator[Event]:
        return iter(self.all)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One user (B = 1) as of stored event `seq`.

    `latest`: the last events that speak. `next_s`: on a clock that only orders, the time of the next event. `told_s`:
    no event before this can be added at the end. `num_items`: items known when it was made, where some of its events
    were about others; else 0. `kept`: used and filled by `Flow.field`.
    """

    latest: Histories
    met: Meetings
    seq: int
    erased_seq: int
    next_s: float
    told_s: float
    num_items: int
    kept: Kept = field(default_factory=Kept)

    @property
    def size_bytes(self) -> int:
        columns = (self.latest.items, self.latest.times, self.latest.types, self.latest.values, self.latest.baskets)
        return self.met.size_bytes + sum(column.nbytes for column in columns) + self.kept.size_bytes


class Lives:
    """Lives of one model by user, at most `max_bytes` of them (and never fewer than the one at work)."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._lives: OrderedDict[str, tuple[Life, int]] = OrderedDict()
        self._found: OrderedDict[str, None] = OrderedDict()  # those of them for which matchers have found something
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._lives)

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @staged("state")
    def state(self, model: Model, items: ItemTable, user: User) -> tuple[States, Life]:
        """The state of one user (B = 1), as `recsys.states.user_state` finds it, and the life it is of."""
        told = user.events if isinstance(user.events, Told) else None
        if user.replace_history or not user.user_id or (told is None and len(user.events) > 0):
            life = _begun(model, items, user)
        else:
            life = self._caught_up(model, items, user, told)
            if told is not None and told.extra:
                life = _grown(model, items, life, told.extra, life.seq) or _begun(model, items, user)
        states = States(
            histories=life.latest, now=np.array([time_of(model, life.latest, user)]), items=items, met=life.met
        )
        return states, life

    def keep(self, user: User, life: Life) -> None:
        """Notes what `Flow.field` has added to a life that `state` gave for `user`."""
        key, size_bytes = _key(user), life.size_bytes
        with self._lock:
            held = self._lives.get(key)
            if held is not None and held[0] is life and held[1] != size_bytes:
                self._lives[key] = (life, size_bytes)
                self._size_bytes += size_bytes - held[1]
                self._found[key] = None
                self._drop_old()

    def _caught_up(self, model: Model, items: ItemTable, user: User, told: Told | None) -> Life:
        key = _key(user)
        with self._lock:
            life = self._lives[key][0] if key in self._lives else None
            if life is not None:
                self._lives.move_to_end(key)
                if key in self._found:
                    self._found.move_to_end(key)
        asked("lives", hits=int(life is not None), misses=int(life is None))
        upto_seq, erased_seq = (0, 0) if told is None else (told.upto_seq, told.erased_seq)
        grown = None
        if life is not None and life.num_items in (0, len(items)):
            if life.seq >= upto_seq:
                return life
            if life.erased_seq == erased_seq and told is not None:
                later = told.later(life.seq)
                grown = _grown(model, items, life, later, upto_seq) if later else replace(life, seq=upto_seq)
        if grown is None:
            whole = replace(user, events=() if told is None else told.later(0))
            grown = replace(_begun(model, items, whole), seq=upto_seq, erased_seq=erased_seq)
        if grown.met.lengths[0]:
            self._put(key, grown)
        return grown

    def _put(self, key: str, life: Life) -> None:
        size_bytes = life.size_bytes
        with self._lock:
            held = self._lives.pop(key, None)
            if held is not None and held[0].seq > life.seq:
                life, size_bytes, held = held[0], held[1], (life, held[1])  # another call has seen more
            self._lives[key] = (life, size_bytes)
            self._size_bytes += size_bytes - (held[1] if held else 0)
            self._drop_old()

    def _drop_old(self) -> None:
        """What was found for the users asked for longest ago goes before any life does: it can be found again by what
        is in memory."""
        while self._size_bytes > self._max_bytes and len(self._found) > 1:
            key = self._found.popitem(last=False)[0]
            if key in self._lives:
                life, size_bytes = self._lives[key]
                life.kept.clear()
                self._lives[key] = (life, life.size_bytes)
                self._size_bytes += self._lives[key][1] - size_bytes
        while self._size_bytes > self._max_bytes and len(self._lives) > 1:
            key, (_, size_bytes) = self._lives.popitem(last=False)
            self._found.pop(key, None)
            self._size_bytes -= size_bytes


def _key(user: User) -> str:
    """A life with stored events is another one than that without."""
    return user.user_id if isinstance(user.events, Told) else f"\0{user.user_id}"


def _begun(model: Model, items: ItemTable, user: User) -> Life:
    """A life read whole."""
    whole = history_of(model, items, user)
    spoken = whole.without_types(model.settings.ignored_types)
    known = items.catalogue.ids
    unknown = any(known.get(event.item_id) is None for event in user.events)
    stamps = [event.timestamp for event in user.events if event.timestamp is not None]
    last_s = float(whole.times[-1]) if whole.num_events else -np.inf
    return Life(
        latest=spoken.last(model.flow.latest) if spoken.num_events > model.flow.latest else spoken,
        met=Meetings.of(spoken),
        seq=0,
        erased_seq=0,
        next_s=last_s + 1.0 if whole.num_events else 0.0,
        told_s=last_s if whole.clock == "timestamp" else max(stamps, default=-np.inf),
        num_items=len(items) if unknown else 0,
    )


def _grown(model: Model, items: ItemTable, life: Life, events: Sequence[Event], seq: int) -> Life | None:
    """The life after some more events; None where that cannot be told without reading all of it."""
    absolute = life.latest.clock == "timestamp"
    known = [(items.catalogue.ids.get(event.item_id), event) for event in events]
    if any(row is None or event.timestamp is None for row, event in known):
        return None
    stamps = [event.timestamp or 0.0 for event in events]
    order = np.argsort(stamps, kind="stable")
    if stamps[order[0]] < life.told_s:
        return None
    if absolute and stamps[order[0]] == life.told_s:
        return None  # it might be the last event, told again
    types = {name: code for code, name in enumerate(life.latest.event_types)}
    if any(event.event_type not in types for event in events):
        return None
    times = np.array(stamps)[order] if absolute else life.next_s + np.arange(len(events))
    ignored = model.settings.ignored_types
    speaks = np.array([events[at].event_type not in ignored for at in order])
    rows = np.array([known[at][0] for at in order], np.int32)[speaks]
    values = [events[at].value for at in order]
    fresh = replace(
        life.latest,
        indptr=np.array([0, len(rows)]),
        items=rows,
        times=times[speaks],
        types=np.array([types[events[at].event_type] for at in order], np.int16)[speaks],
        values=np.array([np.nan if value is None else value for value in values], np.float32)[speaks],
        baskets=np.full(len(rows), -1, np.int32),
    )
    return Life(
        latest=_then(life.latest, fresh, model.flow.latest),
        met=life.met.then(rows, times[speaks]),
        seq=seq,
        erased_seq=life.erased_seq,
        next_s=float(times[-1]) + 1.0,
        told_s=stamps[order[-1]],
        num_items=life.num_items,
    )


def _then(past: Histories, fresh: Histories, most: int) -> Histories:
    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(past, name), getattr(fresh, name)])[-most:]

    items = joined("items")
    return replace(
        past,
        indptr=np.array([0, len(items)]),
        items=items,
        times=joined("times"),
        types=joined("types"),
        values=joined("values"),
        baskets=joined("baskets"),
    )
