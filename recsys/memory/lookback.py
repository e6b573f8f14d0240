"""What the history encoder is given of the far past: the slots of a user's life before its window.

The encoder attends exactly to its window and over these entries beyond it, so its attention costs the same after a
thousand events and after a hundred thousand. They are in item codes that training does not move. The slots of a request
are written anew from what lies before its window, at some 40 us an event; that is one reason why `sequence.memory` is
off by default.

Letters: B users, M entries, D dimensions of codes.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32

from recsys.data.histories import Histories
from recsys.encode.window import Far, FarReader
from recsys.memory.far import Recalled, entries_at
from recsys.memory.slots import Slots, SlotsConfig

ENTRIES_MOST = 32
ENTRIES = SlotsConfig(slots=ENTRIES_MOST, threshold=0.5)
"""An encoder attends to all entries, so they are few and broad; a far memory read per candidate holds more."""


def snapshots_of(
    histories: Histories, codes: Float32[np.ndarray, "N D"], every: int, config: SlotsConfig = ENTRIES
) -> FarReader:
    """What each user's memory held before each multiple of `every` events."""
    indptr, entries = entries_at(Slots, histories, codes, every=every, most=ENTRIES_MOST, config=config)

    def read(users: np.ndarray, starts: np.ndarray) -> Far:
        rows = indptr[users] + starts // every
        return _far(*(part[rows].astype(np.float32) for part in (entries.vectors, entries.weight, entries.age)))

    return read


def before_window(
    histories: Histories, window: int, codes: Float32[np.ndarray, "N D"], config: SlotsConfig = ENTRIES
) -> Far:
    """What each user's memory holds of everything before their last `window` events."""
    memory = Slots.empty(len(histories), codes, config)
    users = np.arange(len(histories))
    far = histories.drop_last(window)
    if far.num_events:
        memory.write(users, far)
    found: Recalled = memory.entries(users, ENTRIES_MOST)
    return _far(found.vectors[:, 0], found.weight[:, 0], found.age[:, 0])


def _far(vectors: np.ndarray, weights: np.ndarray, ages: np.ndarray) -> Far:
    return Far(torch.from_numpy(vectors), torch.from_numpy(weights), torch.from_numpy(ages))
