"""Every mixer keeps one contract; each sees exactly what it says, and the fast ones equal their plain twins.

Letters: B users, T events, N items, D width.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from recsys.encode.attention import join, split
from recsys.encode.history import HistoryEncoder, HistoryEncoderConfig
from recsys.encode.levels import LevelAttention, session_means, sessions
from recsys.encode.mixers import MIXERS
from recsys.encode.recurrence import SegmentAttention
from recsys.encode.relative import RelativeAttention, place_buckets, time_buckets
from recsys.encode.sliding import SlidingAttention
from recsys.encode.window import PADDING, Window

DAY_S = 86_400.0
WIDTH, HEADS = 16, 2
MASKING = sorted(set(MIXERS) - {"attention"})
"""`attention` has no mask but the causal one: what is unknown inside a window is an empty event to it."""

every_mixer = pytest.mark.parametrize("name", sorted(MIXERS))


def make(name: str, *, seed: int = 0) -> nn.Module:
    """A mixer whose every parameter matters: what begins at zero is moved."""
    torch.manual_seed(seed)
    mixer = MIXERS[name](WIDTH, HEADS, 128).eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return mixer


def window_of(lengths: list[int], T: int | None = None, *, seed: int = 0, pause_every: int = 7) -> Window:
    """Events an hour or so apart, and now and then two days."""
    T = max(lengths) if T is None else T
    B = len(lengths)
    source = torch.Generator().manual_seed(seed)
    steps = 3_600.0 * torch.rand(B, T, generator=source, dtype=torch.float64)
    steps[:, ::pause_every] += 2 * DAY_S
    valid = torch.arange(T) < torch.tensor(lengths)[:, None]
    nothing = torch.zeros(B, T, dtype=torch.int64)
    return Window(
        items=torch.where(valid, torch.randint(100, (B, T), generator=source), PADDING),
        types=nothing,
        values=nothing,
        gaps=nothing,
        times=torch.where(valid, 1.6e9 + steps.cumsum(dim=1), 0.0),
        lengths=torch.tensor(lengths),
    )


def even_window(B: int, T: int, *, step_s: float = 60.0) -> Window:
    return replace(window_of([T] * B), times=(step_s * torch.arange(T, dtype=torch.float64)).expand(B, -1))


def vectors(window: Window, *, seed: int = 1) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*window.items.shape, WIDTH, generator=source) * window.valid[..., None]


def seen_from(mixer: nn.Module, window: Window, position: int) -> set[int]:
    """Positions whose vector changes what the first user's `position` gets."""
    x = vectors(window).requires_grad_()
    mixer(x, window)[0, position].square().sum().backward()
    assert x.grad is not None
    return set(x.grad[0].abs().sum(dim=-1).nonzero().flatten().tolist())


@every_mixer
@pytest.mark.parametrize(("B", "T"), [(3, 70), (2, 1), (1, 32), (1, 16)])
def test_gives_what_it_was_given_a_vector_for_each_event(name: str, B: int, T: int) -> None:
    window = window_of([T] * B)
    out = make(name)(vectors(window), window)
    assert out.shape == (B, T, WIDTH)
    assert out.dtype == torch.float32
    assert out.isfinite().all()


@every_mixer
@pytest.mark.parametrize("last", [0, 15, 16, 31, 40])
def test_nothing_later_changes_what_went_before(name: str, last: int) -> None:
    mixer, window = make(name), window_of([70, 60])
    other = window_of([65, 70], seed=5, pause_every=3)
    x, y = vectors(window), vectors(other, seed=6)
    window.items[0, [0, 1, 9]] = PADDING  # unknown from the first on: there is nothing before to go by
    now = torch.arange(70) <= last
    changed = replace(
        window, items=torch.where(now, window.items, other.items), times=torch.where(now, window.times, other.times)
    )
    mine, theirs = mixer(x, window), mixer(torch.where(now[:, None], x, y), changed)
    torch.testing.assert_close(mine[:, : last + 1], theirs[:, : last + 1], atol=1e-5, rtol=0)
    assert (mine - theirs)[:, last + 1 :].abs().max() > 1e-3


