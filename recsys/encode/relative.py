"""Attention that knows how far back an event lies, in steps and in seconds.

    score(t, s) = q_t k_s / sqrt(d) + place[bucket(t - s)] + time[bucket(seconds from s to t)]

A learnt bias a head for buckets of distance (T5: Raffel et al. 2020) and of elapsed time (TiSASRec: Li et al. 2020,
"Time interval aware self-attention"; in logarithmic buckets as in HSTU: Zhai et al. 2024), gated as HSTU is. Both
tables begin at zero: the layer starts as plain attention.

Letters: B users, T events, D dimensions, H heads.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.encode.attention import join, split
from recsys.encode.window import Window

_EXACT_STEPS = 16
PLACE_BUCKETS = 48
TIME_BUCKETS = 64


class RelativeAttention(nn.Module):
    """Causal gated attention with biases of distance and elapsed time.

    The bias holds B H T^2 numbers and takes attention off the flash path, where `GatedAttention` holds none: it is for
    short windows. Where all times are equal the time bias is one constant, which a softmax does not see.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, 4 * width)
        self.out = nn.Linear(width, width)
        self.place = nn.Parameter(torch.zeros(PLACE_BUCKETS, heads))
        self.time = nn.Parameter(torch.zeros(TIME_BUCKETS, heads))

    def forward(self, x: Float[Tensor, "B T D"], window: Window) -> Float[Tensor, "B T D"]:
        *parts, gate = self.into(self.norm(x)).chunk(4, dim=-1)
        q, k, v = (split(part, self.heads) for part in parts)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(window).to(q.dtype))
        out: Tensor = self.out(join(found) * F.silu(gate))
        return out

    def _bias(self, window: Window) -> Float[Tensor, "B H T T"]:
        index = torch.arange(window.items.shape[1], device=window.items.device)
        steps = index[:, None] - index
        bias = F.embedding(time_buckets(window), self.time) + F.embedding(place_buckets(steps), self.place)
        return bias.permute(0, 3, 1, 2).masked_fill(~_seen(steps, window)[:, None], -torch.inf)


def _seen(steps: Int[Tensor, "T T"], window: Window) -> Bool[Tensor, "B T T"]:
    """What went before and is known; every position sees itself, so that none sees nothing."""
    return ((steps > 0) & window.valid[:, None]) | (steps == 0)


def place_buckets(steps: Int[Tensor, "T T"]) -> Int[Tensor, "T T"]:
    """Steps back as they are up to 16, then in quarters of a power of two; steps ahead count as none."""
    beyond = 4.0 * torch.log2(steps.clamp(min=_EXACT_STEPS) / _EXACT_STEPS)
    return torch.where(steps < _EXACT_STEPS, steps.clamp(min=0), _EXACT_STEPS + beyond.long()).clamp(
        max=PLACE_BUCKETS - 1
    )


def time_buckets(window: Window) -> Int[Tensor, "B T T"]:
    """Seconds from each event to each later one, in halves of a power of two, as gaps are."""
    times = known_times(window)
    # In float64 until the difference: seconds since 1970 have no minutes in float32.
    elapsed = (times[:, :, None] - times[:, None]).float().nan_to_num(0.0).clamp(min=0.0)
    return (2.0 * torch.log2(1.0 + elapsed)).round().clamp(max=TIME_BUCKETS - 1).long()


def known_times(window: Window) -> Float[Tensor, "B T"]:
    """The time of each event; of one that is unknown, and of padding, that of the last one known (-inf: none yet)."""
    return window.times.masked_fill(~window.valid, -torch.inf).cummax(dim=1).values
