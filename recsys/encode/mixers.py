"""The ways in which events of a window see each other, by name.

| mixer     | a position sees                                                | cost of T events |
|-----------|----------------------------------------------------------------|------------------|
| attention | all events up to itself                                        | T^2, fused       |
| relative  | all events up to itself, how far back and how long ago         | T^2              |
| sliding   | the last 32 and the first 4                                    | T                |
| segment   | its segment of 32 and the one before; one further each layer   | T                |
| lstm      | what a gated cell still holds of all                           | T, one by one    |
| levels    | its session, and the mean of each finished session             | T S, S sessions  |

Letters: T events, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from recsys.encode.attention import GatedAttention
from recsys.encode.levels import LevelAttention
from recsys.encode.recurrence import GatedLSTM, SegmentAttention
from recsys.encode.relative import RelativeAttention
from recsys.encode.sliding import SlidingAttention

MIXERS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "attention": lambda width, heads, window: GatedAttention(width, heads),
    "relative": lambda width, heads, window: RelativeAttention(width, heads),
    "sliding": lambda width, heads, window: SlidingAttention(width, heads),
    "segment": lambda width, heads, window: SegmentAttention(width, heads),
    "lstm": lambda width, heads, window: GatedLSTM(width),
    "levels": lambda width, heads, window: LevelAttention(width, heads),
}
"""Name -> (width, heads, window) -> a causal mixer. Which is best is measured, not believed: see docs/memory.md."""
