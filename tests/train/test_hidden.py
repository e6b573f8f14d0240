"""Hidden items: a ranker's questions in a world in which some of the items are still unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import InvalidInput
from recsys.features import CONTEXT
from recsys.flow import Flow
from recsys.train.fit import fit_flow, make_stages, ranker_examples
from recsys.train.hidden import asking_for, hide, without
from recsys.train.stages import Stage
from tests.world import chains, quick, sequence_of, shop, table_of

DATA = chains(300)
ITEMS = table_of(DATA.catalogue.items)
STAGES = make_stages(DATA.histories, ITEMS, quick())
HIDDEN = hide(STAGES.train.memory, len(ITEMS), 0.2, 0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_is_a_part(share: float) -> None:
    with pytest.raises(InvalidInput, match="share"):
        hide(DATA.histories, len(ITEMS), share, 0)


def test_a_share_of_what_was_met_is_hidden_by_seed() -> None:
    again, other = (hide(STAGES.train.memory, len(ITEMS), 0.2, seed) for seed in (0, 1))
    met = STAGES.train.memory.met(len(ITEMS))
    assert (again == HIDDEN).all()
    assert (other != HIDDEN).any()
    assert HIDDEN.sum() == round(0.2 * met.sum())
    assert not HIDDEN[~met].any()


def world(stage: Stage, hidden: np.ndarray) -> Stage:
    found = asking_for(stage, hidden, least=1)
    assert found is not None
    return found


def test_nobody_knows_a_hidden_item_and_every_question_is_for_one() -> None:
    asked = world(STAGES.train, HIDDEN)
    for histories in (asked.memory, asked.passing, asked.queries.states.histories):
        assert histories.num_events > 0
        assert not HIDDEN[histories.items].any()
    owners = np.repeat(np.arange(len(asked.queries)), np.diff(asked.queries.indptr))
    assert set(owners[HIDDEN[asked.queries.targets]]) == set(range(len(asked.queries)))
    whole = STAGES.train.queries
    assert len(asked.queries) == sum(HIDDEN[whole.targets[a:b]].any() for a, b in zip(whole.indptr, whole.indptr[1:]))  # noqa: B905


def test_baskets_keep_the_targets_that_are_known() -> None:
    data = shop()
    stages = make_stages(data.histories, table_of(data.catalogue.items), quick())
    hidden = hide(stages.train.memory, len(data.catalogue), 0.2, 0)
    asked = world(stages.train, hidden)
    assert not hidden[asked.queries.targets].all()


def test_too_few_questions_are_none() -> None:
    asked = len(world(STAGES.train, HIDDEN).queries)
    assert asking_for(STAGES.train, HIDDEN, least=asked) is not None
    assert asking_for(STAGES.train, HIDDEN, least=asked + 1) is None
    assert asking_for(STAGES.train, np.zeros_like(HIDDEN), least=0) is None


def test_what_nobody_met_is_cold_to_the_ranker() -> None:
    asked = world(STAGES.train, HIDDEN)
    flow: Flow = fit_flow(asked.memory, ITEMS)
    assert not flow.met[HIDDEN].any()
    field = flow.field(
        asked.queries.states.__class__(
            histories=asked.queries.states.histories.take(np.arange(5)), now=asked.queries.states.now[:5], items=ITEMS
        ),
        np.ones((5, len(ITEMS)), bool),
        np.flatnonzero(HIDDEN)[None].repeat(5, axis=0).astype(np.int32),
    )
    cold = field.features[..., len(flow.features) - len(CONTEXT) + CONTEXT.index("context_cold")]
    assert (cold[field.valid] == ~flow.met[field.candidates[field.valid]]).all()
    assert cold[field.valid].any()


def test_a_ranker_is_trained_on_both_worlds() -> None:
    plain, few, both = (ranker_examples(STAGES, ITEMS, replace(quick(), hidden=share))[0] for share in (0.0, 0.1, 0.4))
    assert len(few.labels) == len(plain.labels)  # too few questions for hidden items
    assert len(both.sizes) > len(plain.sizes) + 200
    np.testing.assert_array_equal(both.features[: len(plain.labels)], plain.features)
    assert both.features[len(plain.labels) :, -1].any()


def test_an_encoder_without_ids_knows_texts_only() -> None:
    sequence = sequence_of(ITEMS)
    blind = sequence.without_ids(HIDDEN)
    known, told = sequence.items(ITEMS.base).unit, blind.items(ITEMS.base).unit
    np.testing.assert_array_equal(told[~HIDDEN], known[~HIDDEN])
    assert (told[HIDDEN] != known[HIDDEN]).any(axis=1).all()
    np.testing.assert_array_equal(sequence.items(ITEMS.base).unit, known)


def test_lives_without_the_hidden_items_keep_their_order() -> None:
    kept = without(DATA.histories, HIDDEN)
    for user in (0, 7):
        life = DATA.histories.of(user).items
        assert kept.of(user).items.tolist() == life[~HIDDEN[life]].tolist()
