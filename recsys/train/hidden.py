"""Hidden items: a world in which a share of the items is still unknown, so that a ranker learns what cold means.

Where every item of the training questions has been met, a ranker learns that an item without a past is never the
answer. So a seeded share of the items is hidden from the train stage's memory and from the histories that ask, and the
questions whose answer is among them are asked once more of matchers that know only their texts.

Letters: Q queries, N items.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from recsys.data.histories import Histories
from recsys.errors import InvalidInput
from recsys.match import States
from recsys.train.examples import Queries
from recsys.train.stages import Stage

LEAST = 200
"""Questions for hidden items; so few of a small shop teach a ranker noise, and it ranks what is known worse for it."""


def hide(histories: Histories, num_items: int, share: float, seed: int) -> Bool[np.ndarray, " N"]:
    """A share of the items that events mention, at least one, drawn by seed."""
    if not 0.0 < share < 1.0:
        raise InvalidInput.of("share", share, "must lie between 0 and 1")
    met = np.flatnonzero(histories.met(num_items))
    hidden = np.zeros(num_items, bool)
    hidden[np.random.default_rng(seed).choice(met, max(1, round(share * len(met))), replace=False)] = True
    return hidden


def without(histories: Histories, hidden: Bool[np.ndarray, " N"]) -> Histories:
    """The same lives, in which nobody met the hidden items."""
    return histories.keep(~hidden[histories.items])


def asking_for(stage: Stage, hidden: Bool[np.ndarray, " N"], least: int = LEAST) -> Stage | None:
    """The questions of `stage` that have a hidden target, with all their targets, in the world without the hidden
    items; None where there are fewer than `least`."""
    queries = stage.queries
    owners = np.repeat(np.arange(len(queries)), np.diff(queries.indptr))
    rows = np.unique(owners[hidden[queries.targets]])
    if len(rows) < max(least, 1):
        return None
    asked = queries.take(rows)
    states = asked.states
    past = States(histories=without(states.histories, hidden), now=states.now, items=states.items)
    memory = without(stage.memory, hidden)
    return replace(
        stage,
        memory=memory,
        passing=memory if stage.passing is stage.memory else without(stage.passing, hidden),
        queries=Queries(states=past, indptr=asked.indptr, targets=asked.targets),
        users=stage.users[rows],
        target_times=stage.target_times[rows],
        target_types=stage.target_types[rows],
    )
