"""Events of one user at one time: their order is an accident of the file."""

from __future__ import annotations

import numpy as np

from recsys.data.histories import Histories


def shuffle_ties(histories: Histories, seed: int) -> Histories:
    """The same histories with events of one user at one time in random order.

    Where time has the grain of a day, the order inside a day is an accident of the file; a result must not hang
    on it.
    """
    chance = np.random.default_rng(seed).random(histories.num_events)
    return histories._pick(np.lexsort((chance, histories.times, histories.users)), histories.indptr)
