"""Needles in a life, in a world whose interests stand at right angles: who can know what, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cost, needles
from benchmarks._needles_world import (
    LEAST,
    MATCHES,
    PLANTED,
    RIVALS,
    STRETCH,
    Lives,
    World,
    find_interests,
    make_lives,
    world_of,
)
from benchmarks.needles import MAKERS, NOISES, Plan, Window, compare, trial
from recsys.memory.bank import Bank
from tests.world import chains, histories_of, table_of

DEPTH = 400
INTERESTS, EACH = 20, 12


@pytest.fixture(scope="module")
def world() -> World:
    """Twenty interests of a dozen items each, round the axes, and a hundred items of no interest beside them."""
    rng = np.random.default_rng(0)
    crowds = np.repeat(np.eye(INTERESTS, 24), EACH, axis=0) + 0.05 * rng.standard_normal((INTERESTS * EACH, 24))
    codes = np.concatenate([crowds, rng.standard_normal((100, 24)) * ([0.1] * INTERESTS + [1.0] * 4)])
    codes = (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)
    interests, centres = find_interests(codes[: INTERESTS * EACH])
    return World(codes, rng.integers(0, 1_000, len(codes)), interests, codes[centres])


@pytest.fixture(scope="module")
def lives(world: World) -> Lives:
    return make_lives(world, 3, DEPTH, 0.5)


def interest_of(world: World) -> np.ndarray:
    """The interest of each item, -1 for none."""
    out = np.full(len(world.codes), -1)
    for interest, members in enumerate(world.interests):
        out[members] = interest
    return out


def test_crowds_are_found(world: World) -> None:
    assert sorted(map(tuple, world.interests)) == [
        tuple(range(start, start + EACH)) for start in range(0, INTERESTS * EACH, EACH)
    ]


def test_a_world_of_a_data_set_has_codes_for_all_its_items() -> None:
    dataset = chains()
    made = world_of(dataset, table_of(dataset.catalogue.items), dimensions=8)
    assert made.codes.shape == (len(dataset.catalogue), 8)
    assert made.popularity.sum() == dataset.histories.num_events
    assert all(len(members) >= LEAST for members in made.interests)


def test_needles_lie_as_deep_as_said_and_nowhere_else(world: World, lives: Lives) -> None:
    owner = interest_of(world)
    for user, planted in enumerate(lives.planted):
        held = owner[lives.histories.of(user).items]
        at = np.flatnonzero(np.isin(held, planted))
        from_end = len(held) - 1 - at
        assert from_end.min() >= DEPTH
        assert from_end.max() < DEPTH + STRETCH
        counts = np.bincount(held[at], minlength=INTERESTS)[planted]
        assert counts.min() >= 3
        assert counts.max() <= 5


def test_a_match_is_of_a_planted_interest_and_no_planted_event_its_rivals_of_none_that_was_met(
    world: World, lives: Lives
) -> None:
    owner = interest_of(world)
    assert lives.asked.shape == (3, PLANTED * MATCHES, RIVALS + 1)
    for user, asked in enumerate(lives.asked):
        met = lives.histories.of(user).items
        np.testing.assert_array_equal(owner[asked[:, 0]], np.repeat(lives.planted[user], MATCHES))
        assert not np.isin(asked, met).any()
        assert not np.isin(owner[asked[:, 1:]], owner[met][owner[met] >= 0]).any()
        assert all(len(set(row)) == RIVALS + 1 for row in asked.tolist())


def test_noise_changes_nothing_but_the_noise(world: World, lives: Lives) -> None:
    quiet = make_lives(world, 3, DEPTH, 0.0)
    np.testing.assert_array_equal(quiet.asked, lives.asked)
    np.testing.assert_array_equal(quiet.histories.times, lives.histories.times)
    swapped = quiet.histories.items != lives.histories.items
    assert 0.4 < swapped.mean() < 0.55
    owner = interest_of(world)
    assert (owner[lives.histories.items] == -1).any()
    assert not (owner[quiet.histories.items] == -1).any()


def test_the_judge_finds_every_needle(world: World, lives: Lives) -> None:
    found = trial(Bank.empty(3, world.codes), world, lives)
    assert found.recall == 1.0
    assert found.top1 == 1.0


def test_a_window_shorter_than_the_depth_guesses_and_one_as_long_as_the_life_knows(world: World, lives: Lives) -> None:
    assert trial(Window(world.codes, 200), world, lives).recall < 0.8
    assert trial(Window(world.codes, 10 * DEPTH), world, lives).recall == 1.0


def test_a_window_keeps_the_latest_events_however_they_are_written() -> None:
    codes = np.eye(6, dtype=np.float32)
    at_once, in_pieces = Window(codes, 3), Window(codes, 3)
    at_once.write(np.array([4]), histories_of([[0, 1, 2, 3]]))
    for piece in ([0, 1], [2], [3]):
        in_pieces.write(np.array([4]), histories_of([piece]))
    for window in (at_once, in_pieces):
        read = window.read(np.array([4]), codes[None])
        np.testing.assert_array_equal(read.similarity[0, :, 0], [0, 1, 1, 1, 0, 0])
        np.testing.assert_array_equal(read.age[0, 1:4, 0], [2, 1, 0])
        assert window.size_bytes().tolist() == [12]


def test_what_is_reported(world: World) -> None:
    depths = (200, DEPTH)
    plan = Plan(lives=dict.fromkeys(depths, 1), noises=dict.fromkeys(depths, NOISES), repeats=2)
    result = json.loads(json.dumps(compare(world, plan)))
    assert set(result) == {"default", "mechanisms"}
    assert set(result["default"]) == {"recall@depth", "bytes_per_user", "read_ratio_100k_1k", "noise_cost"}
    assert set(result["mechanisms"]) == set(MAKERS)
    for row in result["mechanisms"].values():
        assert set(row["recall@depth"]) == {"200", "400"}
        assert row["bytes_per_user"] > 0
    bank = result["mechanisms"]["bank"]
    assert bank["recall@depth"] == {"200": 1.0, "400": 1.0}
    assert bank["noise_cost"] == 0.0
    assert result["default"]["recall@depth"] == result["mechanisms"][needles.DEFAULT]["recall@depth"]


def test_the_cost_of_noise_is_the_largest_fall() -> None:
    def of(depth: int, noise: float, won: int) -> needles.Trial:
        pairs = np.arange(10).reshape(1, 1, 10) < won
        return needles.Trial(depth=depth, noise=noise, won=pairs, write_us=1.0, bytes_per_user=depth)

    trials = [of(1_000, noise, won) for noise, won in zip(NOISES, (10, 10, 9), strict=True)]
    trials += [of(100_000, noise, won) for noise, won in zip(NOISES, (9, 8, 6), strict=True)]
    found = needles.figures(trials, {1_000: 2.0, 100_000: 3.0})
    assert found["noise_cost"] == pytest.approx(0.3)
    assert found["read_ratio_100k_1k"] == pytest.approx(1.5)
    assert found["recall@depth"]["100000"] == pytest.approx(23 / 30)
    assert found["bytes_per_user"] == 100_000


def test_costs_and_their_pictures(world: World, tmp_path: Path) -> None:
    plan = cost.Plan(lengths=(100, 300), attended=(64,), repeats=2, lives=1, depth=200)
    settings = [("bank", "every event", MAKERS["bank"]), ("window", "last 50", MAKERS["last_50"])]
    result = cost.compare(world, plan, {"bank": MAKERS["bank"]}, settings)
    assert set(result["cost"]) == {"bank", cost.ATTENTION}
    assert set(result["cost"]["bank"]) == {"100", "300"}
    assert result["quality"]["bank"][0]["recall"] == 1.0
    assert result["quality"]["window"][0]["recall"] < 0.8
    cost.draw(result, tmp_path, plan.depth)
    for name in ("cost_by_length.png", "quality_by_bytes.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
