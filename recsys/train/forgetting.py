"""Go on learning from new events without losing the old ones, and measure both.

    loss = (1 - replay) * next item, asked of new events only + replay * next item, asked of old events

Windows of the first part end in new events; what stands before these is context and is not asked again. The second part
is experience replay (Rolnick et al. 2019; for sequential recommenders ADER: Mi et al. 2020): old windows beside new
ones, which holds old dynamics where new events contradict them. The rate is small and constant: a fresh warm-up to a
large one would forget more than the new events teach.

Each user's last old and last new event are held out: no weight learns from them, and the encoder before and after is
asked for them (NDCG@10 among all items). For honest old figures the encoder was trained on `old.drop_last(1)`.

Letters: U users, E events, N items, C dimensions of texts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from recsys.data.histories import Histories
from recsys.encode.history import HistoryEncoder, cosine_scores
from recsys.encode.window import latest_windows
from recsys.errors import InvalidInput
from recsys.metrics import ranking_metrics
from recsys.train.encoder import Batch, Corpus, EncoderTraining, begin, next_item_loss

CONTINUED = EncoderTraining(epochs=5, learning_rate=3e-4, latest=0.4)
"""How to go on: few epochs, at a seventh of the rate that the encoder began with."""

_PROBED = 256


@dataclass(frozen=True, slots=True)
class Moments:
    """Held-out questions: what was done before, and the item that came next."""

    past: Histories
    targets: Int[np.ndarray, " B"]


def continue_training(
    encoder: HistoryEncoder,
    old: Histories,
    new: Histories,
    texts: Float[torch.Tensor, "N C"],
    config: EncoderTraining = CONTINUED,
    replay: float = 0.3,
) -> tuple[HistoryEncoder, dict[str, float]]:
    """A copy of `encoder` that has learnt from `new`, and {"old_before", "old_after", "new_before", "new_after"}.

    User u of `new` is user u of `old`, later; further rows are new users. Rows of `texts` beyond the encoder's items
    are new items. Of `config` count epochs, tokens, negatives, latest, type weights, device, seed, and the rate, which
    is held. Raises InvalidInput where nobody has a new event to learn from, and for an encoder with a far memory.
    """
    _check(encoder, old, new, replay)
    life = joined(old, new)
    moments = {"old": last_moments(old), "new": last_moments(life, new.lengths > 0)}
    learner = grow(encoder, max(len(texts), encoder.config.num_items)).to(config.device)
    report = _asked(learner, moments, texts, "before")
    fresh = _fresh(old, new, learner)
    kept = Corpus.of(old.drop_last(1), window=fresh.window, num_items=fresh.num_items) if replay else None
    _learn(learner, fresh, kept, texts, config, replay)
    report |= _asked(learner, moments, texts, "after")
    return learner, {name: report[name] for name in ("old_before", "old_after", "new_before", "new_after")}


def grow(encoder: HistoryEncoder, num_items: int) -> HistoryEncoder:
    """A copy of `encoder` for `num_items` items: the new ones have a zero id row, so their text stands alone."""
    have = encoder.config.num_items
    if num_items < have:
        raise InvalidInput.of("num_items", num_items, f"the encoder knows {have} items, and a table only grows")
    if num_items == have:
        return copy.deepcopy(encoder)
    weights = dict(encoder.state_dict())
    ids = weights["items.id.weight"]
    weights["items.id.weight"] = torch.cat([ids, ids.new_zeros(num_items - have, ids.shape[1])])
    with torch.random.fork_rng(devices=[]):  # what a fresh encoder draws is overwritten, and not to be missed elsewhere
        grown = HistoryEncoder(replace(encoder.config, num_items=num_items))
    grown.load_state_dict(weights)
    return grown.to(ids.device).train(encoder.training)


def joined(old: Histories, new: Histories) -> Histories:
    """Each user's old events and then the new ones, whatever the clocks say."""
    if old.event_types != new.event_types:
        raise InvalidInput.of("event_types", new.event_types, f"the old events have {old.event_types}")
    if old.clock != new.clock:
        raise InvalidInput.of("clock", new.clock, f"the old events have {old.clock}")
    users = np.concatenate([old.users, new.users])
    order = np.argsort(users, kind="stable")
    counts = np.bincount(users, minlength=max(len(old), len(new)))

    def column(name: str) -> np.ndarray:
        return np.asarray(np.concatenate([getattr(old, name), getattr(new, name)])[order])

    return replace(
        old,
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=column("items"),
        times=column("times"),
        types=column("types"),
        values=column("values"),
        baskets=column("baskets"),
    )


def last_moments(histories: Histories, users: np.ndarray | None = None) -> Moments:
    """The last event of each user of at least 2, asked given what came before; of `users` (bool, the first U) only."""
    chosen = histories.lengths > 1
    if users is not None:
        chosen[: len(users)] &= users
        chosen[len(users) :] = False
    rows = np.flatnonzero(chosen)
    return Moments(
        past=histories.prefixes(rows, histories.lengths[rows] - 1),
        targets=histories.items[histories.indptr[rows + 1] - 1],
    )


