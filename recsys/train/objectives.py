"""Losses that a history gives of itself, beside the next item: two views of one life agree, and a gap can be filled.

    contrastive   InfoNCE over the last states of two views of each window:
                  "augment": each view is a crop, a mask or a reorder of the window (CL4SRec: Xie et al. 2022)
                  "dropout": the same window twice, apart by dropout alone, and windows with the same next item are
                  views of one another (DuoRec: Qiu et al. 2022)
    masked        some items are hidden and told from the state at their place (BERT4Rec: Sun et al. 2019; S3-Rec: Zhou
                  et al. 2020). Here the encoder is causal: a hidden item is told from what came before it and from the
                  time, type and value of its own event.

A hidden item is a zero vector in a row after the catalogue's: the event stays, with its place and its time, as does an
event of an item of which nothing is known. All draws come from the training's own generator, so a restored training
draws what the uninterrupted one would have drawn; with both weights 0 nothing is drawn.

Letters: B users, T events, N items, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from recsys.encode.history import HistoryEncoder
from recsys.encode.window import PADDING, Window
from recsys.errors import InvalidInput
from recsys.train.encoder import Batch, EncoderTraining, ExtraLoss, next_item_loss

Views = Literal["augment", "dropout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfSupervision:
    """`contrastive`, `masked`: weights of the two losses beside the next item's 1; 0.1 is CL4SRec's, and a small start:
    views that lack the last events pull away from what comes next.

    `temperature` divides cosines. `crop`: share of a window that a crop keeps, `mask`: share of items that a masked
    view hides, `reorder`: share of a window that is shuffled. `hidden`: share of items that the masked loss asks for,
    0.2 as BERT4Rec on ML-1M.
    """

    contrastive: float = 0.0
    masked: float = 0.0
    views: Views = "augment"
    temperature: float = 0.2
    crop: float = 0.6
    mask: float = 0.3
    reorder: float = 0.6
    hidden: float = 0.2


def self_supervised(
    config: SelfSupervision, training: EncoderTraining, event_types: tuple[str, ...] = ()
) -> ExtraLoss | None:
    """For `train(extra_loss=...)`: the weighted sum of what `config` asks for; None where it asks for nothing."""
    _check(config)
    if config.contrastive == 0.0 and config.masked == 0.0:
        return None

    def extra(encoder: HistoryEncoder, batch: Batch, texts: Tensor, met: Tensor, rng: np.random.Generator) -> Tensor:
        items = with_hidden_row(encoder.items(texts))
        loss = items.new_zeros(())
        if config.contrastive:
            loss = loss + config.contrastive * contrastive_loss(encoder, batch, items, config, rng)
        if config.masked:
            hidden = hide(batch, config.hidden, len(texts), rng)
            told = next_item_loss(encoder, hidden, texts, met, training, event_types, items)
            loss = loss + config.masked * told
        return loss

    return extra


def contrastive_loss(
    encoder: HistoryEncoder,
    batch: Batch,
    items: Float[Tensor, "n D"],
    config: SelfSupervision,
    rng: np.random.Generator,
) -> Float[Tensor, ""]:
    """InfoNCE between two views of each window; `items` ends with the row of hidden items."""
    B = len(batch.window.lengths)
    same = torch.eye(B, dtype=torch.bool, device=batch.window.items.device)
    if config.views == "dropout":
        first = second = batch.window
        same = same | _same_target(batch)
    else:
        first, second = (augmented(batch.window, config, len(items) - 1, rng) for _ in range(2))
    states = [encoder.last(view, items, batch.far).float() for view in (first, second)]
    return info_nce(states[0], states[1], same, config.temperature)


def info_nce(
    first: Float[Tensor, "B D"], second: Float[Tensor, "B D"], same: Bool[Tensor, "B B"], temperature: float
) -> Float[Tensor, ""]:
    """Each state finds its partners among all of the other view's, and the other way round; several partners count
    alike (Khosla et al. 2020, "Supervised contrastive learning")."""
    logits = first @ second.T / temperature
    share = same / same.sum(dim=1, keepdim=True)
    # `same` is symmetric, so one matrix serves both directions.
    there, back = functional.log_softmax(logits, dim=1), functional.log_softmax(logits.T, dim=1)
    return -((there + back) * share).sum() / (2 * len(first))


def augmented(window: Window, config: SelfSupervision, hidden_row: int, rng: np.random.Generator) -> Window:
    """Each window cropped, masked or reordered, one of the three drawn for each."""
    lengths = window.lengths.cpu().numpy()
    T = window.items.shape[1]
    kind = rng.integers(3, size=len(lengths))
    order = np.tile(np.arange(T), (len(lengths), 1))
    clock, kept = order.copy(), lengths.copy()
    for row, length in enumerate(lengths):
        if kind[row] == 0:
            start, size = _span(int(length), config.crop, rng)
            order[row, :size] = clock[row, :size] = np.arange(start, start + size)
            kept[row] = size
        elif kind[row] == 2:
            start, size = _span(int(length), config.reorder, rng)
            order[row, start : start + size] = rng.permutation(np.arange(start, start + size))
    out = _picked(window, torch.from_numpy(order), torch.from_numpy(clock), torch.from_numpy(kept))
    masked = (rng.random((len(lengths), T)) < config.mask) & (kind == 1)[:, None]
    return _hidden(out, torch.from_numpy(masked), hidden_row)


def hide(batch: Batch, share: float, hidden_row: int, rng: np.random.Generator) -> Batch:
    """A `share` of each window's known items hidden, at least one, and asked for; nothing else is."""
    drawn = torch.from_numpy(rng.random(batch.window.items.shape)).to(batch.window.items.device)
    drawn = torch.where(batch.window.valid, drawn, 2.0)
    chosen = (drawn < share) | (drawn == drawn.amin(dim=1, keepdim=True))
    chosen = chosen & batch.window.valid
    targets = torch.where(chosen, batch.window.items, PADDING)
    return Batch(_hidden(batch.window, chosen, hidden_row), targets, batch.window.types, batch.far)


