"""Views and gaps are cut as they say they are, nothing hidden is seen, and what is asked is learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recsys.encode.history import HistoryEncoder, HistoryEncoderConfig
from recsys.encode.window import Window, latest_windows
from recsys.errors import InvalidInput
from recsys.train.encoder import Batch, Corpus, EncoderTraining, begin, next_item_loss, train
from recsys.train.objectives import (
    SelfSupervision,
    augmented,
    contrastive_loss,
    hide,
    info_nce,
    self_supervised,
    with_hidden_row,
)
from tests.world import DAY_S, START_S, chains, histories_of

N = 30
TRAINING = EncoderTraining(epochs=6, tokens=400, warmup_steps=5, negatives=None, learning_rate=5e-3)
BOTH = SelfSupervision(contrastive=0.2, masked=0.3)


def encoder_of(**options: Any) -> HistoryEncoder:
    torch.manual_seed(0)
    small = {"width": 16, "blocks": 1, "window": 12, "times": False, "values": False}
    return HistoryEncoder(HistoryEncoderConfig(num_items=N, **{**small, **options}))


def texts() -> torch.Tensor:
    return torch.zeros(N, 0)


def batch_of(num_users: int = 40, *, seed: int = 0) -> Batch:
    corpus = Corpus.of(chains(num_users, N, seed=seed).histories, window=12, num_items=N)
    return next(corpus.batches(replace(TRAINING, tokens=100_000), np.random.default_rng(seed)))


def windows_of(*lives: list[int]) -> Window:
    times = [(START_S + np.cumsum(np.arange(len(life)) + 1.0) * DAY_S).tolist() for life in lives]
    return latest_windows(histories_of(lives, times, clock="timestamp"), 40, num_items=1_000)


# InfoNCE


def test_info_nce_is_a_cross_entropy_both_ways() -> None:
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(6, 4, generator=rng), torch.randn(6, 4, generator=rng)
    logits, label = first @ second.T / 0.3, torch.arange(6)
    expected = (
        torch.nn.functional.cross_entropy(logits, label) + torch.nn.functional.cross_entropy(logits.T, label)
    ) / 2
    torch.testing.assert_close(info_nce(first, second, torch.eye(6, dtype=torch.bool), 0.3), expected)


def test_partners_are_drawn_together_not_apart() -> None:
    """Two windows with one next item: at their best they are one state, apart from the third."""
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    together = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    apart = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    assert info_nce(together, together, same, 0.1) < info_nce(apart, apart, same, 0.1)
    only = torch.eye(3, dtype=torch.bool)
    assert info_nce(together, together, only, 0.1) > info_nce(apart, apart, only, 0.1)


# Views


def test_each_view_is_a_crop_a_mask_or_a_reorder() -> None:
    window = windows_of(*[list(range(user * 20, user * 20 + 20)) for user in range(40)])
    view = augmented(window, SelfSupervision(), 999, np.random.default_rng(0))
    kinds = {"crop": 0, "mask": 0, "reorder": 0}
    for row, life in enumerate(window.items.tolist()):
        length = int(view.lengths[row])
        seen = view.items[row, :length].tolist()
        assert view.items[row, length:].tolist() == [-1] * (20 - length)
        if length < 20:
            kinds["crop"] += 1
            start = life.index(seen[0])
            assert seen == life[start : start + 12]
            assert torch.equal(view.gaps[row, :12], window.gaps[row, start : start + 12])
            assert torch.equal(view.times[row, :12], window.times[row, start : start + 12])
        elif 999 in seen:
            kinds["mask"] += 1
            assert all(after in (before, 999) for before, after in zip(life, seen, strict=True))
        else:
            kinds["reorder"] += 1
            assert sorted(seen) == life
            moved = [at for at in range(20) if seen[at] != life[at]]
            assert moved[-1] - moved[0] < 12
            assert torch.equal(view.times[row], window.times[row])
            assert torch.equal(view.gaps[row], window.gaps[row])
    assert min(kinds.values()) > 5


def test_a_view_is_never_empty_and_padding_stays_padding() -> None:
    window = windows_of([1], [2, 3], list(range(30)))
    for seed in range(30):
        view = augmented(window, SelfSupervision(crop=0.1), 999, np.random.default_rng(seed))
        assert (view.lengths >= 1).all()
        assert torch.equal(view.valid.sum(dim=1), view.lengths)


def test_views_of_dropout_differ_by_dropout_alone() -> None:
    config = SelfSupervision(contrastive=1.0, views="dropout", temperature=0.01)
    batch = batch_of(12)
    batch = replace(batch, targets=torch.full_like(batch.targets, -1), far=None)  # no two of one next item
    quiet, noisy = encoder_of(dropout=0.0), encoder_of(dropout=0.4)
    rng = np.random.default_rng(0)
    losses = [contrastive_loss(e, batch, with_hidden_row(e.items(texts())), config, rng) for e in (quiet, noisy)]
    assert losses[0].item() < losses[1].item()
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_windows_of_one_next_item_are_partners() -> None:
    batch = batch_of(12)
    encoder = encoder_of(dropout=0.0)
    items = with_hidden_row(encoder.items(texts()))
    config = SelfSupervision(contrastive=1.0, views="dropout")
    states = encoder.last(batch.window, items)
    shared = replace(batch, targets=torch.where(batch.targets >= 0, 5, -1), far=None)
    expected = info_nce(states, states, torch.ones(len(states), len(states), dtype=torch.bool), config.temperature)
    torch.testing.assert_close(contrastive_loss(encoder, shared, items, config, np.random.default_rng(0)), expected)


# Gaps


def test_hidden_items_are_asked_and_only_they() -> None:
    batch = batch_of(200)
    hidden = hide(batch, 0.2, N, np.random.default_rng(0))
    chosen = hidden.window.items == N
    assert torch.equal(hidden.targets[chosen], batch.window.items[chosen])
    assert (hidden.targets[~chosen] == -1).all()
    assert torch.equal(hidden.window.items[~chosen], batch.window.items[~chosen])
    assert (chosen.sum(dim=1) >= 1).all()
    assert float(chosen.sum() / batch.window.valid.sum()) == pytest.approx(0.2, abs=0.04)


def test_a_window_of_unknown_items_hides_nothing() -> None:
    window = windows_of([1_001, 1_002], [1, 2])
    batch = Batch(window, torch.full(window.items.shape, -1), torch.zeros_like(window.types), None)
    hidden = hide(batch, 0.5, 1_000, np.random.default_rng(0))
    assert hidden.window.items[0].tolist() == [-1, -1]
    assert (hidden.targets[0] == -1).all()
    assert (hidden.targets[1] >= 0).any()


def test_nothing_of_a_hidden_item_is_seen() -> None:
    """Another item in the hidden place changes no state; a zero row takes the event's place and no more."""
    encoder = encoder_of().eval()
    items = with_hidden_row(encoder.items(texts()))
    batch = batch_of()
    hidden = hide(batch, 0.3, N, np.random.default_rng(0))
    other = replace(
        batch.window, items=torch.where(hidden.targets >= 0, (batch.window.items + 7) % N, batch.window.items)
    )
    again = hide(Batch(other, batch.targets, batch.types, None), 0.3, N, np.random.default_rng(0))
    assert torch.equal(encoder(hidden.window, items), encoder(again.window, items))
    assert not torch.equal(encoder(batch.window, items), encoder(other, items))
    assert not torch.equal(hidden.targets, again.targets)