def next_item_ndcg(encoder: HistoryEncoder, moments: Moments, texts: Float[torch.Tensor, "N C"]) -> float:
    """Mean NDCG@10 of the next item among all items; nan without a moment. Leaves the encoder in its mode."""
    training, device = encoder.training, next(encoder.parameters()).device
    found = [np.zeros(0)]
    encoder.eval()
    with torch.no_grad():
        items = encoder.items(texts)
        for rows, past in moments.past.batches(_PROBED):
            window = latest_windows(past, encoder.config.window, num_items=len(items)).to(device)
            scores = cosine_scores(encoder.last(window, items), items).float().cpu().numpy()
            hits = moments.targets[rows][:, None] == np.arange(len(items))
            found.append(ranking_metrics(scores, hits, np.ones(len(rows), np.int64), (10,))["ndcg@10"])
    encoder.train(training)
    every = np.concatenate(found)
    return float(every.mean()) if len(every) else float("nan")


def _check(encoder: HistoryEncoder, old: Histories, new: Histories, replay: float) -> None:
    if not 0.0 <= replay < 1.0:
        raise InvalidInput.of("replay", replay, "a share of old windows lies at 0 or above and below 1")
    if len(new) < len(old):
        raise InvalidInput.of("new", len(new), f"has fewer users than the old histories, {len(old)}")
    if encoder.config.memory:
        raise InvalidInput.of("memory", encoder.config.memory, "an encoder with a far memory is trained anew, not on")


def _fresh(old: Histories, new: Histories, encoder: HistoryEncoder) -> Corpus:
    """Windows in which new events are asked, and nothing else; each user's last new event is held out."""
    learnt = new.keep(new.ages > 0)
    life = joined(old, learnt)
    before = life.lengths - np.pad(learnt.lengths, (0, len(life) - len(learnt)))
    users = np.flatnonzero((life.lengths > before) & (life.lengths > 1))
    if len(users) == 0:
        raise InvalidInput.of("new", new.num_events, "nobody has a new event beside the last one, which is held out")
    # So much of the past that any window drawn asks a new event.
    recent = life.keep(life.ages < np.repeat(life.lengths - before + encoder.config.window, life.lengths))
    corpus = Corpus.of(recent, window=encoder.config.window, num_items=encoder.config.num_items)
    is_new = recent.ages < np.repeat(life.lengths - before, recent.lengths)
    return replace(corpus, users=users, count=np.where(is_new[corpus.first], corpus.count, 0))


def _learn(
    learner: HistoryEncoder,
    fresh: Corpus,
    kept: Corpus | None,
    texts: torch.Tensor,
    config: EncoderTraining,
    replay: float,
) -> None:
    state = begin(learner.train(), config)
    texts, met = texts.to(config.device), _met(fresh, kept).to(config.device)
    _wake(learner, texts, met, config.seed)
    # A batch of old windows is to the one of new windows in size what its part of the loss is to the other's.
    aside = replace(config, tokens=max(round(config.tokens * replay / (1.0 - replay)), 1))
    old = _endless(kept, aside, state.rng)

    def loss_of(batch: Batch) -> torch.Tensor:
        return next_item_loss(learner, batch.to(config.device), texts, met, config, fresh.histories.event_types)

    for _ in range(config.epochs):
        for batch in fresh.batches(config, state.rng):
            loss = loss_of(batch)
            if kept is not None:
                loss = (1.0 - replay) * loss + replay * loss_of(next(old))
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
            nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            state.optimizer.step()
    learner.eval()


def _met(fresh: Corpus, kept: Corpus | None) -> torch.Tensor:
    items = np.concatenate([fresh.histories.items, kept.histories.items if kept else fresh.histories.items[:0]])
    return torch.from_numpy(np.unique(items[items < fresh.num_items])).long()


def _wake(learner: HistoryEncoder, texts: torch.Tensor, met: torch.Tensor, seed: int) -> None:
    """Items that are met and of which nothing is known get the small id row that a training begins with: the direction
    of a zero vector has no gradient to go by."""
    with torch.no_grad():
        training = learner.training
        asleep = met[(learner.eval().items(texts)[met] == 0).all(dim=1)]
        learner.train(training)
        rows = torch.randn(len(asleep), learner.config.width, generator=torch.Generator().manual_seed(seed)) * 0.02
        learner.items.id.weight[asleep] = rows.to(learner.items.id.weight.device)


def _endless(corpus: Corpus | None, config: EncoderTraining, rng: np.random.Generator) -> Iterator[Batch]:
    while corpus is not None:
        yield from corpus.batches(config, rng)


def _asked(learner: HistoryEncoder, moments: dict[str, Moments], texts: torch.Tensor, when: str) -> dict[str, float]:
    texts = texts.to(next(learner.parameters()).device)
    return {f"{name}_{when}": next_item_ndcg(learner, asked, texts) for name, asked in moments.items()}
