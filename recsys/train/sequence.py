"""A history encoder for each stage: trained on the train stage's memory, then taught what later memories know more.

The train stage's encoder has seen nothing that the ranker is asked; validation and test get the same encoder after a
few more epochs on their own, longer memory, as a model in service is brought up to date. What is best for a data set
follows from its shape (`settle`), and was chosen on validation.

Letters: N items.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys import _native
from recsys.data.histories import Histories
from recsys.encode.codes import ItemCodes
from recsys.encode.history import HistoryEncoder, HistoryEncoderConfig
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder
from recsys.errors import InvalidInput
from recsys.flow import allowed_mask
from recsys.memory.lookback import before_window, snapshots_of
from recsys.metrics import ranking_metrics
from recsys.train.encoder import Corpus, EncoderTraining, Probe, TrainingState, begin, train
from recsys.train.examples import Queries
from recsys.train.objectives import SelfSupervision, self_supervised
from recsys.train.runs import RunFolder, keep, make_trackers
from recsys.train.stages import Stages

VERSION = 1
"""Of what a training does: kept runs of another version are not taken up."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceConfig:
    """Whether and how a history encoder is trained. None: settled by the shape of the data (`settle`).

    `members`: trainings that differ by seed, whose mean is taken. `memory`: whether it reads the far past, beyond its
    window, from slots. `codes`: dimensions of the texts' main directions that it reads. `negatives`: items an event is
    told from, 0 for all. `refit_epochs`: on the memory of a later stage, at `refit_rate` of the learning rate; short
    histories gain by it, long ones do not. `type_weights`: such as "view=0.2", of the loss of events of a type.
    `contrastive`, `masked`: weights of losses that a history gives of itself. `trackers`: "tensorboard", "wandb",
    "mlflow". `runs`: a folder for checkpoints, curves and finished encoders; an equal training is taken up there.
    """

    enabled: bool = False
    members: int | None = None
    mixer: str = "attention"
    memory: bool = False
    window: int | None = None
    width: int = 64
    codes: int = 128
    dropout: float | None = None
    epochs: int | None = None
    tokens: int | None = None
    negatives: int | None = None
    learning_rate: float | None = None
    refit_epochs: int | None = None
    refit_rate: float = 0.15
    probe_queries: int = 2_000
    type_weights: tuple[str, ...] = ()
    contrastive: float = 0.0
    masked: float = 0.0
    trackers: tuple[str, ...] = ()
    device: str = "cpu"
    runs: Path | None = None

    @property
    def self_supervision(self) -> SelfSupervision:
        """The losses beside the next item's; of contrastive views, dropout ones suit short histories."""
        return SelfSupervision(contrastive=self.contrastive, masked=self.masked, views="dropout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """The encoder of each stage; None where none is wanted."""

    train: SequenceEncoder | None = None
    validation: SequenceEncoder | None = None
    test: SequenceEncoder | None = None


NO_SEQUENCES = Sequences()


def fit_sequences(
    stages: Stages, items: ItemTable, config: SequenceConfig, progress: Progress, *, seed: int = 0
) -> Sequences:
    """One training from scratch, and a refit for each later memory that differs."""
    if not config.enabled:
        return NO_SEQUENCES
    train = fit_sequence(
        stages.train.memory,
        items,
        stages.train.queries,
        config,
        include_seen=stages.include_seen,
        progress=progress,
        seed=seed,
    )
    validation = refit_sequence(train, stages.validation.memory, items, config, progress=progress)
    if stages.test.memory is stages.validation.memory:
        return Sequences(train=train, validation=validation, test=validation)
    test = refit_sequence(validation, stages.test.memory, items, config, progress=progress)
    return Sequences(train=train, validation=validation, test=test)


def fit_sequence(
    memory: Histories,
    items: ItemTable,
    queries: Queries,
    config: SequenceConfig,
    *,
    include_seen: bool,
    progress: Progress,
    seed: int = 0,
) -> SequenceEncoder:
    """Train from scratch on `memory`; of all epochs the one that answers `queries` best. Members differ by seed."""
    settled = settle(config, memory)
    codes = ItemCodes.fit(items.base, settled.codes)
    probed = _some(queries, settled.probe_queries, seed)
    tasks = [
        Task(
            config=settled,
            training=replace(training_of(settled), seed=seed + number),
            memory=memory,
            items=items,
            codes=codes,
            queries=probed,
            include_seen=include_seen,
        )
        for number in range(settled.members or 1)
    ]
    return SequenceEncoder(_side_by_side(tasks, progress), codes)


def refit_sequence(
    sequence: SequenceEncoder, memory: Histories, items: ItemTable, config: SequenceConfig, *, progress: Progress
) -> SequenceEncoder:
    """The same encoder after `refit_epochs` more on a longer memory; the given one stays as it was."""
    settled = settle(config, memory)
    if not settled.refit_epochs:
        return sequence
    training = training_of(settled)
    training = replace(
        training,
        epochs=settled.refit_epochs,
        learning_rate=training.learning_rate * settled.refit_rate,
        warmup_steps=20,
    )
    tasks = [
        Task(
            config=settled,
            training=replace(training, seed=1_000 + number),
            memory=memory,
            items=items,
            codes=sequence.codes,
            begun=copy.deepcopy(member),
        )
        for number, member in enumerate(sequence.members)
    ]
    return SequenceEncoder(_side_by_side(tasks, progress), sequence.codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One member's training: all that another process needs to do it. `begun`: an encoder to go on with. `queries`:
    what its epochs are judged by."""

    config: SequenceConfig
    training: EncoderTraining
    memory: Histories
    items: ItemTable
    codes: ItemCodes
    queries: Queries | None = None
    include_seen: bool = False
    begun: HistoryEncoder | None = None


def _side_by_side(tasks: Sequence[Task], progress: Progress) -> tuple[HistoryEncoder, ...]:
    """The first here, with its progress, the others in processes of their own: a training keeps one core busy, and one
    on two threads is slower than two on one each."""
    others = tasks[1:]
    if not others:
        return (train_member(tasks[0], progress),)
    workers = min(len(others), max((os.cpu_count() or 2) - 1, 1))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(train_member, task) for task in others]
        return (train_member(tasks[0], progress), *(each.result() for each in waiting))


