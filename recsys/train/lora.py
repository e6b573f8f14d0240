"""Teach a text encoder what is done next: the text of a user's last items lies near the text of the next one.

    loss = cross-entropy of cos(past b, next j) / temperature over the nexts j of the batch

InfoNCE with the other pairs' nexts as negatives (van den Oord et al. 2018; equal texts are no negatives), learnt by
LoRA (Hu et al. 2022): the weights stay, each linear layer gets a product of two thin matrices beside it. At the end the
product is added in, so what comes out is an ordinary model folder: `TextEncoder.load` reads it, at no cost a text, and
its fingerprint is another, so that vectors of before and after are never compared.

Letters: B pairs of a batch, D dimensions.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from recsys import _native  # noqa: F401
from recsys.data.histories import Histories
from recsys.encode.passages import PassageTokenizer
from recsys.encode.source import ModelSource
from recsys.encode.text import TextEncoder
from recsys.errors import InvalidInput, MissingExtra
from recsys.snapshot.files import sync_tree

import torch  # isort: skip
from torch import Tensor  # isort: skip
from torch.nn import functional  # isort: skip

# What is trained has to be what is served, so padding and pooling are the encoder's own.
from recsys.encode.model import _no_progress_bar, _padded, _pool, _read_weights  # isort: skip

Pair = tuple[str, str]
"""(text of the last items, text of the next item)."""

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

SEPARATOR = ". "


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraTraining:
    """`rank` 8 and `alpha` 16 are LoRA's usual; a `temperature` of 0.05 is what sentence encoders are contrasted with.
    `steps` of `batch` pairs; `max_tokens` of a text, the rest of it is not read, here alone."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    learning_rate: float = 2e-4
    temperature: float = 0.05
    steps: int = 500
    batch: int = 64
    max_tokens: int = 128
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Where the new model lies, its fingerprint, and the loss of the first batch's pairs before and after, both
    without dropout."""

    folder: Path
    fingerprint: str
    loss_before: float
    loss_after: float


def pairs_of(
    histories: Histories, texts: Sequence[str], *, last: int = 3, most: int = 100_000, seed: int = 0
) -> list[Pair]:
    """At most `most` moments, drawn at random: the texts of the `last` items before it, newest first, and of the next.
    Items without a text are left out."""
    at = np.flatnonzero(np.arange(histories.num_events) > np.repeat(histories.indptr[:-1], histories.lengths))
    starts = np.repeat(histories.indptr[:-1], histories.lengths)
    at = np.random.default_rng(seed).permutation(at)
    out: list[Pair] = []
    for event in at:
        if len(out) == most:
            break
        past = histories.items[max(event - last, starts[event]) : event][::-1]
        before = SEPARATOR.join(texts[item] for item in past if texts[item].strip())
        following = texts[histories.items[event]]
        if before and following.strip():
            out.append((before, following))
    return out


def fine_tune(
    encoder: TextEncoder,
    pairs: Sequence[Pair],
    folder: Path,
    config: LoraTraining = LoraTraining(),
    *,
    progress: Progress | None = None,
) -> Tuned:
    """Fine-tune the model behind `encoder` and write it, tokenizer and all, to the new `folder`, which appears when it
    is whole. `encoder` stays as it is.

    Raises InvalidInput for fewer than 2 pairs and for a folder that exists, MissingExtra without peft.
    """
    if len(pairs) < 2:
        raise InvalidInput.of("pairs", len(pairs), "the others of a batch are the negatives: at least 2 are needed")
    if folder.exists():
        raise InvalidInput.of("folder", str(folder), "exists already")
    source = ModelSource.describe(str(encoder.folder), max_tokens=min(config.max_tokens, encoder.max_tokens))
    torch.manual_seed(config.seed)
    learner = _Learner(source, config)
    before, after = _train(learner, pairs, config, progress or (lambda done, total: None))
    _write(learner, source, folder)
    fingerprint = ModelSource.describe(str(folder), max_tokens=encoder.max_tokens).fingerprint
    return Tuned(folder=folder, fingerprint=fingerprint, loss_before=before, loss_after=after)


class _Learner:
    """The weights with their thin matrices, the tokenizer, and how a batch of texts becomes vectors."""

    def __init__(self, source: ModelSource, config: LoraTraining) -> None:
        peft = _peft()
        self.device = torch.device(config.device)
        weights = _read_weights(source, self.device)
        self.pad_id = getattr(weights.config, "pad_token_id", None) or 0
        wanted = peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules="all-linear"
        )
        self.model: Any = peft.get_peft_model(weights, wanted).to(self.device)
        self.tokenizer = PassageTokenizer.load(source.folder, source.window)
        self.pooling = source.pooling

    def vectors(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """The first passage of each text, at unit length, with its gradient."""
        passages = self.tokenizer.passages(texts)
        first = dict(zip(reversed(passages.owners.tolist()), reversed(passages.ids), strict=True))
        if len(first) < len(texts):
            missing = next(row for row in range(len(texts)) if row not in first)
            raise InvalidInput.of("pairs", texts[missing], "has no token")
        ids, lengths = _padded([first[row] for row in range(len(texts))], self.pad_id)
        ids, lengths = ids.to(self.device), lengths.to(self.device)
        mask = torch.arange(ids.shape[1], device=self.device) < lengths[:, None]
        states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return functional.normalize(_pool(states.float(), mask, lengths, self.pooling), dim=1)

    def loss(self, pairs: Sequence[Pair], temperature: float) -> Float[Tensor, ""]:
        past, following = self.vectors([pair[0] for pair in pairs]), self.vectors([pair[1] for pair in pairs])
        twin = torch.from_numpy(_twins([pair[1] for pair in pairs])).to(self.device)
        logits = (past @ following.T / temperature).masked_fill(twin, -torch.inf)
        return functional.cross_entropy(logits, torch.arange(len(pairs), device=self.device))


def _train(learner: _Learner, pairs: Sequence[Pair], config: LoraTraining, progress: Progress) -> tuple[float, float]:
    rng = np.random.default_rng(config.seed)
    learnt = [value for value in learner.model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=config.learning_rate, weight_decay=0.0)
    batches = _batches(len(pairs), config.batch, rng)
    first = rows = next(batches)
    before = _measured(learner, pairs, first, config)
    progress(0, config.steps)
    for step in range(config.steps):
        loss = learner.loss([pairs[row] for row in rows], config.temperature)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        progress(step + 1, config.steps)
        rows = next(batches)
    return before, _measured(learner, pairs, first, config)


def _measured(learner: _Learner, pairs: Sequence[Pair], rows: np.ndarray, config: LoraTraining) -> float:
    learner.model.eval()
    with torch.no_grad():
        loss = float(learner.loss([pairs[row] for row in rows], config.temperature))
    learner.model.train()
    return loss


def _batches(count: int, size: int, rng: np.random.Generator) -> Iterator[Int64[np.ndarray, " B"]]:
    size = min(size, count)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _twins(texts: Sequence[str]) -> Bool[np.ndarray, "B B"]:
    """Equal texts at different places."""
    _, code = np.unique(np.array(texts, object).astype(str), return_inverse=True)
    same: Bool[np.ndarray, "B B"] = code[:, None] == code[None]
    np.fill_diagonal(same, False)
    return same


def _write(learner: _Learner, source: ModelSource, folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}.new")
    if aside.exists():  # of a run that was stopped here
        shutil.rmtree(aside)
    aside.mkdir(parents=True)
    source.save(aside)
    for weights in (*aside.glob("*.safetensors"), *aside.glob("*.safetensors.index.json")):
        weights.unlink()
    with _no_progress_bar():
        learner.model.merge_and_unload().save_pretrained(aside)
    sync_tree(aside)
    aside.rename(folder)


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise MissingExtra("peft", "train") from error
