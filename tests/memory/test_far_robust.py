"""Lives that are strange, and arrays that are wrong: every far memory keeps its head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys.errors import InvalidInput
from recsys.memory.bank import Bank
from recsys.memory.far import FarMemory
from recsys.memory.holographic import Holographic, HolographicConfig
from recsys.memory.life import Life, LifeConfig
from recsys.memory.places import Places, PlacesConfig
from recsys.memory.slots import Slots, SlotsConfig
from tests.world import histories_of

KINDS = [Bank, Slots, Holographic, Places, Life]
ONE = np.array([0])


def unit_codes(num: int, dimensions: int = 16, seed: int = 0) -> np.ndarray:
    codes = np.random.default_rng(seed).standard_normal((num, dimensions))
    return (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)


CODES = unit_codes(200)


def after(kind: type[FarMemory], life: list[int], codes: np.ndarray = CODES) -> FarMemory:
    memory = kind.empty(1, codes)
    memory.write(ONE, histories_of([life]))
    return memory


@pytest.mark.parametrize("kind", KINDS)
def test_one_event_is_a_life(kind: type[FarMemory]) -> None:
    found = after(kind, [17]).read(ONE, CODES[None, [17]])
    assert found.similarity[0, 0, 0] == pytest.approx(1.0, abs=1e-2)
    assert found.weight[0, 0, 0] == pytest.approx(1.0)
    assert found.age[0, 0, 0] == 0.0
    np.testing.assert_allclose(found.vectors[0, 0, 0], CODES[17], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_one_item_ten_thousand_times(kind: type[FarMemory]) -> None:
    memory = after(kind, [17] * 10_000)
    found = memory.read(ONE, CODES[None, [17]], k=1_000)
    assert found.similarity[0, 0, 0] == pytest.approx(1.0, abs=1e-2)
    assert found.weight.max() == pytest.approx(10_000, rel=0.2)
    assert np.isfinite(memory.entries(ONE, 50).vectors).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_life_is_finite_and_finds_what_came_last(kind: type[FarMemory]) -> None:
    rng = np.random.default_rng(3)
    memory = after(kind, [*rng.integers(0, 150, 200_000).tolist(), 190])
    found = memory.read(ONE, CODES[None, [190]], k=3)
    for part in (found.vectors, found.similarity, found.weight, found.age):
        assert np.isfinite(part).all()
    assert found.similarity[0, 0, 0] > memory.read(ONE, -CODES[None, [190]]).similarity[0, 0, 0]
    assert found.age[0, 0, 0] == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_a_code_are_no_events(kind: type[FarMemory]) -> None:
    codes = CODES.copy()
    codes[5] = 0.0
    strange = after(kind, [1, -1, 2, 200, 5, 10_000, 3, 5], codes)
    plain = after(kind, [1, 2, 3], codes)
    one, other = (memory.read(ONE, CODES[None, :9], k=3) for memory in (strange, plain))
    np.testing.assert_allclose(one.similarity, other.similarity, atol=1e-6)
    np.testing.assert_array_equal(one.age, other.age)
    np.testing.assert_allclose(one.weight, other.weight, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_only_unknown_rows_are_no_life(kind: type[FarMemory]) -> None:
    found = after(kind, [-1, 999, -5]).read(ONE, CODES[None, :4], k=2)
    assert (found.age == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_items_at_all(kind: type[FarMemory]) -> None:
    codes = np.zeros((0, 16), np.float32)
    memory = after(kind, [0, 1], codes)
    assert (memory.read(ONE, CODES[None, :2], k=2).age == -1).all()
    assert (memory.entries(ONE, 2).age == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_queries_and_no_users(kind: type[FarMemory]) -> None:
    memory = after(kind, [1, 2, 3])
    assert memory.read(ONE, CODES[None, :0], k=2).vectors.shape == (1, 0, 2, 16)
    nobody = np.zeros(0, np.int64)
    memory.write(nobody, histories_of([]))
    assert memory.read(nobody, np.zeros((0, 3, 16), np.float32), k=2).age.shape == (0, 3, 2)
    assert memory.entries(nobody, 2).age.shape == (0, 1, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, 3.0])
def test_codes_that_are_no_unit_vectors_are_refused(kind: type[FarMemory], wrong: float) -> None:
    codes = CODES.copy()
    codes[7, 2] = wrong
    with pytest.raises(InvalidInput, match=r"codes\[7\]"):
        kind.empty(1, codes)


@pytest.mark.parametrize("kind", KINDS)
def test_tied_and_backward_times_are_read_in_the_order_given(kind: type[FarMemory]) -> None:
    life, queries = [3, 9, 4, 9, 100], CODES[None, :12]
    memories = []
    for times in ([0.0, 1.0, 2.0, 3.0, 4.0], [7.0] * 5, [9.0, 8.0, 8.0, 2.0, 1.0]):
        histories = histories_of([life], [[0.0, 1.0, 2.0, 3.0, 4.0]], clock="timestamp")
        histories.times[:] = times
        memories.append(kind.empty(1, CODES))
        memories[-1].write(ONE, histories)
    first, *others = [memory.read(ONE, queries, k=2) for memory in memories]
    for other in others:
        np.testing.assert_array_equal(first.similarity, other.similarity)
        np.testing.assert_array_equal(first.age, other.age)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SlotsConfig(slots=1), "slots"),
        (lambda: Slots.empty(1, CODES, SlotsConfig(size_bytes=150)), "size_bytes"),
        (lambda: SlotsConfig(threshold=0.0), "threshold"),
        (lambda: SlotsConfig(rate=1.5), "rate"),
        (lambda: SlotsConfig(rule="other"), "rule"),  # type: ignore[arg-type]
        (lambda: SlotsConfig(half_life=0.0), "half_life"),
        (lambda: SlotsConfig(block=0), "block"),
        (lambda: HolographicConfig(dimensions=4), "dimensions"),
        (lambda: HolographicConfig(half_lives=()), "half_lives"),
        (lambda: HolographicConfig(half_lives=(-1.0,)), "half_lives"),
        (lambda: HolographicConfig(types=0), "types"),
        (lambda: HolographicConfig(seasons=-1), "seasons"),
        (lambda: PlacesConfig(tables=0), "tables"),
        (lambda: PlacesConfig(bits=40), "bits"),
        (lambda: LifeConfig(fan=1), "fan"),
        (lambda: LifeConfig(keep=0), "keep"),
        (lambda: LifeConfig(pause_s=0.0), "pause_s"),
        (lambda: Holographic.empty(1, CODES, HolographicConfig(dimensions=12)), "dimensions"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        make()
