"""What the history encoder is given of the far past: what lies before its window, in a few dozen entries.

The encoder attends exactly to its window and over these entries beyond it, so a state costs the same after a thousand
events and after a hundred thousand.

spans   what came before in ever longer spans: pairs of events just before the window, half a thousand of them long ago;
        of a span up to 8 events stand for all, as the encoder itself knows their items. The spans are the exponential
        histogram of Datar et al. 2002 ("Maintaining stream statistics over sliding windows") counted from the window
        back. Read in place: a state looks up 500 rows, whatever the length of the life.
slots   the slots of a life (`recsys.memory.slots`) in item codes, which training does not move; written anew for a
        request at some 40 us an event.

Letters: B users, M entries, D dimensions of codes, n events that stand for a span.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float32, Int64

from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.encode.sequence import ALIGNED, SequenceEncoder
from recsys.encode.window import PADDING, Far, FarReader
from recsys.memory.far import Recalled, entries_at
from recsys.memory.slots import Slots, SlotsConfig

ENTRIES_MOST = 32
ENTRIES = SlotsConfig(slots=ENTRIES_MOST, threshold=0.5)
"""An encoder attends to all entries, so they are few and broad; a far memory read per candidate holds more."""

SPANS = np.repeat([2, 8, 32, 128, 512], [32, 16, 8, 8, 4])
"""Events of each span, from the window back: 3,520 in all. What is older is told by other memories."""
NAMED = 8
"""Events that stand for a span, evenly spread over it."""

_SKIPPED = np.cumsum(SPANS) - SPANS
_BACK = np.where(
    np.arange(NAMED) < SPANS[:, None],
    1 + _SKIPPED[:, None] + np.arange(NAMED) * np.maximum(SPANS[:, None], NAMED) // NAMED,
    0,
)  # [M n]: how many events before the window; 0 for none


def past_reader(sequence: SequenceEncoder, histories: Histories, items: ItemTable) -> FarReader | None:
    """For windows anywhere in `histories`: what the encoder wants to know of what came before; None where nothing."""
    if sequence.shape.memory == "spans":
        return lambda users, starts: spans_before(histories, users, starts)
    if sequence.shape.memory == "slots":
        return snapshots_of(histories, sequence.codes.of(items.base), ALIGNED)
    return None


def past_of(sequence: SequenceEncoder, histories: Histories, items: ItemTable) -> Far | None:
    """For each user's last window: what the encoder wants to know of what came before; None where nothing."""
    window = sequence.shape.window
    if sequence.shape.memory == "spans":
        return spans_before(histories, np.arange(len(histories)), np.maximum(histories.lengths - window, 0))
    if sequence.shape.memory == "slots":
        # Codes of what was met only: a request must not cost what the catalogue holds.
        met, rows = np.unique(histories.items, return_inverse=True)
        codes = sequence.codes.of(items.vectors(met))
        return before_window(replace(histories, items=rows.astype(np.int32)), window, codes)
    return None


def looks_before(sequence: SequenceEncoder) -> int:
    """How many events before the window are looked at."""
    return {"spans": int(SPANS.sum()), "slots": sys.maxsize // 2}.get(sequence.shape.memory, 0)


def spans_before(histories: Histories, users: Int64[np.ndarray, " B"], starts: Int64[np.ndarray, " B"]) -> Far:
    """What each of `users` did before event `starts[b]` of their history, in spans."""
    at = starts[:, None, None] - _BACK
    there = (at >= 0) & (_BACK > 0)
    rows = np.where(there, histories.indptr[users][:, None, None] + at, 0)
    items = np.where(there, histories.items[rows], PADDING) if histories.num_events else np.full(rows.shape, PADDING)
    weights = np.clip(starts[:, None] - _SKIPPED, 0, SPANS).astype(np.float32)
    ages = np.broadcast_to(_SKIPPED.astype(np.float32), weights.shape).copy()
    nothing = torch.zeros((*weights.shape, 0))
    return Far(nothing, *map(torch.from_numpy, (weights, ages, items.astype(np.int64))))


def snapshots_of(
    histories: Histories, codes: Float32[np.ndarray, "N D"], every: int, config: SlotsConfig = ENTRIES
) -> FarReader:
    """What each user's slots held before each multiple of `every` events."""
    indptr, entries = entries_at(Slots, histories, codes, every=every, most=ENTRIES_MOST, config=config)

    def read(users: np.ndarray, starts: np.ndarray) -> Far:
        rows = indptr[users] + starts // every
        return _far(*(part[rows].astype(np.float32) for part in (entries.vectors, entries.weight, entries.age)))

    return read


def before_window(
    histories: Histories, window: int, codes: Float32[np.ndarray, "N D"], config: SlotsConfig = ENTRIES
) -> Far:
    """What each user's slots hold of everything before their last `window` events."""
    memory = Slots.empty(len(histories), codes, config)
    users = np.arange(len(histories))
    far = histories.drop_last(window)
    if far.num_events:
        memory.write(users, far)
    found: Recalled = memory.entries(users, ENTRIES_MOST)
    return _far(found.vectors[:, 0], found.weight[:, 0], found.age[:, 0])


def _far(vectors: np.ndarray, weights: np.ndarray, ages: np.ndarray) -> Far:
    named = torch.zeros((*weights.shape, 0), dtype=torch.int64)
    return Far(torch.from_numpy(vectors), torch.from_numpy(weights), torch.from_numpy(ages), named)
