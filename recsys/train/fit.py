"""Fit matchers and the ranker over them, stage by stage; and the model that is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from recsys.data.dataset import Dataset
from recsys.data.histories import Histories
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder
from recsys.flow import Flow
from recsys.match import Corpus, Matcher
from recsys.match.interest import Interest
from recsys.match.popularity import Popularity
from recsys.match.suite import MATCHERS, fit_matchers
from recsys.model import Model, ModelSettings
from recsys.rank import Examples, Ranker, RankerConfig, fit_ranker
from recsys.train.examples import build_examples, concat
from recsys.train.hidden import asking_for, hide
from recsys.train.sequence import NO_SEQUENCES, Sequences, refit_sequence
from recsys.train.settle import SequenceConfig
from recsys.train.stages import Stage, StageConfig, Stages, global_time_stages, leave_one_out_stages

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


def quiet(what: str, done: int, total: int) -> None:
    """No progress wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The stages the ranker learns from, the history encoder, the ranker, negatives a training query, the share of
    items that are hidden so that the ranker learns to rank what nobody has met (0: none), and which matchers feed the
    ranker (`Interest` besides, where an encoder is trained)."""

    stages: StageConfig = StageConfig()
    sequence: SequenceConfig = SequenceConfig()
    ranker: RankerConfig = RankerConfig()
    negatives: int | None = 100
    hidden: float = 0.1
    matchers: Sequence[type[Matcher]] = MATCHERS
    ignored_types: tuple[str, ...] = ("return",)


def fit_flow(
    memory: Histories,
    items: ItemTable,
    *,
    passing: Histories | None = None,
    kinds: Sequence[type[Matcher]] = MATCHERS,
    sequence: SequenceEncoder | None = None,
    progress: Progress = quiet,
) -> Flow:
    """Matchers fitted on `memory`, with `Interest` first where a history encoder is at hand. Popularity alone counts
    `passing` events too: it reads only what came before."""
    corpus = Corpus(histories=memory, items=items, sequence=sequence)
    kinds = kinds if sequence is None else (Interest, *kinds)
    matchers = fit_matchers(corpus, kinds, on_step=lambda name, done, total: progress(f"memory: {name}", done, total))
    if passing is not None and passing is not memory:
        live = Popularity.fit(Corpus(histories=passing, items=items))
        matchers = tuple(live if isinstance(matcher, Popularity) else matcher for matcher in matchers)
    return Flow(matchers, memory.met(len(items)))


def stage_flow(
    stage: Stage,
    items: ItemTable,
    config: TrainConfig,
    progress: Progress = quiet,
    sequence: SequenceEncoder | None = None,
) -> Flow:
    """The flow a stage is asked of."""
    return fit_flow(
        stage.memory, items, passing=stage.passing, kinds=config.matchers, sequence=sequence, progress=progress
    )


def train_ranker(
    stages: Stages,
    items: ItemTable,
    config: TrainConfig,
    progress: Progress = quiet,
    sequences: Sequences = NO_SEQUENCES,
) -> tuple[Ranker, Flow]:
    """The ranker, trained on the train stage and stopped on validation, and the flow of the validation stage."""
    train, held, flow = ranker_examples(stages, items, config, progress, sequences)
    ranker = fit_ranker(
        flow.features, train, held, config.ranker, lambda done, total: progress("ranker: trees", done, total)
    )
    return ranker, flow


def ranker_examples(
    stages: Stages,
    items: ItemTable,
    config: TrainConfig,
    progress: Progress = quiet,
    sequences: Sequences = NO_SEQUENCES,
) -> tuple[Examples, Examples, Flow]:
    """What a ranker is trained on and stopped by, and the flow of the validation stage."""
    train = concat(
        [
            build_examples(
                stage_flow(stage, items, config, progress, sequence),
                stage.queries,
                include_seen=stages.include_seen,
                negatives=config.negatives,
                seed=config.stages.seed,
                on_batch=lambda done, total: progress("ranker: examples", done, total),
            )
            for stage, sequence in _worlds(stages, items, config, sequences.train)
        ]
    )
    held_flow = stage_flow(stages.validation, items, config, progress, sequences.validation)
    held = build_examples(
        held_flow,
        stages.validation.queries,
        include_seen=stages.include_seen,
        on_batch=lambda done, total: progress("ranker: validation", done, total),
    )
    return train, held, held_flow


def _worlds(
    stages: Stages, items: ItemTable, config: TrainConfig, sequence: SequenceEncoder | None
) -> Iterator[tuple[Stage, SequenceEncoder | None]]:
    """The train stage, and once more what of it asks for items that are hidden."""
    yield stages.train, sequence
    if config.hidden > 0.0:
        hidden = hide(stages.train.memory, len(items), config.hidden, config.stages.seed)
        if stage := asking_for(stages.train, hidden):
            yield stage, sequence and sequence.without_ids(hidden)


def make_stages(histories: Histories, items: ItemTable, config: TrainConfig) -> Stages:
    """GTS where events carry timestamps, LOO where only their order is known."""
    if histories.clock == "timestamp":
        return global_time_stages(histories, items, config.stages, config.ignored_types)
    return leave_one_out_stages(histories.without_types(config.ignored_types), items, config.stages)


def train_model(
    dataset: Dataset,
    items: ItemTable,
    settings: ModelSettings,
    ranker: Ranker,
    config: TrainConfig | None = None,
    progress: Progress = quiet,
    sequence: SequenceEncoder | None = None,
) -> Model:
    """The model that is served: matchers that remember everything, under a ranker trained on stages of this data, and
    `sequence`, the encoder of the last of them, taught the rest."""
    config = config or TrainConfig()
    told = dataset.histories.without_types(config.ignored_types)
    if sequence is not None:
        sequence = refit_sequence(sequence, told, items, config.sequence, progress=progress)
    flow = fit_flow(told, items, kinds=config.matchers, sequence=sequence, progress=progress)
    return Model(
        settings=settings, items=items, users=dataset.users, histories=dataset.histories, flow=flow, ranker=ranker
    )
