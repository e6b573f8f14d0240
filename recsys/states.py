"""From who asks to a state: what the snapshot remembers of a user, then the events that came since."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recsys.data.histories import Clock, Histories, histories_from_events
from recsys.encode.items import ItemTable
from recsys.match import States
from recsys.model import Model
from recsys.types import Event, User
from recsys.watch import staged

WEEK_S = 7 * 86_400.0
_MAX_TYPE = 2**15 - 1


@staged("state")
def user_state(model: Model, items: ItemTable, user: User) -> States:
    """The state of one user (B = 1); events about items that nobody has described yet are left out."""
    histories = history_of(model, items, user).without_types(model.settings.ignored_types)
    return States(histories=histories, now=np.array([time_of(model, histories, user)]), items=items)


def history_of(model: Model, items: ItemTable, user: User) -> Histories:
    """One history (B = 1): what the snapshot holds of the user and the events that came since, of whatever type."""
    past = remembered(model, user)
    fresh = [event for event in news(model, past, user) if items.catalogue.ids.get(event.item_id) is not None]
    return _joined(past, fresh, items, model.settings.ignored_types) if fresh else past


def without_each(states: States, places: Sequence[int]) -> States:
    """The one state (B = 1) once for each of `places`, with the event at that place of its history left out."""
    whole = states.histories.take(np.zeros(len(places), np.int64))
    left = np.ones(whole.num_events, bool)
    left[whole.indptr[:-1] + np.asarray(places)] = False
    return States(histories=whole.keep(left), now=np.repeat(states.now, len(places)), items=states.items)


def remembered(model: Model, user: User) -> Histories:
    """What the snapshot holds of the user, one history, empty for the unknown."""
    row = None if user.replace_history else model.users.get(user.user_id)
    if row is None:
        return replace(model.histories.take(np.array([], np.int64)), indptr=np.zeros(2, np.int64))
    return model.histories.of(row)


def news(model: Model, past: Histories, user: User) -> list[Event]:
    """The user's events that the snapshot does not hold: one known by item and time is not counted twice.

    A store may hold what a snapshot was trained on, because both were filled from the same files.
    """
    if past.clock != "timestamp" or past.num_events == 0:
        return list(user.events)
    held = set(zip(past.items.tolist(), past.times.tolist(), strict=True)) if user.events else set()
    ids = model.items.catalogue.ids
    return [event for event in user.events if (ids.get(event.item_id), event.timestamp) not in held]


def _joined(past: Histories, events: Sequence[Event], items: ItemTable, ignored: Sequence[str]) -> Histories:
    types = {
        name: code for code, name in enumerate(dict.fromkeys([*past.event_types, *(e.event_type for e in events)]))
    }
    # Types are 16-bit numbers; beyond 32,767 of one user the rest share the last.
    codes = [min(types[event.event_type], _MAX_TYPE) for event in events]
    values = [np.nan if event.value is None else event.value for event in events]
    baskets = {event.session_id: n for n, event in enumerate(events) if event.session_id}
    offset = int(past.baskets.max(initial=-1)) + 1
    rows = items.catalogue.ids.rows([event.item_id for event in events])
    return histories_from_events(
        np.zeros(past.num_events + len(events), np.int32),
        np.concatenate([past.items, rows]),
        np.concatenate([past.times, _times(past, events)]),
        num_users=1,
        event_types=tuple(types)[: _MAX_TYPE + 1],
        clock=past.clock,
        types=np.concatenate([past.types, codes]).astype(np.int16),
        values=np.concatenate([past.values, values]).astype(np.float32),
        baskets=np.concatenate(
            [past.baskets, [offset + baskets[e.session_id] if e.session_id else -1 for e in events]]
        ).astype(np.int32),
    )


def _times(past: Histories, events: Sequence[Event]) -> np.ndarray:
    """Times on the clock of the past. Without an absolute clock new events simply come after it, in their order."""
    if past.clock == "timestamp":
        given = [event.timestamp for event in events]
        return np.array([time.time() if t is None else t for t in given])
    order = np.argsort([0.0 if e.timestamp is None else e.timestamp for e in events], kind="stable")
    last = float(past.times[-1]) if past.num_events else -1.0
    out = np.empty(len(events))
    out[order] = last + 1.0 + np.arange(len(events))
    return out


def time_of(model: Model, histories: Histories, user: User) -> float:
    """The time of the question; the last event's where none is given or the clock is not absolute.

    At most a week after the newest event known: what a model learnt of time ends there, and asking an archive of 2016
    as of today would only push every gap beyond all that its ranker has seen.
    """
    own = float(histories.times[-1]) if histories.num_events else -np.inf
    newest = max(own, model.last_s)
    if histories.clock != "timestamp" or not np.isfinite(newest):
        return own if np.isfinite(own) else 0.0
    if user.now is not None:
        return min(user.now, newest + WEEK_S)
    return own if np.isfinite(own) else newest


def events_of(histories: Histories, items: ItemTable, user_id: str) -> list[Event]:
    """One history (B = 1) as events, oldest first."""
    absolute: Clock = "timestamp"
    return [
        Event(
            user_id=user_id,
            item_id=items.item(int(item)).item_id,
            event_type=histories.event_types[kind],
            timestamp=float(at) if histories.clock == absolute else None,
            value=None if np.isnan(value) else float(value),
            session_id="" if basket < 0 else str(basket),
        )
        for item, kind, at, value, basket in zip(
            histories.items, histories.types, histories.times, histories.values, histories.baskets, strict=True
        )
    ]