def train_member(task: Task, progress: Progress | None = None) -> HistoryEncoder:
    """Train one encoder as its task says."""
    training = task.training
    torch.manual_seed(training.seed)
    encoder = task.begun or HistoryEncoder(encoder_config(task.config, task.memory, task.items, task.codes))
    encoder = encoder.to(training.device)
    sequence = SequenceEncoder((encoder,), task.codes)
    texts = torch.from_numpy(task.codes.of(task.items.base))
    what = "history encoder" + (": refit" if task.begun else "")
    with kept_run(task, encoder, lambda epoch: progress(what, epoch, training.epochs) if progress else None) as run:
        if run.finished is not None:
            return run.finished
        with _native.side_by_side():
            corpus, probe = _corpus(sequence, task.memory, task.items), _probe(sequence, task)
            extra = self_supervised(task.config.self_supervision, training, task.memory.event_types)
            train(run.state, corpus, texts, training, probe=probe, on_epoch=run.on_epoch, extra_loss=extra)
        return run.finish(encoder.to("cpu"))


@dataclass(slots=True)
class Run:
    """One training, with a folder or without. `finished`: the encoder, where an equal training has been done.
    `began_s`: on the process's clock; a training that was taken up counts from there."""

    state: TrainingState
    on_epoch: Callable[[TrainingState], None]
    folder: RunFolder | None = None
    finished: HistoryEncoder | None = None
    began_s: float = field(default_factory=time.perf_counter)

    def finish(self, encoder: HistoryEncoder) -> HistoryEncoder:
        """Keep the trained encoder and its figures beside its checkpoint."""
        if self.folder is not None:
            best = {"best": self.state.best} if math.isfinite(self.state.best) else {}
            seconds = time.perf_counter() - self.began_s
            self.folder.finish(self.state, {"epochs": float(self.state.epoch), "seconds": seconds, **best})
            done = self.folder.path / "encoder"
            aside = self.folder.path / "encoder.new"
            aside.mkdir(exist_ok=True)
            encoder.save(aside)
            aside.rename(done)
        return encoder


@contextmanager
def kept_run(task: Task, encoder: HistoryEncoder, on_epoch: Callable[[int], None]) -> Iterator[Run]:
    """A training in its folder below `runs`: finished, begun, or new. Without one nothing is kept."""
    training, config = task.training, task.config

    def tell(state: TrainingState) -> None:
        on_epoch(state.epoch)

    if config.runs is None:
        yield Run(begin(encoder, training), tell)
        return
    folder = RunFolder(config.runs / _key(task, encoder))
    if (folder.path / "encoder").is_dir():
        yield Run(begin(encoder, training), tell, folder, HistoryEncoder.load(folder.path / "encoder"))
        return
    folder.begin(encoder, training, events=task.memory.num_events)
    state = folder.restore(encoder, training) or begin(encoder, training)
    trackers = make_trackers(config.trackers, folder.path)
    try:
        keeping = keep(folder, training, trackers)

        def keep_and_tell(state: TrainingState) -> None:
            keeping(state)
            tell(state)

        yield Run(state, keep_and_tell, folder)
    finally:
        for tracker in trackers:
            tracker.close()


def _key(task: Task, encoder: HistoryEncoder) -> str:
    """Equal for equal trainings: of the data, the settings, and the weights that it begins with."""
    told = hashlib.sha256(repr((encoder.config, task.training, task.config.self_supervision, VERSION)).encode())
    memory = task.memory
    for part in (memory.indptr, memory.items, memory.types, memory.values, memory.times, task.codes.directions):
        told.update(np.ascontiguousarray(part).tobytes())
    for weights in encoder.state_dict().values():
        told.update(weights.detach().cpu().numpy().tobytes())
    return f"{'refit' if task.begun else 'train'}-{told.hexdigest()[:16]}"


