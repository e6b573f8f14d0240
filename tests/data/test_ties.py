from __future__ import annotations

import numpy as np

from recsys.data.histories import Histories, histories_from_events
from recsys.data.ties import shuffle_ties


def days_of(num_users: int, num_items: int) -> Histories:
    """Every user meets all items in order, ten a day."""
    items = np.tile(np.arange(num_items, dtype=np.int32), num_users)
    users = np.repeat(np.arange(num_users, dtype=np.int32), num_items)
    return histories_from_events(users, items, (items // 10).astype(np.float64), num_users=num_users)


def lists(histories: Histories) -> list[list[int]]:
    return [histories.items[histories.slice(user)].tolist() for user in range(len(histories))]


def test_shuffling_ties_moves_nothing_else() -> None:
    histories = days_of(3, 40)
    shuffled = shuffle_ties(histories, seed=1)
    assert shuffled.times.tolist() == histories.times.tolist()
    assert shuffled.items.tolist() != histories.items.tolist()
    assert [sorted(user) for user in lists(shuffled)] == lists(histories)
    assert shuffle_ties(histories, seed=1).items.tolist() == shuffled.items.tolist()
    assert shuffle_ties(histories, seed=2).items.tolist() != shuffled.items.tolist()
