"""Slots against the rule done one event at a time, and what they are for: the rare thing of long ago."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.memory.far import Recalled
from recsys.memory.slots import Slots, SlotsConfig, _Work
from tests.world import histories_of

ONE = np.array([0])


def crowds(num: int, each: int, dimensions: int = 32, spread: float = 0.3, seed: int = 0) -> np.ndarray:
    """`num` orthogonal kinds of `each` items."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0][:num]
    around = rng.standard_normal((num * each, dimensions)) / np.sqrt(dimensions)
    codes = np.repeat(centres, each, axis=0) + spread * around
    return (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)


def after(codes: np.ndarray, life: list[int], **settings: object) -> Slots:
    memory = Slots.empty(1, codes, SlotsConfig(**settings))  # type: ignore[arg-type]
    memory.write(ONE, histories_of([life]))
    return memory


def everything(memory: Slots) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found: Recalled = memory.entries(ONE, 1_000)
    some = found.age[0, 0] >= 0
    return found.vectors[0, 0, some], found.weight[0, 0, some], found.age[0, 0, some]


def by_hand(codes: np.ndarray, life: list[int], config: SlotsConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rule of the module's docstring, one event after the other, in double precision: (vectors, strength, last)."""
    vectors, strength, last = [], [], []
    for time, item in enumerate(life):
        event = codes[item].astype(np.float64)
        units = [vector / np.linalg.norm(vector) for vector in vectors]
        cosine = np.array([event @ other for other in units])
        limit = config.threshold
        if len(vectors) == config.slots:
            pairs = np.array(units) @ np.array(units).T - 9.0 * np.eye(len(units))
            limit = min(limit, pairs.max())
        if len(vectors) and cosine.max() >= limit:
            slot = int(cosine.argmax())
            strength[slot] += 1.0
            step = max(config.rate if config.rule == "delta" else 0.0, 1.0 / strength[slot])
            vectors[slot] = vectors[slot] + step * (event - vectors[slot])
            last[slot] = time
            continue
        if len(vectors) == config.slots:
            one, other = np.unravel_index(int(pairs.argmax()), pairs.shape)
            shares = np.array([strength[one], strength[other]]) ** config.merge_power
            vectors[one] = (shares[0] * vectors[one] + shares[1] * vectors[other]) / shares.sum()
            strength[one] += strength[other]
            last[one] = max(last[one], last[other])
            del vectors[other], strength[other], last[other]
        vectors.append(event)
        strength.append(1.0)
        last.append(time)
    units = [vector / np.linalg.norm(vector) for vector in vectors]
    return np.array(units), np.array(strength), len(life) - 1 - np.array(last)


@pytest.mark.parametrize("rule", ["delta", "hebb"])
@pytest.mark.parametrize("slots", [6, 40])
def test_equals_the_rule_done_by_hand(rule: str, slots: int) -> None:
    """With a block of one event nothing is added up: the same slots, in any order."""
    codes = crowds(12, 8)
    life = np.random.default_rng(2).integers(0, len(codes), 300).tolist()
    settings = {"slots": slots, "rule": rule, "threshold": 0.6, "rate": 0.1, "block": 1}
    vectors, weight, age = everything(after(codes, life, **settings))
    wanted, strength, last = by_hand(codes, life, SlotsConfig(**settings))  # type: ignore[arg-type]
    assert len(vectors) == len(wanted) == min(slots, 12)
    match = (vectors @ wanted.T).argmax(axis=1)
    assert sorted(match) == list(range(len(wanted)))
    # Eight bits a coordinate: a step smaller than half of the last bit is not taken.
    np.testing.assert_allclose(vectors, wanted[match], atol=0.02)
    np.testing.assert_allclose(weight, strength[match])
    np.testing.assert_array_equal(age, last[match])


def test_a_block_holds_what_its_events_would_one_by_one() -> None:
    """Kinds far apart, a slot each: the order within a block changes vectors by little and counts by nothing."""
    codes = crowds(8, 8)
    life = np.random.default_rng(3).integers(0, len(codes), 640).tolist()
    for rule in ("delta", "hebb"):
        one = everything(after(codes, life, slots=12, threshold=0.6, rule=rule, block=1))
        many = everything(after(codes, life, slots=12, threshold=0.6, rule=rule, block=32))
        np.testing.assert_allclose(one[1], many[1])
        np.testing.assert_array_equal(one[2], many[2])
        assert (np.einsum("nd,nd->n", one[0], many[0]) > 0.97).all()


def test_the_rare_and_old_survives_what_is_frequent() -> None:
    """Three events of one kind, then fifty thousand of eleven others, in fewer slots than there are items."""
    codes = crowds(12, 20, spread=0.6)
    rng = np.random.default_rng(4)
    life = [0, 1, 2, *rng.integers(20, 240, 50_000).tolist()]
    memory = after(codes, life, slots=24)
    found = memory.read(ONE, codes[None, 3:20])
    never = memory.read(ONE, crowds(13, 20, spread=0.6, seed=0)[None, 240:])
    assert found.similarity.min() > never.similarity.max() + 0.1
    assert (found.age > 40_000).all()
    assert (found.weight < 10).all()


def test_the_delta_rule_follows_and_the_hebb_rule_stays() -> None:
    codes = np.eye(8, dtype=np.float32)
    codes[1] = [0.8, 0.6, 0, 0, 0, 0, 0, 0]
    life = [0] * 320 + [1] * 320
    delta = after(codes, life, rule="delta", rate=0.1).read(ONE, codes[None, :2]).similarity[0, :, 0]
    hebb = after(codes, life, rule="hebb").read(ONE, codes[None, :2]).similarity[0, :, 0]
    assert delta[1] > 0.999 > delta[0]
    assert hebb[0] == pytest.approx(hebb[1], abs=0.01)


def test_strength_halves_with_the_half_life_and_is_kept_without() -> None:
    """Two blocks of 32 events, each counted at its end, and two blocks of something else."""
    codes = np.eye(8, dtype=np.float32)
    life = [0] * 64 + [1] * 64
    for half_life, kept in ((None, 64.0), (32.0, (32 + 16) / 4), (16.0, (32 + 8) / 16)):
        vectors, weight, _ = everything(after(codes, life, half_life=half_life))
        assert weight[vectors.argmax(axis=1) == 0] == pytest.approx(kept, rel=0.01)


def test_the_bound_on_the_closest_pair_is_exact_when_it_is_used() -> None:
    """`closeness` may be stale in any slot; the pair that `_closest` names is the closest there is."""
    codes = crowds(12, 20, spread=1.2)
    memory = after(codes, np.random.default_rng(6).integers(0, 240, 5_000).tolist(), slots=20)
    work = _Work.of(memory._held, ONE, memory._config)
    one, other, cosine = work._closest(ONE)
    every = work.units[0] @ work.units[0].T - 9.0 * np.eye(20)
    assert cosine[0] == pytest.approx(every.max(), abs=3e-3)
    assert every[one[0], other[0]] == pytest.approx(every.max(), abs=3e-3)


def test_waiting_events_are_read_as_they_are() -> None:
    codes = np.eye(8, dtype=np.float32)
    memory = after(codes, [0, 1, 2, 2], block=32)
    found = memory.read(ONE, codes[None, [0, 2, 5]], k=2)
    np.testing.assert_array_equal(found.similarity[0], [[1, 0], [1, 1], [0, 0]])
    np.testing.assert_array_equal(found.age[0, :2, 0], [3, 1])


@pytest.mark.parametrize("dimensions", [16, 64, 128, 512])
def test_the_defaults_fill_64_kib_whatever_the_dimensions(dimensions: int) -> None:
    codes = crowds(4, 4, dimensions)
    sizes = Slots.empty(3, codes).size_bytes()
    assert (sizes <= 64 * 1024).all()
    assert (sizes > 63 * 1024).all()
