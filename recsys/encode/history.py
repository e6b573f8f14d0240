"""The memory-augmented history encoder: a user's latest events, and a read of the far memory, into one state vector.

    events of a window:  x_t = item + type + value + gap + position          item = id row + projected text
    near:                x <- x + mixer(x)                                   attention, recurrence, ... (`MIXERS`)
    far:                 x <- x + gated cross-attention over memory entries  after the first block
    alone:               x <- x + gated feed-forward (Shazeer 2020, "GLU variants improve transformer")
    state:               y_t = norm(x_t)        score of item n: scale * cos(y_t, item n)

Scores are cosines with a learnt temperature: SASRec (Kang and McAuley 2018) as its later trainings have it, so that few
negatives are enough and a state is a key of unit length for the collective memory. An item without events has no id
row, its text stands alone; in training ids are left out at random, so that text alone is a place in the same space.

`forward` is pure: whatever searches a memory does it before, and hands over arrays.

Letters: B users, T events, M memory entries, N items, D width, C dimensions of texts or codes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.encode.attention import MemoryAttention
from recsys.encode.mixers import MIXERS
from recsys.encode.window import GAP_BUCKETS, VALUE_BUCKETS, Far, Window
from recsys.errors import InvalidInput

MAX_SCALE = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEncoderConfig:
    """Two blocks of width 64 reach the published best on ML-1M in half an hour of one core; wider ones train slower and
    were no better in that time.

    `mixer`: how events see each other. `memory`: what it is given of the far past ("slots", "spans"), "" for nothing;
    `memory_width`: dimensions of the codes that its entries are written in, 0 where they name items. `by_id`:
    share of items' id rows kept in training, the rest are told by text alone. `times`, `values`: whether gaps and
    values are seen.
    """

    num_items: int
    num_types: int = 1
    text_width: int = 0
    memory: str = ""
    memory_width: int = 0
    mixer: str = "attention"
    window: int = 128
    width: int = 64
    heads: int = 2
    blocks: int = 2
    dropout: float = 0.1
    by_id: float = 0.95
    times: bool = True
    values: bool = True


class ItemVectors(nn.Module):
    """Items as vectors: an id row each, and their text through one projection."""

    def __init__(self, config: HistoryEncoderConfig) -> None:
        super().__init__()
        self.by_id = config.by_id
        self.id = nn.Embedding(config.num_items, config.width)
        nn.init.normal_(self.id.weight, std=0.02)
        self.text = nn.Linear(config.text_width, config.width, bias=False) if config.text_width else None
        if self.text is not None:
            # The length of an id row at the start, so that neither hides the other.
            nn.init.normal_(self.text.weight, std=0.02)

    def forward(self, texts: Float[Tensor, "N C"]) -> Float[Tensor, "N D"]:
        """All items; in training some without their id."""
        ids = self.id.weight
        if self.text is None:
            return ids
        if self.training and self.by_id < 1.0:
            kept = torch.rand(len(ids), 1, device=ids.device) < self.by_id
            ids = ids * kept
        out: Tensor = ids + self.text(texts)
        return out

    def of_texts(self, texts: Float[Tensor, "n C"]) -> Float[Tensor, "n D"]:
        """Items that are known by their text alone; zero without a projection of texts."""
        if self.text is None:
            return texts.new_zeros((len(texts), self.id.embedding_dim))
        out: Tensor = self.text(texts)
        return out


class Block(nn.Module):
    """A mixer over time and a gated feed-forward, each added to what came in."""

    def __init__(self, config: HistoryEncoderConfig) -> None:
        super().__init__()
        D = config.width
        self.mixer = MIXERS[config.mixer](D, config.heads, config.window)
        self.norm = nn.LayerNorm(D)
        self.wide = nn.Linear(D, 4 * D)
        self.narrow = nn.Linear(2 * D, D)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T D"], window: Window) -> Float[Tensor, "B T D"]:
        x = x + self.dropout(self.mixer(x, window))
        gate, value = self.wide(self.norm(x)).chunk(2, dim=-1)
        out: Tensor = x + self.dropout(self.narrow(F.silu(gate) * value))
        return out


class HistoryEncoder(nn.Module):
    """Windows, and far-memory reads where the config has a memory, to states [B, T, D]."""

    def __init__(self, config: HistoryEncoderConfig) -> None:
        super().__init__()
        if config.mixer not in MIXERS:
            raise InvalidInput.of("mixer", config.mixer, f"must be one of {', '.join(sorted(MIXERS))}")
        self.config = config
        D = config.width
        self.items = ItemVectors(config)
        self.position = _table(config.window, D)
        self.kind = _table(config.num_types, D) if config.num_types > 1 else None
        self.value = _table(VALUE_BUCKETS, D) if config.values else None
        self.gap = _table(GAP_BUCKETS, D) if config.times else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.far = MemoryAttention(D, config.heads, config.memory_width) if config.memory else None
        self.norm = nn.LayerNorm(D)
        self.dropout = nn.Dropout(config.dropout)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by before a softmax."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def forward(self, window: Window, items: Float[Tensor, "N D"], far: Far | None = None) -> Float[Tensor, "B T D"]:
        """The state after each event, of unit length. `items`: all item vectors, from `self.items`; rows beyond them
        are padding."""
        x = self.dropout(self._events(window, items))
        for depth, block in enumerate(self.blocks):
            x = block(x, window)
            if depth == 0 and self.far is not None and far is not None:
                x = x + self.dropout(self.far(x, far, self._named(far, items)))
        return F.normalize(self.norm(x), dim=-1)

    def last(self, window: Window, items: Float[Tensor, "N D"], far: Far | None = None) -> Float[Tensor, "B D"]:
        """The state after each window's last event; zero for an empty window."""
        states = self(window, items, far)
        at = (window.lengths - 1).clamp(min=0)
        out: Tensor = states[torch.arange(len(states), device=states.device), at] * (window.lengths > 0)[:, None]
        return out

    def _events(self, window: Window, items: Float[Tensor, "N D"]) -> Float[Tensor, "B T D"]:
        T = window.items.shape[1]
        x = F.embedding(window.items.clamp(min=0), items)
        x = x + self.position.weight[:T]
        if self.kind is not None:
            x = x + self.kind(window.types)
        if self.value is not None:
            x = x + self.value(window.values)
        if self.gap is not None:
            x = x + self.gap(window.gaps)
        return torch.where(window.valid[..., None], x, 0.0) * math.sqrt(self.config.width)

    def _named(self, far: Far, items: Float[Tensor, "N D"]) -> Float[Tensor, "B M D"]:
        """The mean of the items that an entry names; zero where it names none."""
        known = (far.items >= 0) & (far.items < len(items))
        found = F.embedding(torch.where(known, far.items, 0), items) * known[..., None]
        return found.sum(dim=2) / known.sum(dim=2).clamp(min=1)[..., None] * math.sqrt(self.config.width)

    def save(self, folder: Path) -> None:
        """Config and weights, as encoder.json and encoder.safetensors."""
        (folder / "encoder.json").write_text(json.dumps(asdict(self.config)))
        save_file(self.state_dict(), folder / "encoder.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote, ready to be asked."""
        encoder = cls(HistoryEncoderConfig(**json.loads((folder / "encoder.json").read_text())))
        encoder.load_state_dict(load_file(folder / "encoder.safetensors"))
        return encoder.eval()


def cosine_scores(
    states: Float[Tensor, "B D"], items: Float[Tensor, "N D"], rows: Int[Tensor, "B K"] | None = None
) -> Float[Tensor, "B K"]:
    """Cosine of each state with all items, or with the items of `rows`."""
    unit = F.normalize(items, dim=-1)
    if rows is None:
        return states @ unit.T
    return torch.einsum("bd,bkd->bk", states, unit[rows])


def _table(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    nn.init.normal_(table.weight, std=0.02)
    return table
