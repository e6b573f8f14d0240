"""Layers that carry a state along the life: a segment's keys into the next one, or a gated cell from event to event.

Both cost T, whatever T. A segment reaches one segment back in each layer; a cell has no bound but its forgetting.

Letters: B users, T events, C segments, n events of a segment, m = 2 n keys that it asks, N = B C, R distances,
D dimensions, H heads, d dimensions of a head.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.encode.attention import join, split
from recsys.encode.sliding import chunks, steps_back, with_previous
from recsys.encode.window import Window


class SegmentAttention(nn.Module):
    """Attention within a segment and to the whole segment before it, with relative places.

        score(i, j) = [(q_i + a) k_j + (q_i + b) (W r_{i-j})] / sqrt(d)

    Transformer-XL (Dai et al. 2019), XLNet (Yang et al. 2019): r are sinusoids of the distance, a and b are learnt for
    each head. What the segment before held is remembered, not taught: no gradient flows into it (`stop_gradient`). Its
    vectors are those of the same layer's input, so all segments are worked at once and give what one after the other
    would.
    """

    sinusoids: Tensor

    def __init__(self, width: int, heads: int, *, segment: int = 32, stop_gradient: bool = True) -> None:
        super().__init__()
        self.heads, self.segment, self.stop_gradient = heads, segment, stop_gradient
        self.norm = nn.LayerNorm(width)
        self.ask = nn.Linear(width, 2 * width)
        self.keep = nn.Linear(width, 2 * width)
        self.place = nn.Linear(width, width, bias=False)
        self.any_content = nn.Parameter(torch.zeros(heads, 1, width // heads))
        self.any_place = nn.Parameter(torch.zeros(heads, 1, width // heads))
        self.out = nn.Linear(width, width)
        self.register_buffer("sinusoids", _sinusoids(2 * segment, width), persistent=False)

    def forward(self, x: Float[Tensor, "B T D"], window: Window) -> Float[Tensor, "B T D"]:
        B, T, _ = x.shape
        q, gate = self.ask(self.norm(x)).chunk(2, dim=-1)
        q = split(chunks(q, self.segment).flatten(0, 1), self.heads)
        k, v = (split(part.flatten(0, 1), self.heads) for part in self._keys(x))
        bias = self._places(q).masked_fill(~self._seen(window).flatten(0, 1)[:, None], -torch.inf)
        found = join(F.scaled_dot_product_attention(q + self.any_content.to(q.dtype), k, v, attn_mask=bias))
        out: Tensor = self.out(found.reshape(B, -1, x.shape[2])[:, :T] * F.silu(gate))
        return out

    def _keys(self, x: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor]:
        """Keys and values [B, C, m, D]; those of the segment before teach the projection, not the events."""
        now = chunks(self.keep(self.norm(x)), self.segment)
        old = chunks(self.keep(self.norm(x.detach())), self.segment) if self.stop_gradient else now
        k, v = torch.cat([with_previous(old)[:, :, : self.segment], now], dim=2).chunk(2, dim=-1)
        return k, v

    def _places(self, q: Float[Tensor, "N H n d"]) -> Float[Tensor, "N H n m"]:
        """What each position thinks of the distance of each key."""
        places = split(self.place(self.sinusoids)[None], self.heads)
        by_distance = (q + self.any_place.to(q.dtype)) @ places.transpose(-1, -2) / math.sqrt(q.shape[-1])
        back = steps_back(self.segment, q.device).clamp(min=0)
        return by_distance.gather(-1, back.expand(*q.shape[:2], -1, -1))

    def _seen(self, window: Window) -> Bool[Tensor, "B C n m"]:
        steps = steps_back(self.segment, window.items.device)
        known = with_previous(chunks(window.valid, self.segment))[:, :, None]
        return ((steps > 0) & known) | (steps == 0)


class GatedLSTM(nn.Module):
    """An LSTM over the events, projected and gated by the asking position.

    Hochreiter and Schmidhuber 1997; as a recommender GRU4Rec (Hidasi et al. 2016). Events that are unknown are left
    out, not stepped over with an empty input: a position after them goes on from the last one known.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.cell = nn.LSTM(width, width, batch_first=True)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"], window: Window) -> Float[Tensor, "B T D"]:
        x = self.norm(x)
        together = torch.argsort(~window.valid, dim=1, stable=True)
        states, _ = self.cell(_at(x, together))
        latest = window.valid.cumsum(dim=1) - 1
        states = _at(states, latest.clamp(min=0)) * (latest >= 0)[..., None]
        out: Tensor = self.out(states * F.silu(self.gate(x)))
        return out


def _at(x: Float[Tensor, "B T D"], places: Tensor) -> Float[Tensor, "B T D"]:
    return x.gather(1, places[..., None].expand_as(x))


def _sinusoids(distances: int, width: int) -> Float[Tensor, "R D"]:
    """Sines, then cosines, of distances at wavelengths from 2 pi to 20,000 pi (Vaswani et al. 2017)."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
    angles = torch.arange(distances)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