@every_mixer
def test_padding_on_the_right_is_not_there(name: str) -> None:
    mixer, window = make(name), window_of([50, 50])
    wider = window_of([50, 50], T=90)
    wider = replace(wider, items=F.pad(window.items, (0, 40), value=PADDING), times=F.pad(window.times, (0, 40)))
    x = vectors(window)
    padded = torch.cat([x, torch.randn(2, 40, WIDTH)], dim=1)
    torch.testing.assert_close(mixer(padded, wider)[:, :50], mixer(x, window), atol=1e-5, rtol=0)


@every_mixer
def test_a_batch_is_its_users_one_by_one(name: str) -> None:
    lengths = [70, 1, 33, 16, 48]
    mixer, window = make(name), window_of(lengths)
    x = vectors(window)
    together = mixer(x, window)
    for user, length in enumerate(lengths):
        found = mixer(x[user : user + 1, :length], _alone(window, user, length))
        torch.testing.assert_close(together[user : user + 1, :length], found, atol=1e-5, rtol=0)


def _alone(window: Window, user: int, length: int) -> Window:
    columns = {f.name: getattr(window, f.name)[user : user + 1] for f in fields(window)}
    return Window(**{name: column[:, :length] if column.ndim == 2 else column for name, column in columns.items()})


@pytest.mark.parametrize("name", MASKING)
def test_nobody_sees_an_unknown_event(name: str) -> None:
    mixer, window = make(name), even_window(1, 40)
    hole = torch.zeros(1, 40, dtype=torch.bool)
    hole[0, [0, 5, 6, 33]] = True
    window = replace(window, items=window.items.masked_fill(hole, PADDING), times=window.times.masked_fill(hole, 0.0))
    x = torch.randn(1, 40, WIDTH, generator=torch.Generator().manual_seed(2))
    mine, theirs = mixer(x, window), mixer(torch.where(hole[..., None], 3.0 - x, x), window)
    assert mine.isfinite().all()
    torch.testing.assert_close(mine[~hole], theirs[~hole], atol=1e-6, rtol=0)


