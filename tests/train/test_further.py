"""A snapshot's model learns new events: rows stay, what is held already is left out, the ranker is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.data.dataset import Dataset
from recsys.errors import InvalidInput
from recsys.match.interest import Interest
from recsys.model import Model
from recsys.train.encoder import EncoderTraining
from recsys.train.fit import make_stages, train_model, train_ranker
from recsys.train.further import train_further
from recsys.train.sequence import fit_sequences
from recsys.train.settle import SequenceConfig
from tests.world import ENCODER, chains, dataset_of, histories_of, item_of, model_of, quick, table_of

SEQUENCE = SequenceConfig(
    enabled=True, members=1, epochs=2, window=16, width=16, codes=16, dropout=0.1, tokens=2_048, negatives=0
)
BRIEFLY = EncoderTraining(epochs=1, learning_rate=1e-3)


def quiet(what: str, done: int, total: int) -> None:
    """No progress wanted."""


@pytest.fixture(scope="module")
def model() -> Model:
    dataset = chains(60, 40)
    config = replace(quick(), sequence=SEQUENCE)
    items = table_of(dataset.catalogue.items)
    stages = make_stages(dataset.histories, items, config)
    sequences = fit_sequences(stages, items, SEQUENCE, quiet)
    ranker, _ = train_ranker(stages, items, config, quiet, sequences)
    return train_model(
        dataset, items, model_of(dataset, with_ranker=False).settings, ranker, config, quiet, sequences.test
    )


def later(lives: list[list[int]], *, num_items: int = 42, start: float = 100.0) -> Dataset:
    """Events of the same users, after all others, over two items more."""
    times = [[start + step for step in range(len(life))] for life in lives]
    return dataset_of(histories_of(lives, times), [item_of(row) for row in range(num_items)])


NEW = later([[0, 1, 2, 3], [5, 6, 7], [], [40, 41, 40]])


def test_new_events_items_and_users_come_after_the_old(model: Model) -> None:
    told, report = train_further(model, NEW, ENCODER, training=BRIEFLY)
    assert list(told.users)[: len(model.users)] == list(model.users)
    assert len(told.items) == 42
    np.testing.assert_array_equal(told.items.base[:40], model.items.base)
    before = model.histories.of(0).items
    assert told.histories.of(0).items.tolist() == [*before.tolist(), 0, 1, 2, 3]
    assert told.flow.features == model.flow.features
    assert told.ranker is model.ranker
    assert set(report) == {"old_before", "old_after", "new_before", "new_after"}
    assert all(0.0 <= value <= 1.0 for value in report.values())


def test_the_encoder_has_learnt_and_the_snapshot_s_is_as_it_was(model: Model, tmp_path: Path) -> None:
    mine = next(each for each in model.flow.matchers if isinstance(each, Interest))
    weights = mine.sequence.members[0].items.id.weight.detach().clone()
    told, _ = train_further(model, NEW, ENCODER, training=BRIEFLY)
    theirs = next(each for each in told.flow.matchers if isinstance(each, Interest))
    assert (mine.sequence.members[0].items.id.weight == weights).all()
    assert (theirs.sequence.members[0].items.id.weight[:40] != weights).any()
    assert (theirs.sequence.members[0].items.id.weight[40] != 0).any()  # met now
    told.save(tmp_path)
    assert Model.load(tmp_path).flow.features == told.flow.features


def test_what_is_held_already_is_left_out(model: Model) -> None:
    again = dataset_of(model.histories, [item_of(row) for row in range(40)])
    with pytest.raises(InvalidInput, match="holds all of them"):
        train_further(model, again, ENCODER, training=BRIEFLY)


def test_a_snapshot_without_an_encoder_says_so() -> None:
    plain = model_of(chains(60, 40))
    with pytest.raises(InvalidInput, match="no history encoder"):
        train_further(plain, NEW, ENCODER)


def test_another_clock_is_refused(model: Model) -> None:
    timed = dataset_of(replace(NEW.histories, clock="timestamp"), [item_of(row) for row in range(42)])
    with pytest.raises(InvalidInput, match="clock"):
        train_further(model, timed, ENCODER)
