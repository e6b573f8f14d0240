"""From a request to a state: what is remembered, what came since, and when is now."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.encode.items import ItemTable
from recsys.flow import Flow
from recsys.model import Model, ModelSettings
from recsys.states import events_of, remembered, user_state
from recsys.types import Event, User
from tests.world import START_S, dataset_of, histories_of, item_of, table_of

HOUR_S = 3_600.0
LIVES, TIMES = [[0, 1], [2], []], [[START_S, START_S + HOUR_S], [START_S + 3 * HOUR_S], []]


def model(*, timestamps: bool = True) -> Model:
    histories = histories_of(LIVES, TIMES, clock="timestamp") if timestamps else histories_of(LIVES)
    if timestamps:
        histories = replace(
            histories,
            types=np.array([0, 1, 0], np.int16),
            event_types=("view", "return"),
            values=np.array([np.nan, 2, 3], np.float32),
            baskets=np.array([4, -1, 7], np.int32),
        )
    dataset = dataset_of(histories, [item_of(row) for row in range(5)])
    items = table_of(dataset.catalogue.items)
    settings = ModelSettings(encoder=None, encoder_fingerprint="e", include_seen=False)
    return Model(
        settings=settings,
        items=items,
        users=dataset.users,
        histories=histories,
        flow=Flow((), np.ones(5, bool)),
        ranker=None,
    )


def items_of(user: User, *, timestamps: bool = True) -> list[int]:
    made = model(timestamps=timestamps)
    return user_state(made, made.items, user).histories.items.tolist()


def event(row: int, hours: float | None, **more: object) -> Event:
    time = None if hours is None else START_S + hours * HOUR_S
    return Event(user_id="u0", item_id=f"i{row}", timestamp=time, **more)  # type: ignore[arg-type]


def test_the_snapshot_is_remembered_without_what_does_not_speak() -> None:
    """The second event of u0 is a return: kept in memory, left out of the state."""
    made = model()
    assert items_of(User(user_id="u0")) == [0]
    assert remembered(made, User(user_id="u0")).items.tolist() == [0, 1]


def test_new_events_come_after_the_snapshot_in_order_of_time() -> None:
    user = User(user_id="u0", events=(event(4, 9), event(3, 5), event(2, 0.5)))
    assert items_of(user) == [0, 2, 3, 4]


def test_new_events_may_stand_instead_of_the_snapshot() -> None:
    assert items_of(User(user_id="u0", events=(event(3, 1),), replace_history=True)) == [3]
    assert items_of(User(user_id="u0", replace_history=True)) == []


def test_events_of_an_unknown_user_are_all_there_is() -> None:
    assert items_of(User(user_id="stranger")) == []
    assert items_of(User(user_id="stranger", events=(event(3, 1),))) == [3]
    assert items_of(User(events=(event(3, 1),))) == [3]


def test_events_about_items_nobody_has_described_are_left_out() -> None:
    unknown = Event(user_id="u0", item_id="never heard of", timestamp=START_S)
    assert items_of(User(user_id="u0", events=(unknown, event(3, 5)))) == [0, 3]
    assert items_of(User(user_id="u0", events=(unknown,))) == [0]


def test_new_returns_do_not_speak_either() -> None:
    assert items_of(User(user_id="u1", events=(event(3, 5, event_type="return"), event(4, 6, event_type="gift")))) == [
        2,
        4,
    ]


def test_without_a_clock_new_events_follow_in_their_own_order() -> None:
    user = User(user_id="u0", events=(event(4, 9), event(3, 5), event(2, None)))
    assert items_of(user, timestamps=False) == [0, 1, 2, 3, 4]


def test_types_values_and_baskets_travel() -> None:
    made = model()
    fresh = (
        event(3, 5, event_type="buy", value=2.5, session_id="s"),
        event(4, 6, session_id="s"),
        event(0, 7, session_id="t"),
    )
    histories = user_state(made, made.items, User(user_id="u1", events=fresh)).histories
    names = [histories.event_types[kind] for kind in histories.types]
    assert names == ["view", "buy", "view", "view"]
    assert histories.values[:2].tolist() == [3, 2.5]
    assert np.isnan(histories.values[2:]).all()
    first, second, third, fourth = histories.baskets.tolist()
    assert first == 7
    assert second == third
    assert len({first, second, fourth}) == 3


@pytest.mark.parametrize(
    ("user", "hours"),
    [
        (User(user_id="u0"), 0.0),  # the last event that speaks
        (User(user_id="u0", events=(event(3, 5),)), 5.0),
        (User(user_id="u0", now=START_S + 7 * HOUR_S), 7.0),
        (User(user_id="stranger", now=START_S + 2 * HOUR_S), 2.0),
    ],
)
def test_now_is_the_given_time_or_that_of_the_last_event(user: User, hours: float) -> None:
    made = model()
    assert user_state(made, made.items, user).now.tolist() == [START_S + hours * HOUR_S]


def test_without_a_clock_now_is_the_last_place() -> None:
    made = model(timestamps=False)
    assert user_state(made, made.items, User(user_id="u0", now=START_S)).now.tolist() == [1]
    assert user_state(made, made.items, User(user_id="stranger", now=START_S)).now.tolist() == [0]


def test_histories_read_as_events_again() -> None:
    made = model()
    first, second = events_of(remembered(made, User(user_id="u0")), made.items, "u0")
    assert first == Event(user_id="u0", item_id="i0", event_type="view", timestamp=START_S, session_id="4")
    assert (second.event_type, second.value, second.session_id) == ("return", 2.0, "")
    [bare] = events_of(remembered(model(timestamps=False), User(user_id="u1")), made.items, "u1")
    assert bare.timestamp is None


def test_the_model_is_not_touched() -> None:
    made = model()
    items: ItemTable = made.items
    user_state(made, items, User(user_id="u0", events=(event(3, 5),)))
    assert made.histories.items.tolist() == [0, 1, 2]


def test_what_the_snapshot_holds_is_not_counted_twice() -> None:
    """A store that was filled from the files a snapshot was trained on tells each event again."""
    again = Event(user_id="u0", item_id="i1", timestamp=START_S + HOUR_S)
    later = Event(user_id="u0", item_id="i1", timestamp=START_S + 2 * HOUR_S)
    assert items_of(User(user_id="u0", events=(again,))) == items_of(User(user_id="u0"))
    assert len(items_of(User(user_id="u0", events=(again, later)))) == len(items_of(User(user_id="u0"))) + 1


def test_more_types_than_a_number_holds() -> None:
    """Types past 32,767 share the last; none turns into another user's type, and it takes no quadratic time."""
    told = tuple(
        Event(user_id="u0", item_id="i1", event_type=f"t{n}", timestamp=START_S + 9 * HOUR_S + n) for n in range(33_000)
    )
    made = model()
    histories = user_state(made, made.items, User(user_id="u0", events=told)).histories
    assert histories.types.min() >= 0
    assert histories.event_types[histories.types[histories.times == START_S + 9 * HOUR_S + 5][0]] == "t5"