def _probe(sequence: SequenceEncoder, task: Task) -> Probe | None:
    if task.queries is None:
        return None
    return queries_probe(
        task.queries,
        task.codes,
        include_seen=task.include_seen,
        window=sequence.shape.window,
        remembers=sequence.remembers,
    )


def _corpus(sequence: SequenceEncoder, memory: Histories, items: ItemTable) -> Corpus:
    shape = sequence.shape
    if not sequence.remembers:
        return Corpus.of(memory, window=shape.window, num_items=shape.num_items)
    far = snapshots_of(memory, sequence.codes.of(items.base), sequence.every)
    return Corpus.of(memory, window=shape.window, num_items=shape.num_items, every=sequence.every, far=far)


def settle(config: SequenceConfig, memory: Histories) -> SequenceConfig:
    """Fill in what the shape of the data decides: long lives get a long window and little dropout, short ones the
    opposite, with more negatives, for their items are many and seldom met."""
    lengths = memory.lengths[memory.lengths > 1]
    long = len(lengths) > 0 and float(np.median(lengths)) >= 30
    shape: dict[str, Any] = _LONG if long else _SHORT
    return replace(config, **{name: value for name, value in shape.items() if getattr(config, name) is None})


_LONG = {
    "window": 200,
    "dropout": 0.1,
    "epochs": 70,
    "tokens": 6_144,
    "negatives": 512,
    "learning_rate": 2e-3,
    "refit_epochs": 0,
    "members": 2,
}
_SHORT = {
    "window": 50,
    "dropout": 0.5,
    "epochs": 16,
    "tokens": 2_048,
    "negatives": 2_048,
    "learning_rate": 1e-3,
    "refit_epochs": 4,
    "members": 2,
}


def training_of(config: SequenceConfig) -> EncoderTraining:
    """The training that a settled config wants. Raises InvalidInput for a weight that is no NAME=NUMBER."""
    given: dict[str, Any] = {"epochs": config.epochs, "tokens": config.tokens, "learning_rate": config.learning_rate}
    return replace(
        EncoderTraining(),
        **{name: value for name, value in given.items() if value is not None},
        negatives=config.negatives or None,
        weight_by_type=dict(_weight(each) for each in config.type_weights),
        probe_every=2 if (config.epochs or 0) < 40 else 5,
        device=config.device,
    )


def _weight(given: str) -> tuple[str, float]:
    name, _, number = given.rpartition("=")
    try:
        return name, float(number)
    except ValueError as error:
        raise InvalidInput.of("sequence.type_weights", given, "must be NAME=NUMBER") from error


def encoder_config(
    config: SequenceConfig, memory: Histories, items: ItemTable, codes: ItemCodes
) -> HistoryEncoderConfig:
    """The encoder that a settled config wants for this data."""
    return HistoryEncoderConfig(
        num_items=len(items.base),
        num_types=len(memory.event_types),
        text_width=codes.width,
        memory=codes.width if config.memory else 0,
        mixer=config.mixer,
        window=config.window or 128,
        width=config.width,
        dropout=config.dropout or 0.0,
        times=memory.clock != "position",
        values=bool(np.isfinite(memory.values).any()),
    )


def queries_probe(
    queries: Queries, codes: ItemCodes, *, include_seen: bool, window: int = 0, remembers: bool = False
) -> Probe:
    """NDCG@10 of an encoder alone over all items; `window` of one that remembers what lies before it."""
    states, counts = queries.states, np.diff(queries.indptr)
    num_items = len(states.items.base)
    everything = np.broadcast_to(np.arange(num_items, dtype=np.int32), (len(queries), num_items))
    allowed = allowed_mask(states, include_seen=include_seen)[:, :num_items]
    hits = queries.hits(np.arange(len(queries)), everything) & allowed
    far = before_window(states.histories, window, codes.of(states.items.base)) if remembers else None

    def probe(encoder: HistoryEncoder) -> float:
        sequence = SequenceEncoder((encoder,), codes)
        table = sequence.items(states.items.base)
        cosine = np.where(allowed, sequence.present(states.histories, table, far) @ table.unit.T, -np.inf)
        return float(ranking_metrics(cosine, hits, counts, (10,))["ndcg@10"].mean())

    return probe


def _some(queries: Queries, limit: int, seed: int) -> Queries:
    picked = np.random.default_rng(seed).permutation(len(queries))[:limit]
    return queries.take(np.sort(picked))


def _reporter(what: str, epochs: int, progress: Progress | None) -> Callable[[TrainingState], None] | None:
    return None if progress is None else lambda state: progress(what, state.epoch, epochs)
