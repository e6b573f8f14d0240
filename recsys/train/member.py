"""One member of an ensemble of history encoders: trained here or in another process, kept, taken up again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from recsys import _native
from recsys.data.histories import Histories
from recsys.encode.codes import ItemCodes
from recsys.encode.history import HistoryEncoder
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder
from recsys.errors import InvalidInput
from recsys.flow import allowed_mask
from recsys.memory.lookback import past_of, past_reader
from recsys.metrics import ranking_metrics
from recsys.train.encoder import Corpus, EncoderTraining, Probe, TrainingState, begin, train
from recsys.train.examples import Queries
from recsys.train.objectives import self_supervised
from recsys.train.runs import RunFolder, keep, make_trackers, require_plots
from recsys.train.settle import SequenceConfig, encoder_config

VERSION = 2
"""Of what a training does: kept runs of another version are not taken up."""

Progress = Callable[[str, int, int], None]


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


def train_members(tasks: Sequence[Task], progress: Progress) -> tuple[HistoryEncoder, ...]:
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
            _keep_encoder(encoder, self.folder.path)
            best = {"best": self.state.best} if math.isfinite(self.state.best) else {}
            seconds = time.perf_counter() - self.began_s
            self.folder.finish(self.state, {"epochs": float(self.state.epoch), "seconds": seconds, **best})
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
    require_plots()  # before hours of training, not after
    folder = RunFolder(config.runs / _key(task, encoder))
    if (folder.path / "encoder").is_dir():
        yield Run(begin(encoder, training), tell, folder, _kept_encoder(folder.path / "encoder"))
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


def _keep_encoder(encoder: HistoryEncoder, folder: Path) -> None:
    """Whole or not at all, with the checksums of its files; where an equal training was faster, its encoder stays."""
    aside = folder / f"encoder.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    encoder.save(aside)
    (aside / "SHA256.json").write_text(json.dumps(_checksums(aside)))
    try:
        aside.rename(folder / "encoder")
    except OSError:
        if not (folder / "encoder").is_dir():
            raise
        shutil.rmtree(aside)


def _kept_encoder(folder: Path) -> HistoryEncoder:
    """Raises InvalidInput where a file is not what was written."""
    told = folder / "SHA256.json"
    if not told.exists() or json.loads(told.read_text()) != _checksums(folder):
        raise InvalidInput.of("sequence.runs", str(folder), "is damaged: remove it, its checkpoint makes it anew")
    return HistoryEncoder.load(folder)


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.name.startswith("encoder."))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _key(task: Task, encoder: HistoryEncoder) -> str:
    """Equal for equal trainings: of the data, the settings, and the weights that it begins with."""
    memory, queries = task.memory, task.queries
    settings = (encoder.config, task.training, task.config.self_supervision, task.include_seen, VERSION)
    told = hashlib.sha256(repr((settings, memory.event_types, memory.clock)).encode())
    parts = [memory.indptr, memory.items, memory.types, memory.values, memory.times, memory.baskets]
    parts += [task.codes.mean, task.codes.directions, task.items.base]
    if queries is not None:
        parts += [queries.targets, queries.indptr, queries.states.histories.indptr, queries.states.histories.items]
    for part in parts:
        told.update(np.ascontiguousarray(part).tobytes())
    for weights in encoder.state_dict().values():
        told.update(weights.detach().cpu().numpy().tobytes())
    return f"{'refit' if task.begun else 'train'}-{told.hexdigest()[:16]}"


def _probe(sequence: SequenceEncoder, task: Task) -> Probe | None:
    if task.queries is None:
        return None
    return queries_probe(task.queries, sequence, include_seen=task.include_seen)


def _corpus(sequence: SequenceEncoder, memory: Histories, items: ItemTable) -> Corpus:
    shape = sequence.shape
    far = past_reader(sequence, memory, items)
    return Corpus.of(memory, window=shape.window, num_items=shape.num_items, every=sequence.every, far=far)


def queries_probe(queries: Queries, sequence: SequenceEncoder, *, include_seen: bool) -> Probe:
    """NDCG@10 of an encoder of the shape of `sequence` alone, over all items."""
    states, counts = queries.states, np.diff(queries.indptr)
    num_items = len(states.items.base)
    everything = np.broadcast_to(np.arange(num_items, dtype=np.int32), (len(queries), num_items))
    allowed = allowed_mask(states, include_seen=include_seen)[:, :num_items]
    hits = queries.hits(np.arange(len(queries)), everything) & allowed
    far = past_of(sequence, states.histories, states.items)

    def probe(encoder: HistoryEncoder) -> float:
        asked = SequenceEncoder((encoder,), sequence.codes)
        table = asked.items(states.items.base)
        cosine = np.where(allowed, asked.present(states.histories, table, far) @ table.unit.T, -np.inf)
        return float(ranking_metrics(cosine, hits, counts, (10,))["ndcg@10"].mean())

    return probe
