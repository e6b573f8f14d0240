"""Time-ordered stages: what may be remembered, and what is asked of that memory. No stage remembers what it is asked.

Leave-one-out (LOO): a user's last event is the test, the one before it validation, earlier ones train the ranker.
Global time split (GTS): everything before a moment is remembered; baskets after it are asked in order of time, while
the asking user's own events, and everybody's popularity, go on being written as they pass.

Letters: U users, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.errors import InvalidInput
from recsys.flow import states_of
from recsys.match import States
from recsys.train.examples import Queries

DAY_S = 86_400.0
_ADVICE = "ask for fewer days, or for the leave-one-out protocol, which needs no span of time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`memory`: what matchers are fitted on. `passing`: the same and the events that go by while it is asked; whoever
    reads them must look at those before the time of the query only. Of each query [Q]: the row of its user, and the
    time and type of its (first) target, which no model sees: reports are sliced by them."""

    memory: Histories
    passing: Histories
    queries: Queries
    users: np.ndarray
    target_times: np.ndarray
    target_types: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """`include_seen`: whether items the user has met may be proposed again."""

    train: Stage
    validation: Stage
    test: Stage
    include_seen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """At most so many queries a stage, drawn at random; None takes all. On Amazon Beauty 22,300 ranker queries instead
    of 12,000 gain 1 % on validation.

    `test_days`, `validation_days`: of a global time split; None takes 56 and 28, or what the data has room for.
    """

    train_queries: int = 24_000
    validation_queries: int | None = 6_000
    test_queries: int | None = None
    test_days: float | None = None
    validation_days: float | None = None
    with_validation: bool = False
    seed: int = 0


