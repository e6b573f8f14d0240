"""The history encoder around its mixers: items, far memory, what is kept on disk.

Letters: B users, T events, M memory entries, N items, D width.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.encode.history import MAX_SCALE, HistoryEncoder, HistoryEncoderConfig, cosine_scores
from recsys.encode.mixers import MIXERS
from recsys.encode.window import PADDING, Far, Window, latest_windows
from recsys.errors import InvalidInput
from tests.world import chains, histories_of

N, TEXT, CODES = 80, 6, 5
TEXTS = torch.randn(N, TEXT, generator=torch.Generator().manual_seed(0))

every_mixer = pytest.mark.parametrize("name", sorted(MIXERS))


def encoder_of(*, seed: int = 0, **config: Any) -> HistoryEncoder:
    torch.manual_seed(seed)
    settings = {"num_items": N, "text_width": TEXT, "window": 12, "width": 16}
    return HistoryEncoder(HistoryEncoderConfig(**settings | config)).eval()


def a_window(window: int = 12) -> Window:
    lives = chains(12, N, clock="timestamp").histories
    return latest_windows(lives.prefixes(np.arange(12), np.minimum(lives.lengths, np.arange(12))), window, num_items=N)


def a_far(B: int, M: int = 4, *, seed: int = 1) -> Far:
    source = torch.Generator().manual_seed(seed)
    weights = torch.rand(B, M, generator=source) + 0.5
    vectors, ages = torch.randn(B, M, CODES, generator=source), 100 * torch.rand(B, M, generator=source)
    return Far(vectors, weights, ages, torch.randint(-1, N, (B, M, 2), generator=source))


def with_memory() -> HistoryEncoder:
    """An encoder whose memory has something to say."""
    encoder = encoder_of(memory="slots", memory_width=CODES)
    assert encoder.far is not None
    with torch.no_grad():
        for parameter in encoder.far.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


@every_mixer
def test_states_have_unit_length(name: str) -> None:
    encoder, window = encoder_of(mixer=name), a_window()
    states = encoder(window, encoder.items(TEXTS))
    assert states.shape == (*window.items.shape, 16)
    torch.testing.assert_close(states.norm(dim=-1), torch.ones(window.items.shape))


@every_mixer
def test_the_last_state_is_of_the_last_event_and_zero_without_any(name: str) -> None:
    encoder, window = encoder_of(mixer=name), a_window()
    items = encoder.items(TEXTS)
    states, last = encoder(window, items), encoder.last(window, items)
    assert window.lengths[0] == 0
    assert not last[0].any()
    for user in range(1, len(states)):
        assert torch.equal(last[user], states[user, window.lengths[user] - 1])


@every_mixer
def test_saved_and_loaded_says_the_same(name: str, tmp_path: Path) -> None:
    encoder, window = encoder_of(mixer=name, memory="slots", memory_width=CODES, num_types=2), a_window()
    far = a_far(len(window.items))
    encoder.save(tmp_path)
    loaded = HistoryEncoder.load(tmp_path)
    assert loaded.config == encoder.config
    assert not loaded.training
    expected = encoder(window, encoder.items(TEXTS), far)
    assert torch.equal(loaded(window, loaded.items(TEXTS), far), expected)


def test_an_unknown_mixer_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"mixer='mystery': must be one of attention, levels, .*sliding"):
        encoder_of(mixer="mystery")


@every_mixer
def test_only_dropout_is_by_chance(name: str) -> None:
    encoder, window = encoder_of(mixer=name, dropout=0.5), a_window()
    items = encoder.items(TEXTS).detach()
    assert torch.equal(encoder(window, items), encoder(window, items))
    encoder.train()
    assert not torch.equal(encoder(window, items), encoder(window, items))


@every_mixer
def test_an_encoder_begins_as_if_it_had_no_memory(name: str) -> None:
    plain, remembering = encoder_of(mixer=name), encoder_of(mixer=name, memory="slots", memory_width=CODES)
    missing = remembering.load_state_dict(plain.state_dict(), strict=False)
    assert all(part.startswith("far.") for part in missing.missing_keys)
    window = a_window()
    items = plain.items(TEXTS)
    expected = plain(window, items)
    assert torch.equal(remembering(window, items, a_far(len(expected))), expected)
    assert torch.equal(remembering(window, items), expected)


def test_memory_is_read_and_taught() -> None:
    encoder, window = with_memory(), a_window()
    items = encoder.items(TEXTS).detach()
    one, other = (encoder(window, items, a_far(len(window.items), seed=seed)) for seed in (1, 2))
    assert (one - other).abs().max() > 1e-3
    one.square().mean(dim=0).sum().backward()
    assert encoder.far is not None
    still = [part for part, value in encoder.far.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


def test_entries_without_weight_do_not_matter() -> None:
    encoder, window = with_memory(), a_window()
    items, far = encoder.items(TEXTS), a_far(len(window.items))
    gone = torch.tensor([1.0, 0.0, 1.0, 0.0])
    one = replace(far, weights=far.weights * gone)
    other = replace(one, vectors=torch.where(gone[:, None] > 0, far.vectors, 50.0), ages=far.ages + 9e3 * (1 - gone))
    fewer = Far(*(part[:, ::2] for part in (far.vectors, far.weights, far.ages, far.items)))
    expected = encoder(window, items, fewer)
    torch.testing.assert_close(encoder(window, items, one), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(encoder(window, items, other), expected, atol=1e-6, rtol=0)


def test_an_empty_memory_is_one_whose_entries_weigh_nothing() -> None:
    encoder, window = with_memory(), a_window()
    items, far = encoder.items(TEXTS), a_far(len(window.items))
    empty = encoder(window, items, a_far(len(window.items), 0))
    weightless = encoder(window, items, replace(far, weights=torch.zeros_like(far.weights)))
    assert empty.isfinite().all()
    torch.testing.assert_close(weightless, empty, atol=1e-6, rtol=0)


def test_the_order_of_memory_entries_does_not_matter() -> None:
    encoder, window = with_memory(), a_window()
    items, far = encoder.items(TEXTS), a_far(len(window.items))
    turned = Far(*(part.flip(1) for part in (far.vectors, far.weights, far.ages, far.items)))
    torch.testing.assert_close(encoder(window, items, turned), encoder(window, items, far), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("seen", "column"), [("times", "gaps"), ("values", "values")])
def test_what_the_config_leaves_out_is_not_seen(seen: str, column: str) -> None:
    window = a_window()
    other = replace(window, **{column: torch.where(window.valid, 9, 0)})
    for wanted in (True, False):
        encoder = encoder_of(**{seen: wanted})
        items = encoder.items(TEXTS)
        assert torch.equal(encoder(window, items), encoder(other, items)) is not wanted


def test_an_item_is_its_row_and_its_text() -> None:
    encoder = encoder_of()
    items = encoder.items(TEXTS)
    late = encoder.items.of_texts(TEXTS[:3])
    torch.testing.assert_close(items[:3] - encoder.items.id.weight[:3], late)
    untold = encoder_of(text_width=0)
    assert torch.equal(untold.items(TEXTS), untold.items.id.weight)
    assert not untold.items.of_texts(TEXTS[:3]).any()


def test_in_training_some_items_are_told_by_text_alone() -> None:
    encoder = encoder_of(by_id=0.5).train()
    alone = (encoder.items(TEXTS) - encoder.items.of_texts(TEXTS)).abs().sum(dim=1) < 1e-6
    assert 0.2 < alone.float().mean() < 0.8
    assert not ((encoder.eval().items(TEXTS) - encoder.items.of_texts(TEXTS)).abs().sum(dim=1) < 1e-6).any()


def test_the_vector_behind_padding_is_nobodys() -> None:
    encoder = encoder_of()
    window = latest_windows(histories_of([[3, 4], [5]]), 2, num_items=N)
    items = encoder.items(TEXTS).detach()
    changed = items.clone()
    changed[0] = 9.0  # the row that padding is clamped to
    assert window.items[1, 1] == PADDING
    assert torch.equal(encoder(window, items), encoder(window, changed))


def test_the_scale_of_cosines_is_bounded() -> None:
    encoder = encoder_of()
    assert encoder.scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        encoder.log_scale.fill_(9.0)
    assert encoder.scale.item() == MAX_SCALE


def test_scores_are_cosines_with_all_items_or_some() -> None:
    states: Tensor = torch.nn.functional.normalize(
        torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    items = torch.cat([7.0 * states[:2], torch.zeros(1, 4)])
    every = cosine_scores(states, items)
    torch.testing.assert_close(every.diagonal()[:2], torch.ones(2))
    assert not every[:, 2].any()
    rows = torch.tensor([[2, 0], [1, 1], [0, 1]])
    torch.testing.assert_close(cosine_scores(states, items, rows), every.gather(1, rows))
