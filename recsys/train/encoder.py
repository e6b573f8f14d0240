"""Train the history encoder: predict what comes next after every event of every window.

Objective: softmax cross-entropy over cosines times a learnt scale; over all items that were ever met, or over shared
uniform negatives, whose sampling probability is one constant that the softmax does not see (Klenitskiy and Vasilev
2023, "Turning dross into gold loss": it is the loss that makes SASRec strong). What is "next" is the next event, or any
event of the next basket where events come in baskets. Items that nobody met are never negatives: they are told by their
text, and pushing them away would teach that new means bad.

Letters: B users, T events, N items, D width, E events of all users.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.histories import Histories
from recsys.encode.history import HistoryEncoder
from recsys.encode.window import Far, FarReader, Window, windows_at
from recsys.errors import InvalidInput
from recsys.memory.keys import following


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderTraining:
    """How an encoder learns. `epochs`: passes over all users. `tokens`: events a batch. `negatives`: of each batch,
    None for all items. `latest`: share of windows that end with the history; the others lie anywhere in it. `patience`:
    probes without a gain before the best weights are taken. `weight_by_type`: event type -> weight of the loss of
    telling such an event, 1 by default.
    """

    epochs: int = 60
    tokens: int = 6_144
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 200
    negatives: int | None = 512
    latest: float = 0.4
    probe_every: int = 5
    patience: int = 4
    weight_by_type: dict[str, float] = field(default_factory=dict)
    bfloat16: bool = False
    device: str = "cpu"
    seed: int = 0


Probe = Callable[[HistoryEncoder], float]
"""A figure of quality on held-out moments; larger is better."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows, and for each position the item row of a next event (-1: none) and that event's type."""

    window: Window
    targets: Int[Tensor, "B T"]
    types: Int[Tensor, "B T"]
    far: Far | None

    def to(self, device: str | torch.device) -> Batch:
        """The same on another device."""
        far = None if self.far is None else self.far.to(device)
        return Batch(self.window.to(device), self.targets.to(device), self.types.to(device), far)


ExtraLoss = Callable[[HistoryEncoder, Batch, Tensor, Tensor, np.random.Generator], Tensor]
"""(encoder, batch, texts, items ever met, rng) -> what is added to the loss of that batch."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Histories cut into training windows. `first`, `count` [E]: where the events that follow event e lie."""

    histories: Histories
    first: Int64[np.ndarray, " E"]
    count: Int64[np.ndarray, " E"]
    users: Int64[np.ndarray, " U"]
    window: int
    num_items: int
    every: int = 1
    far: FarReader | None = None

    @classmethod
    def of(
        cls, histories: Histories, *, window: int, num_items: int, every: int = 1, far: FarReader | None = None
    ) -> Corpus:
        """`every`: windows begin at multiples of so many events, where `far` knows what came before.

        Raises InvalidInput where nobody has two events.
        """
        first, count = following(histories)
        users = np.flatnonzero(histories.lengths > 1)
        if len(users) == 0:
            raise InvalidInput.of("events", histories.num_events, "an encoder needs users of at least 2 events")
        return cls(histories, first, count, users, window, num_items, every, far)

    def batches(self, config: EncoderTraining, rng: np.random.Generator) -> Iterator[Batch]:
        """Every user once, windows of about equal length together, in random order."""
        lengths = np.minimum(self.histories.lengths[self.users] - 1, self.window)
        order = np.argsort(lengths // 8 + rng.random(len(lengths)) * 2, kind="stable")
        for group in _groups(lengths[order], config.tokens, rng):
            yield self._batch(self.users[order[group]], config, rng)

    def _batch(self, users: np.ndarray, config: EncoderTraining, rng: np.random.Generator) -> Batch:
        starts, lengths = self._cut(users, config.latest, rng)
        begin = self.histories.indptr[users] + starts
        window = windows_at(self.histories, begin, lengths, num_items=self.num_items)
        T = window.items.shape[1]
        source = np.where(np.arange(T) < lengths[:, None], begin[:, None] + np.arange(T), -1)
        chosen = self.first[source] + (rng.random(source.shape) * self.count[source]).astype(np.int64)
        known = (source >= 0) & (self.count[source] > 0)
        chosen = np.where(known, chosen, 0)
        targets = np.where(known & (self.histories.items[chosen] < self.num_items), self.histories.items[chosen], -1)
        types = self.histories.types[chosen].astype(np.int64)
        far = self.far(users, starts) if self.far is not None else None
        return Batch(window, torch.from_numpy(targets.astype(np.int64)), torch.from_numpy(types), far)

    def _cut(self, users: np.ndarray, latest: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(events before the window, events in it): the last event has no next, so it is never an input."""
        inputs = self.histories.lengths[users] - 1
        room = np.maximum(inputs - self.window, 0)
        anywhere = (rng.random(len(users)) * (room + 1)).astype(np.int64)
        starts = np.where(rng.random(len(users)) < latest, room, anywhere)
        starts = -(-starts // self.every) * self.every
        starts = np.minimum(starts, (inputs - 1) // self.every * self.every)
        return starts, np.minimum(inputs - starts, self.window)


@dataclass(slots=True)
class TrainingState:
    """All that a training is between two epochs: restored, it goes on as if it had never stopped."""

    encoder: HistoryEncoder
    optimizer: torch.optim.AdamW
    rng: np.random.Generator
    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    best_weights: dict[str, Tensor] | None = None
    since_best: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)


def begin(encoder: HistoryEncoder, config: EncoderTraining) -> TrainingState:
    """A training that has not begun."""
    torch.manual_seed(config.seed)
    encoder.to(config.device)
    optimizer = torch.optim.AdamW(
        encoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    return TrainingState(encoder=encoder, optimizer=optimizer, rng=np.random.default_rng(config.seed))


def train(
    state: TrainingState,
    corpus: Corpus,
    texts: Float[Tensor, "N C"],
    config: EncoderTraining,
    *,
    probe: Probe | None = None,
    on_epoch: Callable[[TrainingState], None] | None = None,
    extra_loss: ExtraLoss | None = None,
) -> HistoryEncoder:
    """Train to the last epoch, or until `probe` gains no more; the best weights that the probe has seen."""
    met = torch.from_numpy(np.unique(corpus.histories.items[corpus.histories.items < corpus.num_items])).long()
    met, texts = met.to(config.device), texts.to(config.device)
    steps = sum(1 for _ in corpus.batches(config, np.random.default_rng(config.seed))) * config.epochs
    while state.epoch < config.epochs and state.since_best < config.patience:
        loss = _epoch(state, corpus, texts, met, steps, config, extra_loss)
        state.epoch += 1
        row = {"epoch": float(state.epoch), "loss": loss}
        if probe is not None and (state.epoch % config.probe_every == 0 or state.epoch == config.epochs):
            row["probe"] = _probe(state, probe)
        state.curve.append(row)
        if on_epoch:
            on_epoch(state)
    if state.best_weights is not None:
        state.encoder.load_state_dict(state.best_weights)
    with torch.no_grad():  # an item that nobody met is its text, not what its row began with
        unmet = torch.ones(corpus.num_items, dtype=torch.bool).index_fill(0, met.cpu(), False)
        state.encoder.items.id.weight[unmet.to(state.encoder.items.id.weight.device)] = 0.0
    return state.encoder.eval()


def _epoch(
    state: TrainingState,
    corpus: Corpus,
    texts: Tensor,
    met: Tensor,
    steps: int,
    config: EncoderTraining,
    extra_loss: ExtraLoss | None = None,
) -> float:
    encoder = state.encoder.train()
    losses = []
    for batch in (found.to(config.device) for found in corpus.batches(config, state.rng)):
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate * _pace(state.step, steps, config.warmup_steps)
        state.step += 1
        with torch.autocast(config.device, dtype=torch.bfloat16, enabled=config.bfloat16):
            loss = next_item_loss(encoder, batch, texts, met, config, corpus.histories.event_types)
            if extra_loss is not None:
                loss = loss + extra_loss(encoder, batch, texts, met, state.rng)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        state.optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def _probe(state: TrainingState, probe: Probe) -> float:
    found = probe(state.encoder.eval())
    state.since_best += 1
    if found > state.best:
        state.best, state.since_best = found, 0
        state.best_weights = {name: value.detach().clone() for name, value in state.encoder.state_dict().items()}
    return found


def _pace(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to 3 %."""
    return min(1.0, (step + 1) / warmup) * max(0.03, 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))))


