"""A world that turns around: what was learnt is forgotten, less so where it is replayed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from recsys.data.histories import Histories
from recsys.encode.history import HistoryEncoder, HistoryEncoderConfig
from recsys.encode.window import latest_windows
from recsys.errors import InvalidInput
from recsys.train.encoder import Corpus, EncoderTraining, begin, train
from recsys.train.forgetting import Moments, continue_training, grow, joined, last_moments, next_item_ndcg
from tests.world import chains, histories_of, renumbered

N = 40
FIRST = EncoderTraining(epochs=14, tokens=600, learning_rate=1e-2, warmup_steps=10, negatives=None)
ON = EncoderTraining(epochs=10, tokens=600, learning_rate=3e-3, negatives=None)
BACKWARDS = np.arange(N)[::-1]


def encoder_of(**options: Any) -> HistoryEncoder:
    torch.manual_seed(0)
    small = {"num_items": N, "width": 32, "blocks": 1, "window": 12, "times": False, "values": False}
    return HistoryEncoder(HistoryEncoderConfig(**{**small, **options}))


def texts(num_items: int = N) -> torch.Tensor:
    return torch.zeros(num_items, 0)


@cache
def turned() -> tuple[HistoryEncoder, Histories, Histories]:
    """An encoder that learnt lives of i, i + 1, ..., and the same users going backwards since."""
    old = chains(150, N, seed=0).histories
    new = renumbered(chains(150, N, seed=1).histories, BACKWARDS)
    encoder = train(begin(encoder_of(), FIRST), Corpus.of(old.drop_last(1), window=12, num_items=N), texts(), FIRST)
    return encoder, old, new


def test_replay_keeps_what_was_learnt() -> None:
    encoder, old, new = turned()
    _, without = continue_training(encoder, old, new, texts(), ON, replay=0.0)
    _, with_replay = continue_training(encoder, old, new, texts(), ON, replay=0.4)
    for report in (without, with_replay):
        assert list(report) == ["old_before", "old_after", "new_before", "new_after"]
        assert report["old_before"] > 0.6
        assert report["new_before"] < 0.3
        assert report["new_after"] > report["new_before"] + 0.3
    assert without["old_after"] < without["old_before"] - 0.3
    assert with_replay["old_after"] > without["old_after"] + 0.15


def test_the_encoder_given_stays_and_one_seed_gives_one_result() -> None:
    encoder, old, new = turned()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    quick = replace(ON, epochs=1)
    first, report = continue_training(encoder, old, new, texts(), quick)
    second, again = continue_training(encoder, old, new, texts(), quick)
    assert report == again
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.position.weight, encoder.position.weight)


def test_nothing_learns_from_what_is_held_out() -> None:
    """Other held-out items give the same weights, with and without replay."""
    encoder, old, new = turned()

    def elsewhere(histories: Histories) -> Histories:
        held = histories.ages == 0
        return replace(histories, items=np.where(held, (histories.items + 11) % N, histories.items).astype(np.int32))

    quick = replace(ON, epochs=1)
    told, _ = continue_training(encoder, old, new, texts(), quick, replay=0.5)
    other, _ = continue_training(encoder, old, elsewhere(new), texts(), quick, replay=0.5)
    assert torch.equal(told.items.id.weight, other.items.id.weight)
    # The last old event is context of the new ones, so it may be seen, but it is never asked.
    alone = histories_of([[1, 2, 3], [4, 5, 6]])
    assert last_moments(alone).targets.tolist() == [3, 6]


def test_new_items_start_from_their_text() -> None:
    encoder = encoder_of(text_width=4)
    vectors = torch.randn(N + 3, 4, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    grown = grow(encoder, N + 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert grown.config.num_items == N + 3
    encoder.eval()
    torch.testing.assert_close(grown.eval().items(vectors)[:N], encoder.items(vectors[:N]))
    torch.testing.assert_close(grown.items(vectors)[N:], encoder.items.of_texts(vectors[N:]))
    window = latest_windows(chains(20, N).histories, 12, num_items=N)
    torch.testing.assert_close(
        grown.last(window, grown.items(vectors)), encoder.last(window, encoder.items(vectors[:N]))
    )
    with pytest.raises(InvalidInput, match="num_items"):
        grow(grown, N)


def test_new_items_and_new_users_are_learnt() -> None:
    """Items N..N+9 came since, without a text, and new users walk them."""
    encoder, old, _ = turned()
    walks = [[N + (start + step) % 10 for step in range(8)] for start in range(10) for _ in range(4)]
    nothing: list[list[int]] = [[]] * len(old)
    new = histories_of(nothing + walks)
    learner, report = continue_training(
        encoder, old, new, texts(N + 10), replace(ON, epochs=20, tokens=120), replay=0.3
    )
    assert learner.config.num_items == N + 10
    assert report["new_before"] < 0.2
    assert report["new_after"] > 0.8
    assert report["old_after"] > report["old_before"] - 0.2


def test_items_that_came_and_nobody_met_stay_their_text() -> None:
    encoder, old, new = turned()
    learner, _ = continue_training(encoder, old, new, texts(N + 2), replace(ON, epochs=1))
    assert torch.equal(learner.items.id.weight[N:], torch.zeros(2, 32))


def test_lives_are_joined_in_order_whatever_the_clock() -> None:
    old, new = histories_of([[1, 2], [], [3]]), histories_of([[4], [5, 6], [7], [8, 9]])
    life = joined(old, new)
    assert [life.items[life.slice(user)].tolist() for user in range(4)] == [[1, 2, 4], [5, 6], [3, 7], [8, 9]]
    assert life.times.tolist() == [0, 1, 0, 0, 1, 0, 0, 0, 1]
    with pytest.raises(InvalidInput, match="event_types"):
        joined(old, replace(new, event_types=("buy",)))
    with pytest.raises(InvalidInput, match="clock"):
        joined(old, replace(new, clock="timestamp"))


def test_held_out_moments_are_last_events() -> None:
    moments = last_moments(histories_of([[1, 2, 3], [4], [], [5, 6]]))
    assert moments.targets.tolist() == [3, 6]
    assert moments.past.items.tolist() == [1, 2, 5]
    chosen = last_moments(histories_of([[1, 2, 3], [5, 6]]), np.array([False, True]))
    assert chosen.targets.tolist() == [6]


def test_the_figure_is_the_place_of_the_next_item() -> None:
    """An encoder that answers with the last item's own vector: the next item's place is told by cosines alone."""
    encoder = encoder_of(num_items=3)
    moments = Moments(past=histories_of([[0], [1]]), targets=np.array([2, 2]))
    items = encoder.eval().items(texts(3))
    window = latest_windows(moments.past, 12, num_items=3)
    scores = encoder.last(window, items) @ torch.nn.functional.normalize(items, dim=-1).T
    places = (scores > scores[:, 2:]).sum(dim=1)
    expected = float((1.0 / torch.log2(places + 2.0)).mean())
    assert next_item_ndcg(encoder, moments, texts(3)) == pytest.approx(expected, rel=1e-5)
    assert np.isnan(next_item_ndcg(encoder, last_moments(histories_of([[1]])), texts(3)))


def test_what_cannot_be_done_is_said() -> None:
    encoder, old, new = turned()
    with pytest.raises(InvalidInput, match="replay"):
        continue_training(encoder, old, new, texts(), ON, replay=1.0)
    with pytest.raises(InvalidInput, match="nobody has a new event"):
        continue_training(encoder, old, histories_of([[1]] + [[]] * 149), texts(), ON)
    with pytest.raises(InvalidInput, match="fewer users"):
        continue_training(encoder, old, histories_of([[1, 2]]), texts(), ON)
    with pytest.raises(InvalidInput, match="memory"):
        continue_training(encoder_of(memory=4), old, new, texts(), ON)
