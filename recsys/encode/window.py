"""What a history encoder sees of B users: their latest events as padded arrays, and what a far memory brought back.

Everything is an id of a small table: items by row, event types by code, values and time gaps by logarithmic bucket, so
that ratings, quantities, seconds and years share one form. Padding stands on the right: position 0 is a window's first
event, and a causal layer never looks at padding.

Letters: B users, T events of a window, M entries of a far memory, C dimensions of the codes they are written in,
n events that an entry names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from recsys.data.histories import Histories

VALUE_BUCKETS = 64
GAP_BUCKETS = 64
PADDING = -1
"""The item row of what is not there."""


@dataclass(frozen=True, slots=True)
class Window:
    """B windows of up to T events. `items` are catalogue rows (-1: padding), `lengths` events of each."""

    items: Int[Tensor, "B T"]
    types: Int[Tensor, "B T"]
    values: Int[Tensor, "B T"]
    gaps: Int[Tensor, "B T"]
    times: Float[Tensor, "B T"]
    lengths: Int[Tensor, " B"]

    @property
    def valid(self) -> Bool[Tensor, "B T"]:
        return self.items >= 0

    def to(self, device: str | torch.device) -> Window:
        """The same on another device."""
        return Window(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Far:
    """What a read of far memories brought back. An entry is a vector in the codes it was written in (`vectors`; C = 0
    where memories hold none), or stands for the items of up to n events (`items`, -1: none; n = 0 where memories hold
    none). `weights`: events behind each entry (0: no entry); `ages`: events since it was last touched."""

    vectors: Float[Tensor, "B M C"]
    weights: Float[Tensor, "B M"]
    ages: Float[Tensor, "B M"]
    items: Int[Tensor, "B M n"]

    def to(self, device: str | torch.device) -> Far:
        """The same on another device."""
        return Far(*(getattr(self, f.name).to(device) for f in fields(self)))


FarReader = Callable[[Int64[np.ndarray, " B"], Int64[np.ndarray, " B"]], Far]
"""(users, events of each that lie before the window) -> what their far memories held then."""


def windows_at(
    histories: Histories, starts: Int[np.ndarray, " B"], lengths: Int[np.ndarray, " B"], *, num_items: int
) -> Window:
    """Windows of `lengths` events that begin at event positions `starts` (of all histories); rows at or above
    `num_items` are unknown to the encoder and come as zero vectors: leave them out before, as `latest_windows` does.

    The gap of an event is the time since the event before it in the same history, also where that lies before the
    window: it was known when the event happened.
    """
    width = max(int(lengths.max(initial=0)), 1)
    inside = np.arange(width) < lengths[:, None]
    source = np.where(inside, starts[:, None] + np.arange(width), 0)
    if histories.num_events == 0:
        source, inside = np.zeros((len(starts), 1), np.int64), np.zeros((len(starts), 1), bool)
        nothing = np.zeros(source.shape)
        return _window(inside, nothing, nothing, nothing, nothing, nothing, lengths)
    items = histories.items[source]
    known = inside & (items < num_items)
    before = np.maximum(source - 1, 0)
    first = np.isin(source, histories.indptr[:-1])
    gaps = np.where(first, 0.0, histories.times[source] - histories.times[before])
    if histories.clock == "position":
        gaps = np.zeros(gaps.shape)
    times = histories.times[source]
    return _window(known, items, histories.types[source], value_buckets(histories.values[source]), gaps, times, lengths)


def latest_windows(histories: Histories, window: int, *, num_items: int) -> Window:
    """Each user's last `window` events of known items: an item of which not even a text is known tells nothing."""
    known = histories.items < num_items
    histories = histories if known.all() else histories.keep(known)
    lengths = np.minimum(histories.lengths, window)
    return windows_at(histories, histories.indptr[1:] - lengths, lengths, num_items=num_items)


def value_buckets(values: np.ndarray) -> np.ndarray:
    """0 where no value was given; else by size, in quarters of a power of two: five-star ratings all differ."""
    signed = np.sign(values) * np.round(4.0 * np.log2(1.0 + np.abs(np.nan_to_num(values))))
    return np.asarray(np.where(np.isnan(values), 0, np.clip(signed + VALUE_BUCKETS // 2, 1, VALUE_BUCKETS - 1)))


def gap_buckets(gaps_s: np.ndarray) -> np.ndarray:
    """Seconds in halves of a power of two: a minute, an hour, a day and a year all differ."""
    return np.asarray(np.clip(np.round(2.0 * np.log2(1.0 + np.maximum(gaps_s, 0.0))), 0, GAP_BUCKETS - 1))


def _window(
    known: np.ndarray,
    items: np.ndarray,
    types: np.ndarray,
    values: np.ndarray,
    gaps: np.ndarray,
    times: np.ndarray,
    lengths: np.ndarray,
) -> Window:
    def ids(column: np.ndarray) -> Tensor:
        return torch.from_numpy(np.where(known, column, 0).astype(np.int64))

    return Window(
        items=torch.from_numpy(np.where(known, items, PADDING).astype(np.int64)),
        types=ids(types),
        values=ids(values),
        gaps=ids(gap_buckets(gaps)),
        times=torch.from_numpy(np.where(known, times, 0.0)),
        lengths=torch.from_numpy(lengths.astype(np.int64)),
    )
