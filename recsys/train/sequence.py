"""A history encoder for each stage: trained on the train stage's memory, then taught what later memories know more.

The train stage's encoder has learnt from nothing that the ranker is asked (a sample of these questions only says which
of its epochs was best); validation and test get the same encoder after a few more epochs on their own, longer memory,
as a model in service is brought up to date. What is best for a data set
follows from its shape (`train/settle.py`), and was chosen on validation.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np

from recsys.data.histories import Histories
from recsys.encode.codes import ItemCodes
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder
from recsys.train.examples import Queries
from recsys.train.member import Progress, Task, train_members
from recsys.train.settle import SequenceConfig, settle, training_of
from recsys.train.stages import Stages


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
    """Train from scratch on `memory`; of the epochs that are probed the one that answers
    `queries` best. Members differ by seed."""
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
    return SequenceEncoder(train_members(tasks, progress), codes)


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
    return SequenceEncoder(train_members(tasks, progress), sequence.codes)


def _some(queries: Queries, limit: int, seed: int) -> Queries:
    picked = np.random.default_rng(seed).permutation(len(queries))[:limit]
    return queries.take(np.sort(picked))
