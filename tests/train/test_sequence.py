"""An encoder a stage: members, refits, settings by the data's shape, and trainings that are kept and taken up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.encode.sequence import SequenceEncoder
from recsys.errors import InvalidInput
from recsys.train.sequence import fit_sequence, fit_sequences, refit_sequence
from recsys.train.settle import SequenceConfig, settle, training_of
from recsys.train.stages import StageConfig, Stages, leave_one_out_stages
from tests.world import chains, histories_of, table_of

CONFIG = SequenceConfig(
    enabled=True,
    members=1,
    epochs=4,
    window=16,
    width=16,
    codes=16,
    dropout=0.1,
    tokens=2_048,
    negatives=0,
    refit_epochs=1,
)
DATA = chains(120, 40)
ITEMS = table_of(DATA.catalogue.items)


def quiet(what: str, done: int, total: int) -> None:
    """No progress wanted."""


@pytest.fixture(scope="module")
def stages() -> Stages:
    return leave_one_out_stages(DATA.histories, ITEMS, StageConfig(train_queries=100))


def fitted(stages: Stages, config: SequenceConfig = CONFIG, seed: int = 0) -> SequenceEncoder:
    queries = stages.train.queries
    return fit_sequence(stages.train.memory, ITEMS, queries, config, include_seen=False, progress=quiet, seed=seed)


def weights(sequence: SequenceEncoder) -> list[np.ndarray]:
    return [torch.cat([p.detach().flatten() for p in member.parameters()]).numpy() for member in sequence.members]


def test_none_is_trained_where_none_is_wanted(stages: Stages) -> None:
    assert fit_sequences(stages, ITEMS, SequenceConfig(), quiet).train is None


def test_each_stage_has_its_own_and_equal_memories_share_one(stages: Stages) -> None:
    found = fit_sequences(stages, ITEMS, CONFIG, quiet)
    assert found.train is not None
    assert found.validation is not None
    assert found.test is found.validation
    assert (weights(found.train)[0] != weights(found.validation)[0]).any()


def test_without_refit_epochs_the_encoder_is_the_same(stages: Stages) -> None:
    found = fitted(stages)
    config = replace(CONFIG, refit_epochs=0)
    assert refit_sequence(found, stages.validation.memory, ITEMS, config, progress=quiet) is found


def test_a_seed_decides_and_members_differ_by_it(stages: Stages) -> None:
    one, again, other = fitted(stages), fitted(stages), fitted(stages, seed=1)
    np.testing.assert_array_equal(weights(one)[0], weights(again)[0])
    assert (weights(one)[0] != weights(other)[0]).any()


def test_members_are_trained_side_by_side_as_they_would_be_alone(stages: Stages) -> None:
    both = fitted(stages, replace(CONFIG, members=2))
    alone = weights(fitted(stages))[0], weights(fitted(stages, seed=1))[0]
    for mine, theirs in zip(weights(both), alone, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    table = both.items(ITEMS.base)
    states = both.present(stages.validation.queries.states.histories, table)
    cosines = [
        SequenceEncoder((member,), both.codes).present(stages.validation.queries.states.histories, part) @ part.unit.T
        for member in both.members
        for part in [SequenceEncoder((member,), both.codes).items(ITEMS.base)]
    ]
    np.testing.assert_allclose(states @ table.unit.T, np.mean(cosines, axis=0), atol=1e-5)


def test_an_equal_training_is_taken_up_and_another_is_not(stages: Stages, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    def train(config: SequenceConfig) -> SequenceEncoder:
        told.clear()
        queries = stages.train.queries
        return fit_sequence(stages.train.memory, ITEMS, queries, config, include_seen=False, progress=progress)

    kept = replace(CONFIG, runs=tmp_path)
    first = train(kept)
    assert len(told) == 4
    (run,) = tmp_path.iterdir()
    assert {path.name for path in run.iterdir()} >= {"config.json", "metrics.json", "metrics.jsonl", "plots", "encoder"}
    np.testing.assert_array_equal(weights(train(kept))[0], weights(first)[0])
    assert told == []
    train(replace(kept, learning_rate=5e-3))
    assert len(told) == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kept_encoder_that_was_damaged_is_refused(stages: Stages, tmp_path: Path) -> None:
    kept = replace(CONFIG, runs=tmp_path)
    fitted(stages, kept)
    (weights_file,) = tmp_path.glob("*/encoder/encoder.safetensors")
    told = bytearray(weights_file.read_bytes())
    told[-3] ^= 4
    weights_file.write_bytes(told)
    with pytest.raises(InvalidInput, match="damaged"):
        fitted(stages, kept)


def test_other_questions_are_another_training(stages: Stages, tmp_path: Path) -> None:
    kept = replace(CONFIG, runs=tmp_path)
    fitted(stages, kept)
    fitted(stages, replace(kept, probe_queries=10))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "value"), [("members", 0), ("width", 63), ("mixer", "foo"), ("dropout", 1.5), ("epochs", 0), ("window", 0)]
)
def test_a_setting_that_cannot_be_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"sequence.{name}"):
        replace(SequenceConfig(), **{name: value})


def test_lists_may_come_as_one_text() -> None:
    config = SequenceConfig(type_weights="view=0.2, cart=2", trackers="tensorboard")
    assert config.type_weights == ("view=0.2", "cart=2")
    assert config.trackers == ("tensorboard",)


def test_shape_decides_what_is_not_given() -> None:
    rng = np.random.default_rng(0)
    long = histories_of([rng.integers(0, 40, 60).tolist() for _ in range(5)])
    short = histories_of([rng.integers(0, 40, 6).tolist() for _ in range(5)])
    by_length = settle(SequenceConfig(), long), settle(SequenceConfig(), short)
    assert (by_length[0].window or 0) > (by_length[1].window or 0)
    assert (by_length[0].dropout or 0) < (by_length[1].dropout or 0)
    assert settle(SequenceConfig(window=7), short).window == 7


@pytest.mark.parametrize("given", ["view", "view=much", "=", "view="])
def test_a_weight_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput, match="type_weights"):
        training_of(SequenceConfig(type_weights=(given,)))


def test_weights_are_read() -> None:
    assert training_of(SequenceConfig(type_weights=("view=0.2", "buy=now=3"))).weight_by_type == {
        "view": 0.2,
        "buy=now": 3.0,
    }


@pytest.mark.parametrize("memory", ["slots", "spans"])
def test_an_encoder_that_remembers_is_trained_and_asked(stages: Stages, memory: str) -> None:
    found = fitted(stages, replace(CONFIG, memory=memory, window=4, epochs=2))
    assert found.remembers
    far = found.members[0].far
    assert far is not None
    assert (far.out.weight != 0).any()


def sees(change: Callable[[SequenceConfig], SequenceConfig], stages: Stages) -> bool:
    return bool((weights(fitted(stages, change(CONFIG)))[0] != weights(fitted(stages))[0]).any())


def test_self_supervision_is_part_of_the_loss(stages: Stages) -> None:
    assert sees(lambda config: replace(config, contrastive=0.5), stages)
    assert sees(lambda config: replace(config, masked=0.5), stages)
