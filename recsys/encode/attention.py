"""Layers of the history encoder that look by attention, and the one form that all mixers share.

A mixer turns a sequence of event vectors into one of the same shape, causally: position t sees positions up to t.
`GatedAttention` multiplies what attention brought by a gate of the asking position (HSTU: Zhai et al. 2024, "Actions
speak louder than words"; LiGR: Borisyuk et al. 2024). Positions are learnt per place of the window, not as a bias
inside attention: a learnt bias leaves the fused kernel and costs four times as much on a CPU (measured).

Letters: B users, T events, M memory entries, D dimensions, H heads.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.encode.window import Far, Window


class Mixer(Protocol):
    """A causal layer over time; the encoder adds its output to the input."""

    def __call__(self, x: Float[Tensor, "B T D"], window: Window) -> Float[Tensor, "B T D"]: ...


class GatedAttention(nn.Module):
    """Causal softmax attention over the whole window, gated. Cost T^2 D; the fused kernel never holds T^2."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, 4 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"], window: Window) -> Float[Tensor, "B T D"]:
        q, k, v, gate = self.into(self.norm(x)).chunk(4, dim=-1)
        # Padding stands on the right and nobody looks right: no mask is needed but the causal one.
        q, k, v = (split(part, self.heads) for part in (q, k, v))
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(join(found) * F.silu(gate))
        return out


class MemoryAttention(nn.Module):
    """Gated cross-attention over what a read of the far memory brought back (search outside, attend inside).

    Every event of the window asks the entries by content; an entry's age and weight come with it. A learnt empty entry
    lets a position take nothing. The output starts at zero, so an encoder starts as if it had no memory (Alayrac et al.
    2022, "Flamingo"). Cost T M D, whatever the length of the life behind the memory.
    """

    def __init__(self, width: int, heads: int, code_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.ask = nn.Linear(width, 2 * width)
        self.entry = nn.Linear(code_width + 2, width)
        self.entry_norm = nn.LayerNorm(width)
        self.keep = nn.Linear(width, 2 * width)
        self.nothing = nn.Parameter(torch.zeros(1, 1, width))
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "B T D"], far: Far, named: Float[Tensor, "B M D"]) -> Float[Tensor, "B T D"]:
        """`named`: what the items of each entry are to the encoder."""
        facts = torch.stack([torch.log1p(far.weights), torch.log1p(far.ages.clamp(min=0)) / 4.0], dim=-1)
        entries = self.entry_norm(self.entry(torch.cat([far.vectors, facts], dim=-1).to(x.dtype)) + named)
        # Behind the norm: in front of it a vector of zeros would have gradients some hundred times too large.
        entries = torch.cat([self.nothing.expand(len(x), -1, -1), entries], dim=1)
        k, v = self.keep(entries).chunk(2, dim=-1)
        q, gate = self.ask(self.norm(x)).chunk(2, dim=-1)
        there = F.pad(far.weights > 0, (1, 0), value=True)
        q, k, v = (split(part, self.heads) for part in (q, k, v))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
        out: Tensor = self.out(join(found) * F.silu(gate))
        return out


def split(x: Float[Tensor, "B T D"], heads: int) -> Float[Tensor, "B H T d"]:
    """Dimensions in `heads` groups."""
    B, T, D = x.shape
    return x.view(B, T, heads, D // heads).transpose(1, 2)


def join(x: Float[Tensor, "B H T d"]) -> Float[Tensor, "B T D"]:
    """The inverse of `split`."""
    B, H, T, d = x.shape
    return x.transpose(1, 2).reshape(B, T, H * d)