def next_item_loss(
    encoder: HistoryEncoder,
    batch: Batch,
    texts: Float[Tensor, "N C"],
    met: Int[Tensor, " M"],
    config: EncoderTraining,
    event_types: tuple[str, ...] = (),
    items: Float[Tensor, "n D"] | None = None,
) -> Tensor:
    """Mean cross-entropy over all positions that have a next event. `items`: where given, the item vectors to use;
    rows after the catalogue's are seen in windows, never asked."""
    items = encoder.items(texts) if items is None else items
    asked = batch.targets >= 0
    states = encoder(batch.window, items, batch.far)[asked].float()
    targets = batch.targets[asked]
    unit = F.normalize(items.float(), dim=-1)
    if config.negatives is None or config.negatives >= len(met):
        logits = states @ unit[met].T
        label = torch.searchsorted(met, targets)
    else:
        others = met[torch.randint(len(met), (config.negatives,), device=met.device)]
        # Far below any cosine, but finite: the scale's gradient is a sum that an infinity would spoil.
        against = (states @ unit[others].T).masked_fill(targets[:, None] == others[None], -9.0)
        logits = torch.cat([(states * unit[targets]).sum(dim=-1, keepdim=True), against], dim=1)
        label = torch.zeros_like(targets)
    losses = F.cross_entropy(logits * encoder.scale, label, reduction="none")
    if not config.weight_by_type:
        return losses.sum() / max(len(losses), 1)  # 0, not NaN, where nothing is asked
    by_type = torch.tensor([config.weight_by_type.get(name, 1.0) for name in event_types], device=losses.device)
    weights = by_type[batch.types[asked]]
    return (losses * weights).sum() / weights.sum().clamp(min=1e-6)


def _groups(lengths: np.ndarray, tokens: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Runs of neighbouring windows that, padded to the longest, hold at most `tokens` events."""
    groups, start, widest = [], 0, 0
    for at, length in enumerate(lengths):
        wider = max(widest, int(length))
        if at > start and wider * (at + 1 - start) > tokens:
            groups.append(np.arange(start, at))
            start, wider = at, int(length)
        widest = wider
    groups.append(np.arange(start, len(lengths)))
    return [groups[at] for at in rng.permutation(len(groups))]
