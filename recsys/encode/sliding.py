"""Attention to the latest events and to the first ones, at a cost that grows with the window and not with its square.

    position t sees  t - w + 1 .. t,  and  0 .. g - 1  where they lie further back

Longformer (Beltagy et al. 2020): a sliding window of w and g global positions, here the window's first events, read
through the same projections as the rest. The window is cut into chunks of w; chunk c asks chunks c - 1 and c, which
hold all that its positions may see, so no T x T matrix is ever made: the largest holds T (2 w + g) numbers a head.

Letters: B users, T events, C chunks, n events of a chunk (n = w), m keys that a chunk asks, D dimensions.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.encode.attention import join, split
from recsys.encode.window import Window


class SlidingAttention(nn.Module):
    """Causal gated attention to the last `near` events, itself included, and to the first `first`."""

    def __init__(self, width: int, heads: int, *, near: int = 32, first: int = 4) -> None:
        super().__init__()
        self.heads, self.near, self.first = heads, near, first
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, 4 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"], window: Window) -> Float[Tensor, "B T D"]:
        q, k, v, gate = self.into(self.norm(x)).chunk(4, dim=-1)
        seen = torch.cat([self._seen_near(window), self._seen_first(window)], dim=-1)
        found = attend(chunks(q, self.near), self._keys(k), self._keys(v), seen, self.heads)
        out: Tensor = self.out(found[:, : x.shape[1]] * F.silu(gate))
        return out

    def _keys(self, part: Float[Tensor, "B T D"]) -> Float[Tensor, "B C m D"]:
        near = with_previous(chunks(part, self.near))
        first = part[:, None, : self.first].expand(-1, near.shape[1], -1, -1)
        return torch.cat([near, first], dim=2)

    def _seen_near(self, window: Window) -> Bool[Tensor, "B C n m"]:
        steps = steps_back(self.near, window.items.device)
        known = with_previous(chunks(window.valid, self.near))[:, :, None]
        # Every position sees itself, so that none sees nothing.
        return ((steps > 0) & (steps < self.near) & known) | (steps == 0)

    def _seen_first(self, window: Window) -> Bool[Tensor, "B C n g"]:
        """Those that have left the sliding window: none is seen twice."""
        place = torch.arange(window.items.shape[1], device=window.items.device)
        left = chunks(place[None], self.near)[..., None] - self.near >= place[: self.first]
        return left & window.valid[:, None, None, : self.first]


def chunks(x: Shaped[Tensor, "B T *D"], size: int) -> Shaped[Tensor, "B C n *D"]:
    """Consecutive events in chunks of `size`, the last one filled up with zeros."""
    T = x.shape[1]
    missing = x.new_zeros((len(x), -T % size, *x.shape[2:]))
    return torch.cat([x, missing], dim=1).view(len(x), -1, size, *x.shape[2:])


def with_previous(x: Shaped[Tensor, "B C n *D"]) -> Shaped[Tensor, "B C m *D"]:
    """Each chunk behind the one before it; before the first stand zeros."""
    before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
    return torch.cat([before, x], dim=2)


def steps_back(size: int, device: torch.device) -> Int[Tensor, "n m"]:
    """From each position of a chunk to each of `with_previous`; negative ahead."""
    return torch.arange(size, 2 * size, device=device)[:, None] - torch.arange(2 * size, device=device)


def attend(
    q: Float[Tensor, "B C n D"],
    k: Float[Tensor, "B C m D"],
    v: Float[Tensor, "B C m D"],
    seen: Bool[Tensor, "B C n m"],
    heads: int,
) -> Float[Tensor, "B T D"]:
    """Every chunk asks its own keys; the answers in one row again."""
    B, _, _, D = q.shape
    q, k, v = (split(part.flatten(0, 1), heads) for part in (q, k, v))
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=seen.flatten(0, 1)[:, None])
    return join(found).reshape(B, -1, D)
