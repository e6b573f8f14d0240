"""The exact read against a loop over every moment, and what bounds it."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.histories import Histories
from recsys.memory.addresses import MAX_OCCURRENCES, Addresses
from tests.world import histories_of

DECAY, WINDOW, NUM_ITEMS = 0.7, 4, 9
RARITY = np.linspace(0.5, 2.0, NUM_ITEMS).astype(np.float32)


def lives(seed: int, num_users: int = 12) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, NUM_ITEMS, n).tolist() for n in rng.integers(0, 15, num_users)]


def plain_key(life: list[int]) -> np.ndarray:
    key = np.zeros(NUM_ITEMS)
    for age, item in enumerate(life[::-1][:WINDOW]):
        key[item] += DECAY**age
    return key


def plain_votes(past: list[list[int]], present: list[int], power: float) -> np.ndarray:
    """overlap^power of the present key with that of each moment that something followed, by what that was."""
    key, votes = plain_key(present) * RARITY, np.zeros(NUM_ITEMS)
    for life in past:
        for at in range(len(life) - 1):
            votes[life[at + 1]] += float(key @ plain_key(life[: at + 1])) ** power
    return votes


def votes(past: Histories, present: Histories, power: float = 1.0) -> np.ndarray:
    addresses = Addresses.build(past, NUM_ITEMS, decay=DECAY, window=WINDOW)
    return addresses.votes(present, RARITY, power)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_loop_over_all_moments(seed: int, power: float) -> None:
    past, present = lives(seed), lives(seed + 100, 6)
    wanted = np.array([plain_votes(past, life, power) for life in present])
    assert wanted.any()
    np.testing.assert_allclose(votes(histories_of(past), histories_of(present), power), wanted, rtol=1e-4, atol=1e-5)


def test_a_second_read_finds_the_tally_clean() -> None:
    addresses = Addresses.build(histories_of(lives(1)), NUM_ITEMS, decay=DECAY, window=WINDOW)
    first = addresses.votes(histories_of(lives(2)), RARITY, 1.5)
    addresses.votes(histories_of(lives(3)), RARITY, 1.5)
    np.testing.assert_array_equal(addresses.votes(histories_of(lives(2)), RARITY, 1.5), first)


def test_items_that_came_later_were_never_met_before() -> None:
    past = histories_of(lives(1))
    assert not votes(past, histories_of([[NUM_ITEMS + 3]])).any()
    # Their place in the window counts: what came before them is one step older.
    later, alone = votes(past, histories_of([[2, NUM_ITEMS]])), votes(past, histories_of([[2]]))
    np.testing.assert_allclose(later, DECAY * alone, rtol=1e-5)


def test_who_is_left_out_does_not_vote() -> None:
    kept, gone = lives(4), lives(5)
    whole = histories_of([*kept, *gone])
    addresses = Addresses.build(whole, NUM_ITEMS, decay=DECAY, window=WINDOW)
    left = addresses.without(whole.users >= len(kept))
    present = histories_of(lives(6))
    np.testing.assert_allclose(left.votes(present, RARITY, 1.5), votes(histories_of(kept), present, 1.5), rtol=1e-5)


def test_knows_what_followed_each_moment() -> None:
    addresses = Addresses.build(histories_of([[1, 2, 3], [4]]), NUM_ITEMS, decay=DECAY, window=WINDOW)
    assert addresses.following.tolist() == [2, 3, -1, -1]


def test_a_past_without_moments_answers_nothing() -> None:
    for past in ([[], []], [[1], [2]]):
        assert not votes(histories_of(past), histories_of([[1, 2]])).any()


def test_occurrences_of_a_hit_are_thinned_evenly() -> None:
    """A read touches at most window * MAX_OCCURRENCES moments an item, from all of its past; others stay exact."""
    times = 2 * MAX_OCCURRENCES + 10
    past = histories_of([[0, 1]] * times + [[2, 3]])
    addresses = Addresses.build(past, NUM_ITEMS, decay=DECAY, window=WINDOW)
    places = addresses.places[addresses.starts[0] : addresses.starts[1]]
    assert MAX_OCCURRENCES // 2 <= len(places) <= MAX_OCCURRENCES
    assert places.max() > 0.99 * past.num_events
    found = addresses.votes(histories_of([[0], [2]]), np.ones(NUM_ITEMS, np.float32), 1.0)
    assert found[0, 1] == len(places)
    assert found[1].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_size_counts_its_arrays() -> None:
    addresses = Addresses.build(histories_of(lives(0)), NUM_ITEMS, decay=DECAY, window=WINDOW)
    assert addresses.size_bytes >= 4 * (len(addresses.places) + len(addresses.following))
