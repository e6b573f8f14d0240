"""Which events speak for an item: shares, not sums of unlike numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from recsys.evidence import evidence
from recsys.match import Matcher, States
from recsys.match.suite import fit_matchers
from tests.world import chains, corpus_of, histories_of, item_of, table_of

ITEMS = table_of([item_of(row) for row in range(5)])
STATES = States(histories=histories_of([[0, 1, 2]]), now=np.zeros(1), items=ITEMS)


@dataclass(frozen=True)
class Told:
    """A witness that says what it is told to."""

    name: str
    weights: tuple[float, ...]

    def witness(self, states: States, row: int) -> np.ndarray:
        return np.array(self.weights, np.float32)


def told(*witnesses: Any) -> tuple[list[float], list[str]]:
    weights, sources = evidence(cast("list[Matcher]", list(witnesses)), STATES, 4)
    return weights.tolist(), sources


def test_large_numbers_do_not_drown_small_ones() -> None:
    weights, sources = told(Told("loud", (900, 100, 0)), Told("quiet", (0, 0.25, 0.75)))
    assert weights == pytest.approx([0.45, (0.1 + 0.25) / 2, 0.375])
    assert sources == ["loud", "quiet", "quiet"]


def test_what_speaks_against_an_item_is_no_evidence() -> None:
    assert told(Told("one", (-5, 1, 0)))[0] == [0, 1, 0]


def test_who_found_nothing_takes_no_part() -> None:
    weights, sources = told(Told("one", (1, 1, 2)), Told("blind", (0, 0, 0)), object())
    assert weights == [0.25, 0.25, 0.5]
    assert set(sources) == {"one"}
    assert told(Told("blind", (0, 0, 0))) == ([0, 0, 0], ["", "", ""])


def test_the_step_before_speaks_loudest_in_a_chain() -> None:
    corpus = corpus_of(chains())
    states = States(histories=histories_of([[60, 61, 22]]), now=np.zeros(1), items=corpus.items)
    weights, sources = evidence(fit_matchers(corpus), states, 23)
    assert weights.argmax() == 2
    assert sources[2] in {"transitions", "linear", "recall"}
    assert 0 < weights.sum() <= 1 + 1e-6
