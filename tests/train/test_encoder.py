"""What a history encoder is asked while it learns, and that it learns it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.data.histories import Histories, histories_from_events
from recsys.encode.history import HistoryEncoder, HistoryEncoderConfig, cosine_scores
from recsys.encode.window import Far, latest_windows
from recsys.errors import InvalidInput
from recsys.memory.keys import following
from recsys.train.encoder import Batch, Corpus, EncoderTraining, TrainingState, begin, next_item_loss, train
from tests.world import chains, histories_of

QUICK = EncoderTraining(epochs=2, tokens=400, warmup_steps=5, negatives=None)


def encoder_of(num_items: int, *, seed: int = 0, **options: object) -> HistoryEncoder:
    torch.manual_seed(seed)
    small: dict[str, object] = {"width": 16, "blocks": 1, "window": 12, "times": False, "values": False}
    return HistoryEncoder(HistoryEncoderConfig(num_items=num_items, **{**small, **options}))  # type: ignore[arg-type]  # a test's options


def no_texts(num_items: int) -> torch.Tensor:
    return torch.zeros(num_items, 0)


def counting_lives(*lengths: int, stride: int = 100) -> Histories:
    """User u does u * stride, u * stride + 1, ...: the next item is always one more, and every item names its place."""
    return histories_of([[user * stride + step for step in range(length)] for user, length in enumerate(lengths)])


def baskets_of(lives: list[list[list[int]]]) -> Histories:
    rows = [
        (user, item, float(at), at)
        for user, life in enumerate(lives)
        for at, basket in enumerate(life)
        for item in basket
    ]
    users, items, times, baskets = (np.array(column) for column in zip(*rows, strict=True))
    return histories_from_events(
        users.astype(np.int32),
        items.astype(np.int32),
        times.astype(np.float64),
        num_users=len(lives),
        baskets=baskets.astype(np.int32),
    )


def all_batches(corpus: Corpus, config: EncoderTraining, *, seed: int = 0) -> list[Batch]:
    return list(corpus.batches(config, np.random.default_rng(seed)))


# What comes next


def test_next_is_the_next_event_of_the_same_user() -> None:
    first, count = following(counting_lives(3, 0, 1, 2))
    assert count.tolist() == [1, 1, 0, 0, 1, 0]
    assert first[count > 0].tolist() == [1, 2, 5]


def test_next_is_the_whole_next_basket() -> None:
    histories = baskets_of([[[1, 2], [3], [4, 5, 6]], [[7, 8]], [[9], [10, 11]]])
    first, count = following(histories)
    told = [histories.items[at : at + many].tolist() for at, many in zip(first, count, strict=True)]
    assert told == [[3], [3], [4, 5, 6], [], [], [], [], [], [10, 11], [], []]


def test_over_time_every_item_of_the_next_basket_is_asked() -> None:
    corpus = Corpus.of(baskets_of([[[0], [1, 2, 3]]]), window=4, num_items=4)
    asked = {int(batch.targets[0, 0]) for seed in range(40) for batch in all_batches(corpus, QUICK, seed=seed)}
    assert asked == {1, 2, 3}


# Windows


def test_targets_are_the_next_events_and_all_users_are_asked() -> None:
    histories = counting_lives(2, 30, 7, 1, 12)
    corpus = Corpus.of(histories, window=5, num_items=500)
    for seed in range(10):
        users = []
        for batch in all_batches(corpus, QUICK, seed=seed):
            asked = batch.targets >= 0
            assert torch.equal(asked, batch.window.valid)
            assert torch.equal(batch.targets[asked], batch.window.items[asked] + 1)
            users += (batch.window.items[:, 0] // 100).tolist()
        assert sorted(users) == [0, 1, 2, 4]


def test_no_target_lies_beyond_the_memory() -> None:
    corpus = Corpus.of(counting_lives(30, 20).drop_last(2), window=5, num_items=500)
    asked = torch.cat(
        [batch.targets.flatten() for seed in range(30) for batch in all_batches(corpus, QUICK, seed=seed)]
    )
    assert asked[asked < 100].max() == 27
    assert asked.max() == 117


def test_a_share_of_windows_ends_with_the_history() -> None:
    corpus = Corpus.of(counting_lives(*[40] * 300), window=5, num_items=30_000)
    half = replace(QUICK, latest=0.5)
    ends = torch.cat([b.targets.amax(dim=1) % 100 for seed in range(8) for b in all_batches(corpus, half, seed=seed)])
    assert float((ends == 39).float().mean()) == pytest.approx(0.5 + 0.5 / 35, abs=0.04)
    assert len(set(ends.tolist())) > 30


def test_windows_begin_where_the_far_memory_knows_what_came_before() -> None:
    seen: list[tuple[int, int]] = []

    def far(users: np.ndarray, starts: np.ndarray) -> Far:
        seen.extend(zip(users.tolist(), starts.tolist(), strict=True))
        return Far(*(torch.zeros(len(users), 1, *more) for more in ((3,), (), ())), torch.full((len(users), 1, 1), -1))

    corpus = Corpus.of(counting_lives(40, 9, 23), window=6, num_items=500, every=4, far=far)
    begun = [
        (int(items[0]) // 100, int(items[0]) % 100)
        for seed in range(30)
        for batch in all_batches(corpus, QUICK, seed=seed)
        for items in batch.window.items
    ]
    assert begun == seen
    assert {start % 4 for _, start in seen} == {0}
    assert len({start for user, start in seen if user == 0}) > 5


def test_padding_stays_within_the_budget() -> None:
    corpus = Corpus.of(counting_lives(*range(2, 60)), window=40, num_items=6_000)
    batches = all_batches(corpus, replace(QUICK, tokens=100))
    assert max(batch.window.items.numel() for batch in batches) <= 100
    assert sum(len(batch.targets) for batch in batches) == 58


def test_unknown_items_are_neither_seen_nor_asked() -> None:
    corpus = Corpus.of(counting_lives(6), window=5, num_items=3)
    (batch,) = all_batches(corpus, QUICK)
    assert batch.window.items.tolist() == [[0, 1, 2, -1, -1]]
    assert batch.targets.tolist() == [[1, 2, -1, -1, -1]]


def test_nobody_with_two_events_is_refused() -> None:
    with pytest.raises(InvalidInput, match="events"):
        Corpus.of(counting_lives(1, 0, 1), window=5, num_items=500)


# The loss


def loss_of(encoder: HistoryEncoder, batch: Batch, config: EncoderTraining, met: int, **more: object) -> torch.Tensor:
    texts = no_texts(encoder.config.num_items)
    return next_item_loss(encoder, batch, texts, torch.arange(met), config, **more)  # type: ignore[arg-type]  # a test's options


def test_sampled_negatives_estimate_the_full_softmax() -> None:
    encoder = encoder_of(60).eval()
    encoder.log_scale.data.zero_()  # or the logarithm of a noisy sum lies well below that of its mean
    corpus = Corpus.of(chains(60, 60).histories, window=12, num_items=60)
    batch = all_batches(corpus, replace(QUICK, tokens=10_000))[0]
    with torch.no_grad():
        exact = loss_of(encoder, batch, QUICK, 60)
        sampled = [loss_of(encoder, batch, replace(QUICK, negatives=59), 60) for _ in range(60)]
    assert float(torch.stack(sampled).mean()) == pytest.approx(float(exact), rel=0.02)


def test_a_batch_that_asks_nothing_costs_nothing() -> None:
    encoder = encoder_of(500)
    (batch,) = all_batches(Corpus.of(counting_lives(6), window=5, num_items=500), QUICK)
    loss = loss_of(encoder, replace(batch, targets=torch.full_like(batch.targets, -1), far=None), QUICK, 500)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
    assert loss.item() == 0.0
    assert all(torch.isfinite(value.grad).all() for value in encoder.parameters() if value.grad is not None)


def test_a_type_of_weight_zero_teaches_nothing() -> None:
    lives = counting_lives(8, 8)
    typed = replace(lives, types=(lives.users == 1).astype(np.int16), event_types=("view", "return"))
    encoder = encoder_of(500, num_types=2).eval()
    (batch,) = all_batches(Corpus.of(typed, window=12, num_items=500), QUICK)

    def gradients(batch: Batch, weights: dict[str, float]) -> torch.Tensor:
        encoder.zero_grad()
        config = replace(QUICK, weight_by_type=weights)
        loss_of(encoder, batch, config, 500, event_types=typed.event_types).backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        return torch.cat([value.grad.flatten() for value in encoder.parameters() if value.grad is not None])

    viewed = batch.window.types[:, :1] == 0
    without = replace(batch, targets=torch.where(viewed, batch.targets, -1), far=None)
    torch.testing.assert_close(gradients(batch, {"return": 0.0}), gradients(without, {}))
    assert not torch.allclose(gradients(batch, {"return": 0.5}), gradients(without, {}))


# Training


def test_a_world_of_chains_is_learnt() -> None:
    """The next item is one more three times of four: nothing can be right much more often on lives it has not met."""
    told, fresh = chains(250, 40, seed=0).histories, chains(250, 40, seed=1).histories
    for negatives in (None, 16):
        config = EncoderTraining(epochs=14, tokens=600, learning_rate=1e-2, warmup_steps=10, negatives=negatives)
        encoder = train(begin(encoder_of(40), config), Corpus.of(told, window=12, num_items=40), no_texts(40), config)
        right = first_places(encoder, fresh)
        assert 0.6 < right < 0.85


def first_places(encoder: HistoryEncoder, histories: Histories) -> float:
    """How often the last event is what is expected first after those before it."""
    items = encoder.items(no_texts(encoder.config.num_items))
    window = latest_windows(histories.drop_last(1), encoder.config.window, num_items=len(items))
    with torch.no_grad():
        best = cosine_scores(encoder.last(window, items), items).argmax(dim=1).numpy()
    return float((best == histories.items[histories.indptr[1:] - 1]).mean())


def test_one_seed_gives_one_encoder() -> None:
    corpus = Corpus.of(chains(40, 30).histories, window=12, num_items=30)

    def weights(seed: int) -> torch.Tensor:
        config = replace(QUICK, seed=seed, negatives=8)
        trained = train(begin(encoder_of(30), config), corpus, no_texts(30), config)
        return torch.cat([value.flatten() for value in trained.state_dict().values()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize("negatives", [None, 5])
def test_items_that_nobody_met_are_never_pushed_away(negatives: int | None) -> None:
    config = replace(QUICK, negatives=negatives, weight_decay=0.0)
    encoder = encoder_of(40, text_width=4, by_id=1.0)
    began = encoder.items.id.weight[30:].detach().clone()
    met = encoder.items.id.weight[:30].detach().clone()
    seen: list[bool] = []

    def on_epoch(state: TrainingState) -> None:
        seen.append(torch.equal(state.encoder.items.id.weight[30:], began))

    texts = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    corpus = Corpus.of(chains(60, 30).histories, window=12, num_items=40)
    trained = train(begin(encoder, config), corpus, texts, config, on_epoch=on_epoch)
    assert seen == [True, True]
    assert (trained.items.id.weight[:30] != met).all(dim=1).any()
    # They end as their text alone.
    assert torch.equal(trained.items.id.weight[30:], torch.zeros(10, 16))
    torch.testing.assert_close(trained.items(texts)[30:], trained.items.of_texts(texts[30:]))


def test_the_best_weights_that_the_probe_saw_are_kept_and_patience_ends() -> None:
    figures = iter([0.1, 0.5, 0.3, 0.2, 0.4])
    weights: list[torch.Tensor] = []

    def probe(encoder: HistoryEncoder) -> float:
        assert not encoder.training
        weights.append(encoder.position.weight.detach().clone())
        return next(figures)

    config = replace(QUICK, epochs=20, probe_every=1, patience=3)
    state = begin(encoder_of(30), config)
    trained = train(
        state, Corpus.of(chains(40, 30).histories, window=12, num_items=30), no_texts(30), config, probe=probe
    )
    assert [row["probe"] for row in state.curve] == [0.1, 0.5, 0.3, 0.2, 0.4]
    assert state.best == 0.5
    assert torch.equal(trained.position.weight, weights[1])
    assert not torch.equal(weights[1], weights[4])


@pytest.mark.gpu
def test_a_gpu_learns_as_the_cpu_does() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    corpus = Corpus.of(chains(100, 40).histories, window=12, num_items=40)

    def curve(device: str) -> list[float]:
        config = replace(QUICK, epochs=6, device=device, learning_rate=5e-3)
        state = begin(encoder_of(40, dropout=0.0), config)
        trained = train(state, corpus, no_texts(40), config)
        assert next(trained.parameters()).device.type == device
        return [row["loss"] for row in state.curve]

    np.testing.assert_allclose(curve("cuda"), curve("cpu"), rtol=1e-3)