# In a training


def test_nothing_asked_is_nothing_added() -> None:
    assert self_supervised(SelfSupervision(), TRAINING) is None


@pytest.mark.parametrize("views", ["augment", "dropout"])
def test_the_sum_is_weighted(views: Any) -> None:
    encoder, batch, met = encoder_of(dropout=0.0), batch_of(), torch.arange(N)

    def value(contrastive: float, masked: float) -> float:
        extra = self_supervised(SelfSupervision(contrastive=contrastive, masked=masked, views=views), TRAINING)
        assert extra is not None
        return extra(encoder, batch, texts(), met, np.random.default_rng(3)).item()

    # Alone, each draws what it would draw first.
    assert value(0.5, 0.0) == pytest.approx(0.5 * value(1.0, 0.0), rel=1e-5)
    assert value(0.0, 0.5) == pytest.approx(0.5 * value(0.0, 1.0), rel=1e-5)
    if views == "dropout":  # which draws nothing of the generator
        assert value(0.5, 0.25) == pytest.approx(value(0.5, 0.0) + value(0.0, 0.25), rel=1e-5)


def test_what_is_asked_is_learnt_beside_the_next_item() -> None:
    """Each loss ends lower than in the same training without it, and the next item is still learnt."""
    corpus = Corpus.of(chains(120, N, seed=1).histories, window=12, num_items=N)
    batch, met = batch_of(seed=2), torch.arange(N)

    def measured(config: SelfSupervision) -> tuple[float, float, float]:
        extra = self_supervised(config, TRAINING)
        encoder = train(begin(encoder_of(), TRAINING), corpus, texts(), TRAINING, extra_loss=extra)
        with torch.no_grad():
            items = with_hidden_row(encoder.items(texts()))
            views = [contrastive_loss(encoder, batch, items, BOTH, np.random.default_rng(seed)) for seed in range(5)]
            gaps = hide(batch, 0.2, N, np.random.default_rng(5))
            filled = next_item_loss(encoder, gaps, texts(), met, TRAINING, items=items)
            told = next_item_loss(encoder, batch, texts(), met, TRAINING)
        return torch.stack(views).mean().item(), filled.item(), told.item()

    without = measured(SelfSupervision())
    agreeing, filling = measured(SelfSupervision(contrastive=1.0)), measured(SelfSupervision(masked=0.5))
    assert agreeing[0] < without[0] - 0.2
    assert filling[1] < without[1] - 0.2
    assert max(agreeing[2], filling[2]) < without[2] + 0.5


def test_items_that_nobody_met_are_left_alone() -> None:
    """They are no negatives of the masked loss either."""
    encoder = encoder_of()
    extra = self_supervised(SelfSupervision(contrastive=1.0, masked=1.0), TRAINING)
    assert extra is not None
    batch = batch_of()
    met = torch.unique(torch.cat([batch.window.items[batch.window.valid], batch.targets[batch.targets >= 0]]))
    met = met[met < 20]
    window = replace(batch.window, items=torch.where(batch.window.items < 20, batch.window.items, -1))
    known = replace(batch, window=window, far=None)
    extra(encoder, known, texts(), met, np.random.default_rng(0)).backward()  # type: ignore[no-untyped-call]  # torch leaves it so
    assert encoder.items.id.weight.grad is not None
    assert (encoder.items.id.weight.grad[20:] == 0).all()
    assert (encoder.items.id.weight.grad[met] != 0).any(dim=1).all()


@pytest.mark.parametrize(
    ("field", "value"), [("crop", 0.0), ("mask", 1.5), ("hidden", float("nan")), ("temperature", 0.0), ("masked", -0.1)]
)
def test_a_wrong_setting_is_named(field: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=field):
        self_supervised(replace(BOTH, **{field: value}), TRAINING)  # type: ignore[arg-type]  # any field is a float
    with pytest.raises(InvalidInput, match="views"):
        self_supervised(replace(BOTH, views="mirror"), TRAINING)  # type: ignore[arg-type]  # on purpose