def leave_one_out_stages(histories: Histories, items: ItemTable, config: StageConfig) -> Stages:
    """LOO: every user of at least 2 events is asked the test, of 3 also validation, of 4 also the ranker's questions.

    The ranker trains on the third-last event, where users are few also on earlier ones, always with memories that end
    before the earliest of them. The variant that papers call "train" asks the test of the same memory as validation;
    with `with_validation` the memory of the test holds the validation events.
    """
    users = int((histories.lengths >= 5).sum())
    # One event of a user is worth more than two of half as many: each step back takes an event from the memory.
    depth = int(np.clip(-(-config.train_queries // max(2 * users, 1)), 1, 3))
    validation_memory = histories.drop_last(2)
    test_memory = histories.drop_last(1) if config.with_validation else validation_memory

    def stage(memory: Histories, moments: np.ndarray, limit: int | None) -> Stage:
        first = _sample(moments, limit, config.seed)
        if len(first) == 0:
            raise InvalidInput.of("events", histories.num_events, "leave-one-out needs users of at least 4 events")
        return _stage(memory, histories, items, first, np.ones(len(first), np.int64))

    train = np.concatenate([_moments(histories, 3 + back) for back in range(depth)])
    return Stages(
        train=stage(histories.drop_last(2 + depth), train, config.train_queries),
        validation=stage(validation_memory, _moments(histories, 2), config.validation_queries),
        test=stage(test_memory, _moments(histories, 1), config.test_queries),
        include_seen=False,
    )


def global_time_stages(histories: Histories, items: ItemTable, config: StageConfig, ignored: tuple[str, ...]) -> Stages:
    """GTS: test = the last `test_days`, validation = the `validation_days` before, and before that the ranker trains on
    as many days as the test has. Targets are the distinct items of a basket (events of one user at one time)."""
    if histories.clock != "timestamp":
        raise InvalidInput.of("clock", histories.clock, "a global time split needs events with timestamps")
    told = histories.without_types(ignored)
    if told.num_events == 0:
        raise InvalidInput.of("events", 0, f"none is left without the types {', '.join(ignored)}")
    train, validation, test, end = _cuts(told.times, config)

    def stage(name: str, start: float, stop: float, limit: int | None) -> Stage:
        return _span(told, items, name, start, stop, limit, seed=config.seed)

    return Stages(
        train=stage("train", train, validation, config.train_queries),
        validation=stage("validation", validation, test, config.validation_queries),
        test=stage("test", test, end, config.test_queries),
        include_seen=repeats(told),
    )


def repeats(histories: Histories) -> bool:
    """Whether users of this data take the same item again: more than 1 % of the events, one basket counted once."""
    cells = np.stack([histories.users, histories.items, histories.times], axis=1)
    met = np.unique(cells, axis=0)
    pairs = np.unique(met[:, :2], axis=0)
    return len(met) - len(pairs) > 0.01 * max(len(met), 1)


def _moments(histories: Histories, back: int) -> np.ndarray:
    """Event positions `back` from the end of each history that has something before them."""
    return histories.indptr[1:][histories.lengths > back] - back


def _stage(
    memory: Histories,
    histories: Histories,
    items: ItemTable,
    first: np.ndarray,
    sizes: np.ndarray,
    *,
    passing: Histories | None = None,
    now: np.ndarray | None = None,
) -> Stage:
    """Ask for `sizes[q]` events from position `first[q]` on, given what came before them in the same history."""
    users = histories.users[first]
    past = histories.prefixes(users, first - histories.indptr[users])
    states = states_of(past, items) if now is None else States(histories=past, now=now, items=items)
    targets = [np.unique(histories.items[at : at + size]) for at, size in zip(first, sizes, strict=True)]
    indptr = np.concatenate([[0], np.cumsum([len(t) for t in targets])]).astype(np.int64)
    return Stage(
        memory=memory,
        passing=memory if passing is None else passing,
        queries=Queries(states=states, indptr=indptr, targets=np.concatenate(targets)),
        users=users,
        target_times=histories.times[first],
        target_types=histories.types[first],
    )


def _sample(moments: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """At most `limit` of the moments, in their order."""
    if limit is None or len(moments) <= limit:
        return moments
    return np.sort(np.random.default_rng(seed).choice(moments, limit, replace=False))


def _cuts(times: Float64[np.ndarray, " E"], config: StageConfig) -> tuple[float, float, float, float]:
    """Where train, validation and test begin, and where the test ends.

    Left to itself it takes days; where that leaves a stage with hardly an event (a log with gaps, a short one) it cuts
    by events instead: the last tenth is the test, the twentieth before it validation, the tenth before that train.
    """
    end = float(times.max()) + 1.0
    room = max((end - float(times.min())) / DAY_S / 5, 1e-3)
    test_days = min(56.0, room) if config.test_days is None else config.test_days
    test = end - test_days * DAY_S
    validation = test - (test_days / 2 if config.validation_days is None else config.validation_days) * DAY_S
    days = (validation - test_days * DAY_S, validation, test, end)
    held = np.histogram(times, days)[0]
    if config.test_days is None and config.validation_days is None and held.min() < 0.005 * len(times):
        train, validation, test = np.quantile(times, [0.75, 0.85, 0.9])
        return float(train), float(validation), float(test), end
    return days


def _span(
    histories: Histories, items: ItemTable, name: str, start: float, end: float, limit: int | None, *, seed: int
) -> Stage:
    """The baskets of [start, end), each asked of the user's events before it and a memory that ends at `start`."""
    owner, times = histories.users, histories.times
    fresh = np.ones(histories.num_events, bool)
    fresh[1:] = (owner[1:] != owner[:-1]) | (times[1:] != times[:-1])
    starts = np.flatnonzero(fresh)
    sizes = np.diff(np.append(starts, histories.num_events))
    inside = np.flatnonzero((times[starts] >= start) & (times[starts] < end))
    if len(inside) == 0:
        raise InvalidInput.of(f"{name}_days", (end - start) / DAY_S, f"no event falls into them; {_ADVICE}")
    picked = _sample(inside, limit, seed)
    first = starts[picked]
    memory, passing = histories.before(start), histories.before(end)
    if memory.num_events == 0:
        raise InvalidInput.of(f"{name}_days", (end - start) / DAY_S, f"no event lies before them; {_ADVICE}")
    return _stage(memory, histories, items, first, sizes[picked], passing=passing, now=times[first])
