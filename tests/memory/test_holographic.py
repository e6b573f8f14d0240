"""Binding, unbinding and what fades."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.memory.holographic import Holographic, HolographicConfig, _roles, _turn
from tests.world import DAY_S, histories_of

ONE = np.array([0])


def unit_codes(num: int, dimensions: int = 64, seed: int = 0) -> np.ndarray:
    codes = np.random.default_rng(seed).standard_normal((num, dimensions))
    return (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)


CODES = unit_codes(300)


@pytest.mark.parametrize("dimensions", [128, 257])
def test_correlation_undoes_convolution(dimensions: int) -> None:
    """The spectrum's product is circular convolution as its definition says, and a role's conjugate its inverse."""
    config = HolographicConfig(dimensions=dimensions, types=1)
    role = np.fft.irfft(_roles(config)[0], dimensions)
    filler = CODES[0] @ _turn(64, config)
    bound = np.fft.irfft(_roles(config)[0] * np.fft.rfft(filler), dimensions)
    places = np.arange(dimensions)
    by_hand = [(role * filler[(at - places) % dimensions]).sum() for at in places]
    np.testing.assert_allclose(bound, by_hand, atol=1e-5)
    back = [(role * bound[(places + at) % dimensions]).sum() for at in places]
    np.testing.assert_allclose(back, filler, atol=1e-5)


def test_turned_codes_keep_their_cosines() -> None:
    turned = CODES @ _turn(64, HolographicConfig())
    np.testing.assert_allclose(turned @ turned.T, CODES @ CODES.T, atol=1e-5)


def test_the_trace_is_the_decayed_sum_done_by_hand() -> None:
    config = HolographicConfig(types=2, half_lives=(3.0, 50.0))
    life, types = [5, 9, 200, 9, 41], [0, 1, 0, 0, 1]
    histories = histories_of([life])
    histories.types[:] = types
    memory = Holographic.empty(1, CODES, config)
    memory.write(ONE, histories)
    turned, roles = CODES @ _turn(64, config), _roles(config)
    for span, half_life in enumerate(config.half_lives):
        trace = np.zeros(config.dimensions)
        for item, kind in zip(life, types, strict=True):
            bound = np.fft.irfft(roles[kind] * np.fft.rfft(turned[item]), config.dimensions)
            trace = 2.0 ** (-1.0 / half_life) * trace + bound
        np.testing.assert_allclose(memory._held.traces[0, span], trace, atol=1e-4)


def test_what_is_recent_is_nearer_than_what_is_old() -> None:
    memory = Holographic.empty(1, CODES)
    memory.write(ONE, histories_of([list(range(200))]))
    similarity = memory.read(ONE, CODES[None]).similarity[0, :, 0]
    assert similarity[180:200].mean() > similarity[100:120].mean() > similarity[200:].mean() + 0.01


def test_clean_up_names_what_was_met() -> None:
    memory = Holographic.empty(1, CODES)
    memory.write(ONE, histories_of([[7, 30, 7, 120, 7, 255]]))
    found = memory.entries(ONE, 40)
    some = found.age[0, 0] >= 0
    named = (found.vectors[0, 0, some] @ CODES.T).argmax(axis=1)
    assert named[0] == 7
    assert {7, 30, 120, 255} <= set(named.tolist())
    assert found.weight[0, 0, 0] == pytest.approx(3.0, abs=0.7)


def test_roles_keep_event_types_apart() -> None:
    """A weak cosine of one type is not helped by a strong one of another."""
    config = HolographicConfig(types=2)
    memory = Holographic.empty(2, CODES, config)
    histories = histories_of([[3] * 20 + [8] * 20, [3] * 20 + [8] * 20])
    histories.types[20:40] = 1
    memory.write(np.arange(2), histories)
    apart, mixed = memory.read(np.arange(2), CODES[None, [8, 8]].repeat(2, axis=0), k=6).similarity[:, 0]
    assert (apart > 0).sum() > (mixed > 0).sum()
    new, old = ((2.0 ** (-np.arange(start, start + 20) / 32.0)).sum() for start in (0, 20))
    assert apart[0] == pytest.approx(new / np.hypot(new, old), abs=0.05)


def test_seasons_are_roles_of_times_since_the_epoch() -> None:
    config = HolographicConfig(types=1, seasons=4)
    times = [[10 * DAY_S, 190 * DAY_S]]
    for clock, roles in (("timestamp", 3), ("position", 1)):
        memory = Holographic.empty(1, CODES, config)
        memory.write(ONE, histories_of([[1, 2]], times, clock=clock))  # type: ignore[arg-type]
        assert (memory._held.mass[0, 0] > 0).sum() == roles
