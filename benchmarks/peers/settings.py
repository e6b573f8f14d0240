"""How the peer is trained.

Shape, dropout, window and learning rate are what RecTools' authors chose on these very sets
(github.com/blondered/transformer_benchmark, "Hyperparameters for all datasets", for arXiv 2508.06450). The loss is the
full softmax, the library's default and what its published SASRec figures were trained with. Batches are smaller than
the library's 128: a pass over the events then makes more steps, and on a CPU it is passes that cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

LONG_HISTORIES = 100
"""A longest decile from here on asks for the window of 200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`patience` and `max_epochs` in epochs; `budget_s` in seconds of CPU, over all runs in one folder; `top`: the
    length of the answers."""

    width: int = 64
    blocks: int = 2
    heads: int = 1
    dropout: float = 0.1
    window: int = 200
    batch: int = 32
    learning_rate: float = 1e-3
    max_epochs: int = 200
    patience: int = 10
    budget_s: float = 36_000.0
    top: int = 100
    seed: int = 0


LONG = Settings()
SHORT = Settings(blocks=1, dropout=0.2, window=50)


def settings_for(longest_decile: float, *, minutes: float | None = None, quick: bool = False) -> Settings:
    """By the events of the longest decile of users. `minutes` bounds the CPU time; `quick` shows that it runs."""
    settings = LONG if longest_decile >= LONG_HISTORIES else SHORT
    if minutes is not None:
        settings = replace(settings, budget_s=60.0 * minutes)
    return replace(settings, width=16, blocks=1, window=20, max_epochs=2) if quick else settings
