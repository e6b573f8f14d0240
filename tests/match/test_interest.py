"""Interest: known answers, new items by text, and the far past of an encoder that remembers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.errors import InvalidInput
from recsys.match import Corpus, States
from recsys.match.interest import Interest, InterestConfig
from tests.world import asked, chains, histories_of, item_of, sequence_of, table_of

ITEMS = table_of([item_of(row) for row in range(30)])


every_memory = pytest.mark.parametrize("memory", ["slots", "spans"])


def fitted(lives: list[list[int]], *, memory: str = "", config: InterestConfig | None = None) -> Interest:
    corpus = Corpus(histories=histories_of(lives), items=ITEMS, sequence=sequence_of(ITEMS, memory=memory))
    return Interest.fit(corpus, config)


def scores(matcher: Interest, life: list[int]) -> np.ndarray:
    states = asked(histories_of([life]), ITEMS)
    everything = np.arange(30, dtype=np.int32)[None]
    return matcher.read(states).score(everything)[0]


def test_needs_an_encoder() -> None:
    with pytest.raises(InvalidInput, match="encoder"):
        Interest.fit(Corpus(histories=histories_of([[0, 1]]), items=ITEMS))


def test_what_followed_in_the_same_state_is_voted_for() -> None:
    matcher = fitted([[1, 2, 3, 9], [4, 5, 6, 7]], config=InterestConfig(k=1))
    assert scores(matcher, [1, 2, 3])[:, 2].argmax() == 9
    assert scores(matcher, [4, 5, 6])[:, 2].argmax() == 7


def test_the_best_item_has_share_one_and_the_order_is_that_of_the_cosine() -> None:
    found = scores(fitted([[1, 2, 3]]), [5, 6])
    assert found[:, 0].max() == pytest.approx(1.0)
    np.testing.assert_array_equal(np.argsort(found[:, 0]), np.argsort(found[:, 1]))
    assert (np.abs(found[:, 1]) <= 1.0 + 1e-5).all()


def test_moments_are_the_states_that_a_reader_is_in() -> None:
    """The key written after an event equals the state of a user who stands there."""
    corpus = Corpus(histories=chains(20, 30).histories, items=ITEMS, sequence=sequence_of(ITEMS, window=64))
    assert corpus.sequence is not None
    table = corpus.sequence.items(ITEMS.base)
    written = corpus.sequence.moments(corpus.histories, table)
    cut = corpus.histories.drop_last(2)
    read = corpus.sequence.present(cut, table)
    np.testing.assert_allclose(read, written[corpus.histories.indptr[1:] - 3], atol=1e-5)


def test_every_event_has_its_moment_in_lives_longer_than_the_window() -> None:
    rng = np.random.default_rng(0)
    histories = histories_of([rng.integers(0, 30, n).tolist() for n in (1, 7, 8, 9, 12, 13, 70)])
    sequence = sequence_of(ITEMS, window=8)
    states = sequence.moments(histories, sequence.items(ITEMS.base))
    np.testing.assert_allclose(np.linalg.norm(states, axis=1), 1.0, atol=1e-4)


@every_memory
def test_what_lies_before_the_window_matters_to_an_encoder_that_remembers_only(memory: str) -> None:
    rng = np.random.default_rng(1)
    near = rng.integers(0, 30, 8).tolist()
    one, other = [1] * 40 + near, [2] * 40 + near
    forgetful, remembering = fitted([[1, 2]]), fitted([[1, 2]], memory=memory)
    encoder = remembering.sequence.members[0]
    assert encoder.far is not None
    np.testing.assert_allclose(scores(remembering, one), scores(remembering, other), atol=1e-6)  # it starts at zero
    encoder.far.out.weight.data.normal_(generator=torch.Generator().manual_seed(0))  # as if trained
    assert not np.allclose(scores(remembering, one)[:, 1], scores(remembering, other)[:, 1], atol=1e-3)
    np.testing.assert_allclose(scores(forgetful, one), scores(forgetful, other), atol=1e-6)


@every_memory
def test_an_encoder_that_remembers_is_saved_with_its_memory_of_moments(tmp_path: Path, memory: str) -> None:
    matcher = fitted([list(range(30)) * 4], memory=memory)
    matcher.save(tmp_path)
    again = Interest.load(tmp_path, ITEMS)
    life = list(range(20)) * 3
    np.testing.assert_array_equal(scores(again, life), scores(matcher, life))


def test_events_of_unknown_rows_are_not_seen() -> None:
    matcher = fitted([[1, 2, 3]])
    states = asked(histories_of([[1, 2]]), ITEMS)
    late = replace(states, items=ITEMS.extended([item_of(77)], table_of([item_of(77)]).base))
    found = matcher.read(late).score(np.arange(31, dtype=np.int32)[None])
    np.testing.assert_allclose(found[0, :30, 1], scores(matcher, [1, 2])[:, 1], atol=1e-6)
    assert found[0, 30, 1] != 0.0


def test_a_reading_is_of_each_state_alone() -> None:
    states: States = asked(histories_of([[1], [2, 3], []]), ITEMS)
    matcher = fitted([[1, 2, 3, 4]])
    together = matcher.read(states).score(np.tile(np.arange(30, dtype=np.int32), (3, 1)))
    np.testing.assert_allclose(together[1], scores(matcher, [2, 3]), atol=1e-5)
    assert (together[2] == 0).all()
