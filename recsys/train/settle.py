"""What a history encoder is to be: asked for, or settled by the shape of the data, as chosen on validation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.data.histories import Histories
from recsys.encode.codes import ItemCodes
from recsys.encode.history import HistoryEncoderConfig
from recsys.encode.items import ItemTable
from recsys.encode.mixers import MIXERS
from recsys.errors import InvalidInput
from recsys.train.encoder import EncoderTraining
from recsys.train.objectives import SelfSupervision


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceConfig:
    """Whether (`enabled`) and how a history encoder is trained. None: settled by the shape of the data (`settle`): long
    where the median history has at least 30 events, else short.

    `members`: trainings that differ by seed, whose mean is taken. `mixer`: how events see each other (`MIXERS`).
    `memory`: how it sees the far past, beyond its `window` of events: "spans", "slots", or "" for not at all. `width`:
    dimensions inside and of a state. `codes`: dimensions of the texts' main directions that it reads. `epochs`,
    `tokens` (events a batch), `dropout`, `learning_rate`: of the training. `negatives`: items an event is told from, 0
    for all. `probe_queries`: questions by which epochs are judged. `refit_epochs`: on the memory of a later stage, at
    `refit_rate` of the learning rate; short histories gain by it, long ones do not. `type_weights`: such as
    "view=0.2,cart=2", of the loss of telling an event of a type. `contrastive`, `masked`: weights of losses that a
    history gives of itself. `trackers`: "tensorboard", "wandb", "mlflow", where there are `runs`: a folder for
    checkpoints, curves and finished encoders, in which an equal training is taken up. `device`: "cpu" or "cuda".
    """

    enabled: bool = False
    members: int | None = None
    mixer: str = "attention"
    memory: str = ""
    window: int | None = None
    width: int = 64
    codes: int = 128
    dropout: float | None = None
    epochs: int | None = None
    tokens: int | None = None
    negatives: int | None = None
    learning_rate: float | None = None
    refit_epochs: int | None = None
    refit_rate: float = 0.15
    probe_queries: int = 2_000
    type_weights: tuple[str, ...] | str = ()
    contrastive: float = 0.0
    masked: float = 0.0
    trackers: tuple[str, ...] | str = ()
    device: str = "cpu"
    runs: Path | None = None

    def __post_init__(self) -> None:
        for name in ("type_weights", "trackers"):  # from the environment they come as one text, "a,b"
            given = getattr(self, name)
            if isinstance(given, str):
                object.__setattr__(self, name, tuple(part.strip() for part in given.split(",") if part.strip()))
        if self.mixer not in MIXERS:
            raise InvalidInput.of("sequence.mixer", self.mixer, f"must be one of {', '.join(sorted(MIXERS))}")
        if self.memory not in MEMORIES:
            raise InvalidInput.of("sequence.memory", self.memory, f"must be one of {', '.join(map(repr, MEMORIES))}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise InvalidInput.of(f"sequence.{name}", value, f"must be at least {least}")
        if self.width % 16:
            raise InvalidInput.of("sequence.width", self.width, "must be a multiple of 16: heads and groups share it")
        if self.dropout is not None and not 0.0 <= self.dropout < 1.0:
            raise InvalidInput.of("sequence.dropout", self.dropout, "must be at least 0 and below 1")

    @property
    def self_supervision(self) -> SelfSupervision:
        """The losses beside the next item's; of contrastive views, dropout ones suit short histories."""
        return SelfSupervision(contrastive=self.contrastive, masked=self.masked, views="dropout")


MEMORIES = ("", "slots", "spans")

_LEAST: dict[str, float] = {
    "members": 1,
    "window": 1,
    "width": 16,
    "codes": 1,
    "epochs": 1,
    "tokens": 1,
    "negatives": 0,
    "learning_rate": 0.0,
    "refit_epochs": 0,
    "refit_rate": 0.0,
    "probe_queries": 1,
    "contrastive": 0.0,
    "masked": 0.0,
}


def settle(config: SequenceConfig, memory: Histories) -> SequenceConfig:
    """Fill in what the shape of the data decides: long lives get a long window and little dropout, short ones the
    opposite, with more negatives, for their items are many and seldom met."""
    lengths = memory.lengths[memory.lengths > 1]
    long = len(lengths) > 0 and float(np.median(lengths)) >= 30
    shape: dict[str, Any] = _LONG if long else _SHORT
    return replace(config, **{name: value for name, value in shape.items() if getattr(config, name) is None})


_LONG = {
    "window": 200,
    "dropout": 0.1,
    "epochs": 70,
    "tokens": 6_144,
    "negatives": 512,
    "learning_rate": 2e-3,
    "refit_epochs": 0,
    "members": 2,
}
_SHORT = {
    "window": 50,
    "dropout": 0.5,
    "epochs": 16,
    "tokens": 2_048,
    "negatives": 2_048,
    "learning_rate": 1e-3,
    "refit_epochs": 4,
    "members": 2,
}


def training_of(config: SequenceConfig) -> EncoderTraining:
    """The training that a settled config wants. Raises InvalidInput for a weight that is no NAME=NUMBER."""
    given: dict[str, Any] = {"epochs": config.epochs, "tokens": config.tokens, "learning_rate": config.learning_rate}
    return replace(
        EncoderTraining(),
        **{name: value for name, value in given.items() if value is not None},
        negatives=config.negatives or None,
        weight_by_type=dict(_weight(each) for each in config.type_weights),
        probe_every=2 if (config.epochs or 0) < 40 else 5,
        device=config.device,
    )


def _weight(given: str) -> tuple[str, float]:
    name, _, number = given.rpartition("=")
    try:
        weight = float(number)
    except ValueError as error:
        raise InvalidInput.of("sequence.type_weights", given, "must be NAME=NUMBER") from error
    if not name or not 0.0 <= weight < float("inf"):
        raise InvalidInput.of("sequence.type_weights", given, "must be NAME=NUMBER, the number at least 0")
    return name, weight


def encoder_config(
    config: SequenceConfig, memory: Histories, items: ItemTable, codes: ItemCodes
) -> HistoryEncoderConfig:
    """The encoder that a settled config wants for this data."""
    return HistoryEncoderConfig(
        num_items=len(items.base),
        num_types=len(memory.event_types),
        text_width=codes.width,
        memory=config.memory,
        memory_width=codes.width if config.memory == "slots" else 0,
        mixer=config.mixer,
        window=config.window or 128,
        width=config.width,
        dropout=config.dropout or 0.0,
        times=memory.clock != "position",
        values=bool(np.isfinite(memory.values).any()),
    )