@every_mixer
def test_gradients_reach_all_parameters(name: str) -> None:
    torch.manual_seed(0)
    mixer, window = MIXERS[name](WIDTH, HEADS, 128), window_of([70, 60])  # as it begins, zeros and all
    out = mixer(vectors(window), window)
    (out * torch.randn_like(out)).sum().backward()
    still = [part for part, value in mixer.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


@every_mixer
def test_asked_twice_it_answers_the_same(name: str) -> None:
    mixer, window = make(name), window_of([70, 60])
    x = vectors(window)
    assert torch.equal(mixer(x, window), mixer(x, window))


@every_mixer
def test_works_in_bfloat16(name: str) -> None:
    mixer, window = make(name), window_of([50, 40])
    x = vectors(window)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = mixer(x, window)
    torch.testing.assert_close(rough.float(), mixer(x, window), atol=0.1, rtol=0.1)


@every_mixer
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_a_cpu_gives(name: str) -> None:
    mixer, window = make(name), window_of([70, 1, 33])
    x = vectors(window)
    mine = mixer(x, window)
    theirs = mixer.cuda()(x.cuda(), window.to("cuda")).cpu()
    torch.testing.assert_close(theirs[window.valid], mine[window.valid], atol=1e-3, rtol=1e-3)


N, STRANDS = 20, 2


def braids(B: int, T: int, seed: int) -> Tensor:
    """Lives of two chains in turns: what comes next follows from the event before the last, and not from the last."""
    source = torch.Generator().manual_seed(seed)
    place = torch.arange(T)
    return (torch.randint(N, (B, STRANDS), generator=source)[:, place % STRANDS] + place // STRANDS) % N


@every_mixer
def test_learns_what_the_last_event_alone_does_not_tell(name: str) -> None:
    torch.manual_seed(0)
    encoder = HistoryEncoder(
        HistoryEncoderConfig(
            num_items=N, mixer=name, window=16, width=16, blocks=1, dropout=0.0, times=False, values=False
        )
    )
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    texts = torch.zeros(N, 0)
    for step in range(150):
        logits, following = _ask(encoder, braids(24, 17, step), texts)
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), following.flatten()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    logits, following = _ask(encoder.eval(), braids(200, 17, 1_000), texts)
    right = (logits.argmax(dim=-1) == following)[:, STRANDS:].float().mean()
    assert right > 0.8  # chance, and the last event alone: .05


def _ask(encoder: HistoryEncoder, lives: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of all items after each event, and what came."""
    items = encoder.items(texts)
    window = replace(even_window(len(lives), lives.shape[1] - 1), items=lives[:, :-1])
    states = encoder(window, items)
    return encoder.scale * states @ F.normalize(items, dim=-1).T, lives[:, 1:]


@pytest.mark.parametrize("name", ["attention", "relative", "lstm"])
def test_the_whole_past_is_seen(name: str) -> None:
    assert seen_from(make(name), even_window(1, 40), 37) == set(range(38))


@pytest.mark.parametrize(
    ("position", "seen"),
    [
        (3, {0, 1, 2, 3}),
        (31, set(range(32))),
        (33, set(range(34))),
        (34, {0, 1, *range(3, 35)}),
        (69, {0, 1, *range(38, 70)}),
    ],
)
def test_sliding_sees_the_latest_and_the_first(position: int, seen: set[int]) -> None:
    torch.manual_seed(0)
    assert seen_from(SlidingAttention(WIDTH, HEADS, near=32, first=2), even_window(1, 70), position) == seen


@pytest.mark.parametrize(("near", "first"), [(32, 4), (8, 0), (5, 7), (1, 1), (100, 4)])
def test_sliding_is_masked_full_attention(near: int, first: int) -> None:
    torch.manual_seed(0)
    mixer, window = SlidingAttention(WIDTH, HEADS, near=near, first=first).eval(), window_of([70, 43, 1])
    x = vectors(window)
    t, s = torch.arange(70)[:, None], torch.arange(70)
    seen = (t >= s) & ((t - s < near) | (s < first)) & window.valid[:, None] | (t == s)
    *parts, gate = mixer.into(mixer.norm(x)).chunk(4, dim=-1)
    q, k, v = (split(part, HEADS) for part in parts)
    weights = (q @ k.mT / math.sqrt(WIDTH // HEADS)).masked_fill(~seen[:, None], -torch.inf).softmax(dim=-1)
    torch.testing.assert_close(mixer(x, window), mixer.out(join(weights @ v) * F.silu(gate)), atol=1e-5, rtol=1e-5)


class Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the elements of all that torch makes while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [part.numel() for part in (out if isinstance(out, tuple | list) else [out]) if isinstance(part, Tensor)]
        self.total += sum(sizes)
        self.largest = max([self.largest, *sizes])
        return out


def _sizes(mixer: nn.Module, T: int) -> Sizes:
    window, sizes = even_window(1, T), Sizes()
    x = vectors(window).requires_grad_()
    with sizes:
        mixer(x, window).sum().backward()
    return sizes


@pytest.mark.parametrize("name", ["sliding", "segment", "lstm"])
def test_a_linear_mixer_makes_twice_as_much_for_twice_the_events(name: str) -> None:
    mixer = make(name)
    short, long = _sizes(mixer, 1_024), _sizes(mixer, 2_048)
    assert long.total <= 2.02 * short.total
    assert long.largest <= 2.02 * short.largest
    assert long.largest < 2_048 * 2_048


def test_the_count_of_elements_knows_a_square_when_it_sees_one() -> None:
    short, long = _sizes(make("relative"), 256), _sizes(make("relative"), 512)
    assert long.total > 3 * short.total
    assert long.largest >= 512 * 512


@pytest.mark.parametrize(("position", "seen"), [(7, range(8)), (9, range(10)), (15, range(16)), (25, range(16, 26))])
def test_a_segment_sees_the_one_before_it_whole(position: int, seen: range) -> None:
    torch.manual_seed(0)
    mixer = SegmentAttention(WIDTH, HEADS, segment=8, stop_gradient=False)
    assert seen_from(mixer, even_window(1, 40), position) == set(seen)


def test_the_segment_before_is_remembered_and_not_taught() -> None:
    torch.manual_seed(0)
    taught, stopped = (SegmentAttention(WIDTH, HEADS, segment=8, stop_gradient=stop) for stop in (False, True))
    stopped.load_state_dict(taught.state_dict())
    window = even_window(1, 40)
    x = vectors(window)
    assert torch.equal(taught(x, window), stopped(x, window))
    assert seen_from(stopped, window, 25) == {24, 25}


def test_segments_at_once_are_segments_one_after_the_other() -> None:
    """The twin walks through the segments and carries the last one's vectors, as the paper tells it."""
    torch.manual_seed(0)
    n, d = 8, WIDTH // HEADS
    mixer, window = SegmentAttention(WIDTH, HEADS, segment=n).eval(), even_window(2, 29)
    with torch.no_grad():
        for bias in (mixer.any_content, mixer.any_place):
            bias.add_(torch.randn_like(bias))
    x = vectors(window)
    places = split(mixer.place(mixer.sinusoids)[None], HEADS)[0]
    carried, found = x[:, :0], []
    for start in range(0, 29, n):
        part = x[:, start : start + n]
        q, gate = mixer.ask(mixer.norm(part)).chunk(2, dim=-1)
        k, v = (split(a, HEADS) for a in mixer.keep(mixer.norm(torch.cat([carried, part], dim=1))).chunk(2, dim=-1))
        back = carried.shape[1] + torch.arange(part.shape[1])[:, None] - torch.arange(k.shape[2])
        q = split(q, HEADS)
        by_place = ((q + mixer.any_place)[:, :, :, None] * places[:, back.clamp(min=0)]).sum(dim=-1)
        scores = ((q + mixer.any_content) @ k.mT + by_place) / math.sqrt(d)
        weights = scores.masked_fill(back < 0, -torch.inf).softmax(dim=-1)
        found.append(mixer.out(join(weights @ v) * F.silu(gate)))
        carried = part
    torch.testing.assert_close(mixer(x, window), torch.cat(found, dim=1), atol=1e-5, rtol=1e-5)


def test_an_lstm_goes_on_over_unknown_events_as_if_they_were_not_there() -> None:
    mixer, window = make("lstm"), even_window(1, 9)
    hole = torch.zeros(1, 9, dtype=torch.bool)
    hole[0, [0, 3, 4]] = True
    holed = replace(window, items=window.items.masked_fill(hole, PADDING))
    x = vectors(window)
    without = mixer(x[~hole][None], even_window(1, 6))
    torch.testing.assert_close(mixer(x, holed)[~hole], without[0], atol=1e-6, rtol=0)


def test_steps_back_are_exact_near_and_coarse_far() -> None:
    steps = torch.tensor([[-3, 0, 1, 15], [16, 19, 20, 32], [64, 128, 4_000, 10**6], [0, 0, 0, 0]])
    assert place_buckets(steps).tolist() == [[0, 0, 1, 15], [16, 16, 17, 20], [24, 28, 47, 47], [0, 0, 0, 0]]


def test_seconds_and_years_have_buckets_of_their_own() -> None:
    times = 1.6e9 + torch.tensor([[0.0, 0.0, 60.0, 3_600.0, DAY_S, 365 * DAY_S]], dtype=torch.float64)
    window = replace(window_of([6]), times=times)
    since_first = time_buckets(window)[0, :, 0].tolist()
    assert since_first == [0, 0, 12, 24, 33, 50]
    assert time_buckets(window)[0].triu(1).any() == torch.tensor(False)


@pytest.mark.parametrize("bucket", ["time", "place"])
def test_a_bias_takes_away_what_is_too_far(bucket: str) -> None:
    torch.manual_seed(0)
    mixer, window = RelativeAttention(WIDTH, HEADS), even_window(1, 40, step_s=3_600.0)
    with torch.no_grad():
        getattr(mixer, bucket)[26 if bucket == "time" else 5 :] = -1e9  # more than an hour and a half; 5 steps or more
    assert seen_from(mixer, window, 30) == (set(range(29, 31)) if bucket == "time" else set(range(26, 31)))


def test_equal_times_say_nothing() -> None:
    mixer, window = make("relative"), even_window(2, 30)
    x = vectors(window)
    still = replace(window, times=torch.full((2, 30), 7.0, dtype=torch.float64))
    before = mixer(x, still)
    assert (mixer(x, window) - before).abs().max() > 1e-3
    with torch.no_grad():
        mixer.get_parameter("time").add_(3.0)
    torch.testing.assert_close(mixer(x, still), before, atol=1e-5, rtol=0)


def test_sessions_end_with_a_long_pause_or_after_sixteen() -> None:
    hours = torch.tensor([[0, 1, 25, 50, 50, 51] + [51] * 20], dtype=torch.float64)
    window = replace(window_of([26]), times=3_600.0 * hours)
    assert sessions(window).tolist() == [[0, 0, 0] + [1] * 16 + [2] * 7]
    assert sessions(even_window(1, 40)).tolist() == [[0] * 16 + [1] * 16 + [2] * 8]


def test_unknown_events_and_padding_end_no_session() -> None:
    times = torch.tensor([[0.0, 1e9, 0.0, 1e9 + 60, 0.0, 0.0]], dtype=torch.float64)
    items = torch.tensor([[PADDING, 3, PADDING, 4, PADDING, PADDING]])
    window = replace(window_of([6]), times=times, items=items)
    assert sessions(window).diff(dim=1)[0, 1:].tolist() == [0, 0, 0, 0]


def test_a_session_is_the_mean_of_its_known_events() -> None:
    window = replace(window_of([4]), items=torch.tensor([[1, 2, PADDING, 3]]))
    means, counts = session_means(
        torch.tensor([[[1.0, 0.0], [3.0, 2.0], [99.0, 99.0], [5.0, 5.0]]]), torch.tensor([[0, 0, 0, 2]]), window
    )
    assert means.tolist() == [[[2.0, 1.0], [0.0, 0.0], [5.0, 5.0]]]
    assert counts.tolist() == [[2.0, 0.0, 1.0]]


@pytest.mark.parametrize(("position", "near"), [(3, {0, 1, 2, 3}), (9, {7, 8, 9}), (23, {21, 22, 23})])
def test_levels_see_their_own_session_and_finished_ones(position: int, near: set[int]) -> None:
    torch.manual_seed(0)
    mixer, window = LevelAttention(WIDTH, HEADS), window_of([24])  # a pause every 7 events
    ended = set(range(position // 7 * 7))
    assert seen_from(mixer, window, position) == near | ended
    torch.nn.init.zeros_(mixer.into.weight[5 * WIDTH :])  # the far gate
    with torch.no_grad():
        mixer.into.bias[5 * WIDTH :] = 0.0
    assert seen_from(mixer, window, position) == near


def test_a_finished_session_is_seen_as_its_mean() -> None:
    """Two sessions whose vectors have the same mean behind the norm are one to those who come later."""
    torch.manual_seed(0)
    mixer, window = LevelAttention(WIDTH, HEADS).eval(), window_of([14])
    x = vectors(window)
    swapped = x[:, [6, 5, 4, 3, 2, 1, 0, *range(7, 14)]]
    mine, theirs = mixer(x, window), mixer(swapped, window)
    torch.testing.assert_close(mine[:, 7:], theirs[:, 7:], atol=1e-5, rtol=0)
    assert (mine - theirs)[:, :7].abs().max() > 1e-3


@every_mixer
@pytest.mark.parametrize("lengths", [[0], [0, 0, 5], [0, 70]])
def test_an_empty_window_spoils_nothing(name: str, lengths: list[int]) -> None:
    mixer, window = make(name), window_of(lengths, T=max(*lengths, 1))
    x = vectors(window).requires_grad_()
    out = mixer(x, window)
    assert out.isfinite().all()
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
