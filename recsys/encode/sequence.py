"""Trained history encoders as the rest of the engine uses them: numpy in, numpy out, items' and users' vectors.

Several trainings that differ by their seed alone agree on what matters and not on noise, so their mean is better than
any of them (Lakshminarayanan et al. 2017, "Deep ensembles"). Vectors of all members stand side by side, scaled so that
an inner product is the mean of their cosines: an index, a collective memory and a ranker see one encoder.

Letters: B users, N items, n new items, E events, D width of all members together, C dimensions of text vectors.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch.nn import functional as F

from recsys.data.histories import Histories
from recsys.encode.codes import ItemCodes
from recsys.encode.history import HistoryEncoder, HistoryEncoderConfig
from recsys.encode.items import ItemTable
from recsys.encode.window import Far, FarReader, latest_windows, windows_at

BATCH = 128
"""Windows encoded at a time."""

ALIGNED = 16
"""Looking oftener at a far memory while a life is written costs more and tells an encoder hardly more."""


@dataclass(frozen=True, slots=True)
class Table:
    """All items as each member takes them in, and [N, D] of unit length as states are compared with them."""

    members: tuple[torch.Tensor, ...]
    unit: Float32[np.ndarray, "N D"]

    @classmethod
    def of(cls, members: Sequence[torch.Tensor]) -> Self:
        return cls(tuple(members), _side_by_side([F.normalize(each, dim=-1) for each in members]))

    def __len__(self) -> int:
        return len(self.unit)


@dataclass(frozen=True, slots=True)
class SequenceEncoder:
    """Members of one shape, and the codes through which they read texts. Asked from any number of threads."""

    members: tuple[HistoryEncoder, ...]
    codes: ItemCodes

    @property
    def shape(self) -> HistoryEncoderConfig:
        return self.members[0].config

    @property
    def width(self) -> int:
        return self.shape.width * len(self.members)

    @property
    def remembers(self) -> bool:
        """Whether it wants a read of the far past beside the window."""
        return bool(self.shape.memory)

    @property
    def every(self) -> int:
        """Far memories of past moments are looked at every so many events."""
        return ALIGNED if self.shape.memory == "slots" else 1

    @property
    def step(self) -> int:
        """Events from one window to the next where a whole life is encoded: half a window."""
        return max(self.shape.window // 2 // self.every, 1) * self.every

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before a softmax."""
        return float(np.mean([float(member.scale.detach()) for member in self.members]))

    @torch.no_grad()
    def items(self, texts: Float32[np.ndarray, "N C"]) -> Table:
        """The items it was trained on by id and text, those beyond by their texts alone."""
        known = self.shape.num_items
        early, late = (torch.from_numpy(self.codes.of(part)) for part in (texts[:known], texts[known:]))
        return Table.of([torch.cat([each.items(early), each.items.of_texts(late)]) for each in self.members])

    @torch.no_grad()
    def with_tail(self, table: Table, items: ItemTable) -> Table:
        """The same, and the items that came since, by their texts alone."""
        if len(items.tail) == 0:
            return table
        late = torch.from_numpy(self.codes.of(items.tail))
        pairs = zip(self.members, table.members, strict=True)
        return Table.of([torch.cat([known, each.items.of_texts(late)]) for each, known in pairs])

    def without_ids(self, rows: Bool[np.ndarray, " N"]) -> Self:
        """The same encoder in a world in which nobody has met the items of `rows`: they are told by their texts."""
        members = tuple(copy.deepcopy(each) for each in self.members)
        for member in members:
            member.items.id.weight.data[torch.from_numpy(rows[: self.shape.num_items])] = 0.0
        return type(self)(members, self.codes)

    @torch.no_grad()
    def present(self, histories: Histories, table: Table, far: Far | None = None) -> Float32[np.ndarray, "B D"]:
        """The state of each user after their last event; zero for an empty history. `far`: of all before the window."""
        if len(histories) == 0:
            return np.zeros((0, self.width), np.float32)
        window = latest_windows(histories, self.shape.window, num_items=len(table))
        pairs = zip(self.members, table.members, strict=True)
        return _side_by_side([each.last(window, items, far) for each, items in pairs])

    def moments(self, histories: Histories, table: Table, far: FarReader | None = None) -> Float32[np.ndarray, "E D"]:
        """The state after each event, with at least half a window before it where its history has that much."""
        out = np.zeros((histories.num_events, self.width), np.float32)
        for events, states in self._moments(histories, table, far):
            out[events] = states
        return out

    def _moments(
        self, histories: Histories, table: Table, far: FarReader | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        users, starts, lengths, skips = _cover(histories, self.shape.window, self.step)
        order = np.argsort(lengths, kind="stable")
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            window = windows_at(histories, starts[rows], lengths[rows], num_items=len(table))
            read = far(users[rows], starts[rows] - histories.indptr[users[rows]]) if far else None
            with torch.no_grad():
                pairs = zip(self.members, table.members, strict=True)
                states = _side_by_side([each(window, items, read) for each, items in pairs])
            place = np.arange(states.shape[1])
            kept = (place >= skips[rows, None]) & (place < lengths[rows, None])
            yield (starts[rows, None] + place)[kept], states[kept]

    def save(self, folder: Path) -> None:
        """Codes, and a folder a member, into an existing folder."""
        self.codes.save(folder / "codes.npz")
        for number, member in enumerate(self.members):
            (folder / f"member{number}").mkdir()
            member.save(folder / f"member{number}")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote."""
        members = sorted(folder.glob("member*"), key=lambda path: int(path.name.removeprefix("member")))
        return cls(tuple(HistoryEncoder.load(path) for path in members), ItemCodes.load(folder / "codes.npz"))


def _side_by_side(parts: Sequence[torch.Tensor]) -> np.ndarray:
    """Unit vectors of each member as one of about unit length, whose products are the mean of the members'."""
    return np.asarray((torch.cat(list(parts), dim=-1) / len(parts) ** 0.5).numpy(), np.float32)


def _cover(histories: Histories, window: int, step: int) -> tuple[Int64[np.ndarray, " W"], ...]:
    """W windows that cover every event: (user, first event, events, leading events that another window tells)."""
    lengths = histories.lengths
    counts = np.where(lengths > 0, 1 + np.maximum(0, -(-(lengths - window) // step)), 0)
    user = np.repeat(np.arange(len(histories)), counts)
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    size = np.minimum(lengths[user] - nth * step, window)
    return user, histories.indptr[user] + nth * step, size, np.where(nth > 0, window - step, 0)
