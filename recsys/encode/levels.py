"""Two levels of a life: the events of this session one by one, the sessions before it each as one summary.

    near:  position t sees the events of its own session up to itself
    far:   position t asks the means of all sessions that ended before its own, or a learnt nothing
    out  = W (near * gate + far * gate')

Hierarchical recommenders: HRNN (Quadrana et al. 2017), SHAN (Ying et al. 2018). A session ends with a gap of more than
a day, and after 16 events at the latest: a life without times is cut into sixteens. Nothing later decides where a
session begins, so the layer is causal.

Letters: B users, T events, S sessions, C chunks, n events of a chunk, D dimensions.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.encode.attention import join, split
from recsys.encode.relative import known_times
from recsys.encode.sliding import attend, chunks, steps_back, with_previous
from recsys.encode.window import Window

PAUSE_S = 86_400.0
LONGEST = 16
"""Events of a session at most; the near part costs T times this, the far part T S, about T^2 / 16 at the least."""


class LevelAttention(nn.Module):
    """Gated attention within the session, and to the means of finished sessions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, 6 * width)
        self.summary_norm = nn.LayerNorm(width)
        self.keep = nn.Linear(width, 2 * width)
        self.nothing = nn.Parameter(torch.zeros(1, 1, width))
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"], window: Window) -> Float[Tensor, "B T D"]:
        session = sessions(window)
        h = self.norm(x)
        q, k, v, ask, near_gate, far_gate = self.into(h).chunk(6, dim=-1)
        keys, values = (with_previous(chunks(part, LONGEST)) for part in (k, v))
        near = attend(chunks(q, LONGEST), keys, values, _seen(session, window), self.heads)[:, : x.shape[1]]
        far = self._far(ask, h, session, window)
        out: Tensor = self.out(near * F.silu(near_gate) + far * F.silu(far_gate))
        return out

    def _far(
        self, ask: Float[Tensor, "B T D"], h: Float[Tensor, "B T D"], session: Int[Tensor, "B T"], window: Window
    ) -> Float[Tensor, "B T D"]:
        means, counts = session_means(h, session, window)
        means = self.summary_norm(means)
        # Behind the norm: a norm of zeros would multiply its gradient by hundreds.
        k, v = self.keep(torch.cat([self.nothing.expand(len(h), -1, -1), means], dim=1)).chunk(2, dim=-1)
        ended = torch.arange(means.shape[1], device=h.device) < session[..., None]
        seen = F.pad(ended & (counts > 0)[:, None], (1, 0), value=True)
        q, k, v = (split(part, self.heads) for part in (ask, k, v))
        return join(F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None]))


def sessions(window: Window) -> Int[Tensor, "B T"]:
    """The session of each event, counted from 0; of padding, one that no event belongs to or the last one."""
    times = known_times(window)
    fresh = F.pad(times[:, 1:] - times[:, :-1] > PAUSE_S, (1, 0), value=True)
    place = torch.arange(times.shape[1], device=times.device)
    begun = torch.where(fresh, place, 0).cummax(dim=1).values
    return (fresh | ((place - begun) % LONGEST == 0)).cumsum(dim=1) - 1


def session_means(
    h: Float[Tensor, "B T D"], session: Int[Tensor, "B T"], window: Window
) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B S"]]:
    """The mean of each session's known events (zero without any), and how many they are."""
    S = int(session.max()) + 1
    known = window.valid.to(h.dtype)
    counts = known.new_zeros(len(h), S).scatter_add(1, session, known)
    sums = h.new_zeros(len(h), S, h.shape[2]).scatter_add(1, session[..., None].expand_as(h), h * known[..., None])
    return sums / counts.clamp(min=1.0)[..., None], counts


def _seen(session: Int[Tensor, "B T"], window: Window) -> Bool[Tensor, "B C n m"]:
    """Known events of the same session, none of them later; every position sees itself."""
    steps = steps_back(LONGEST, session.device)
    own = chunks(session, LONGEST)
    same = own[..., None] == with_previous(own)[:, :, None]
    known = with_previous(chunks(window.valid, LONGEST))[:, :, None]
    return ((steps > 0) & same & known) | (steps == 0)