def with_hidden_row(items: Float[Tensor, "N D"]) -> Float[Tensor, "n D"]:
    """`items` and, in row N, the item of which nothing is known."""
    return torch.cat([items, items.new_zeros(1, items.shape[1])])


def _check(config: SelfSupervision) -> None:
    shares = {name: getattr(config, name) for name in ("crop", "mask", "reorder", "hidden")}
    for name, value in {"contrastive": config.contrastive, "masked": config.masked}.items():
        if not value >= 0.0:
            raise InvalidInput.of(name, value, "a weight is 0 or more")
    for name, value in shares.items():
        if not 0.0 < value <= 1.0:
            raise InvalidInput.of(name, value, "a share lies above 0 and at most at 1")
    if not config.temperature > 0.0:
        raise InvalidInput.of("temperature", config.temperature, "must be above 0")
    if config.views not in ("augment", "dropout"):
        raise InvalidInput.of("views", config.views, "must be augment or dropout")


def _span(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """(start, size) of a run of a `share` of `length` events, at least one."""
    size = min(max(round(share * length), 1), length)
    return int(rng.integers(length - size + 1)), size


def _picked(window: Window, order: Int[Tensor, "B T"], clock: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Window:
    """Items, types and values by `order`, gaps and times by `clock` (when something happened is not what a reorder
    shuffles), and padding from `lengths` on."""
    device = window.items.device
    order, clock, lengths = order.to(device), clock.to(device), lengths.to(device)
    inside = torch.arange(order.shape[1], device=device) < lengths[:, None]

    def picked(column: Tensor, by: Tensor, nothing: int) -> Tensor:
        return torch.where(inside, column.gather(1, by), nothing)

    return replace(
        window,
        items=picked(window.items, order, PADDING),
        types=picked(window.types, order, 0),
        values=picked(window.values, order, 0),
        gaps=picked(window.gaps, clock, 0),
        times=picked(window.times, clock, 0),
        lengths=lengths,
    )


def _hidden(window: Window, chosen: Bool[Tensor, "B T"], hidden_row: int) -> Window:
    chosen = chosen.to(window.items.device) & window.valid
    return replace(window, items=torch.where(chosen, hidden_row, window.items))


def _same_target(batch: Batch) -> Bool[Tensor, "B B"]:
    """Windows whose last event is followed by the same known item."""
    at = (batch.window.lengths - 1).clamp(min=0)[:, None]
    last = batch.targets.gather(1, at)[:, 0]
    return (last[:, None] == last[None]) & (last >= 0)[:, None]
