"""Lives that grow event by event are those that are read whole; what is kept is bounded, and never stale."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from recsys.flow import Kept, Usual, allowed_mask
from recsys.lives import Life, Lives, Told
from recsys.match import States
from recsys.model import Model
from recsys.recommend import Recommender
from recsys.states import user_state
from recsys.types import Candidate, Event, Item, User
from tests.world import DAY_S, START_S, chains, model_of, recommender_of, shop, table_of

LATER_S = START_S + 2_000 * DAY_S


class Log:
    """A store in memory; `reads` counts what was asked of it."""

    def __init__(self) -> None:
        self.events: list[tuple[int, Event]] = []
        self.reads: list[int] = []

    def write(self, event: Event) -> None:
        self.events.append((self.seq + 1, event))

    @property
    def seq(self) -> int:
        return self.events[-1][0] if self.events else 0

    def numbered_events(self, user_id: str, *, after_seq: int = 0) -> list[tuple[int, Event]]:
        self.reads.append(after_seq)
        own = [(seq, event) for seq, event in self.events if event.user_id == user_id and seq > after_seq]
        return sorted(own, key=lambda pair: (pair[1].timestamp or 0.0, pair[0]))

    def user(self, user_id: str, *extra: Event, erased_seq: int = 0, now: float | None = None) -> User:
        told = Told(self, user_id, after_seq=0, upto_seq=self.seq, erased_seq=erased_seq, extra=extra)
        return User(user_id=user_id, events=told, now=now)


def event(row: int, time_s: float, *, user_id: str = "u3", event_type: str = "view") -> Event:
    return Event(user_id=user_id, item_id=f"i{row}", timestamp=time_s, event_type=event_type)


@pytest.fixture(scope="module", params=["shop", "chains"])
def model(request: pytest.FixtureRequest) -> Model:
    """One on the clock of timestamps, in which things come again, and one that knows only an order."""
    return model_of(shop(60, 40) if request.param == "shop" else chains(60, 40))


def same(one: States, other: States) -> None:
    assert one.histories.items[-20:].tolist() == other.histories.items[-20:].tolist()
    assert one.histories.times[-20:].tolist() == other.histories.times[-20:].tolist()
    assert one.now.tolist() == other.now.tolist()
    mine, theirs = one.meetings, other.meetings
    for name in ("items", "counts", "moments", "last", "decayed", "first_s", "last_s", "lengths", "last_times"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), name)


def check(lives: Lives, model: Model, user: User) -> tuple[States, Life]:
    states, life = lives.state(model, model.items, user)
    same(states, user_state(model, model.items, user))
    return states, life


@pytest.mark.parametrize("seed", range(6))
def test_a_life_that_grows_is_the_life_read_whole(model: Model, seed: int) -> None:
    """Events in and out of order, told twice, of types that do not speak, about items nobody knows, inline."""
    rng, log, lives, time_s = np.random.default_rng(seed), Log(), Lives(), LATER_S
    for _ in range(60):
        for _ in range(int(rng.integers(0, 4))):
            time_s += float(rng.choice([0.0, DAY_S, DAY_S, -5 * DAY_S]))
            row, kind = int(rng.integers(0, 41)), str(rng.choice(["view", "view", "buy", "return"]))
            log.write(event(row, time_s, user_id=f"u{rng.integers(3, 5)}", event_type=kind))
        inline = [event(int(rng.integers(0, 41)), time_s + n) for n in range(int(rng.integers(0, 3)))]
        check(lives, model, log.user("u3", *inline, now=LATER_S + 90 * DAY_S))
        check(lives, model, log.user("nobody"))


def test_the_features_of_a_life_are_those_of_its_history(model: Model) -> None:
    log, lives = Log(), Lives()
    for step in range(4):
        log.write(event(5 + step, LATER_S + step * DAY_S))
        user = log.user("u3")
        states, life = lives.state(model, model.items, user)
        whole, seen = user_state(model, model.items, user), model.settings.include_seen
        asked = np.arange(0, 40, 3, dtype=np.int32)[None]
        for _ in range(2):  # the second time from what was kept
            mine = model.flow.field(states, allowed_mask(states, include_seen=seen), asked, kept=life.kept)
            theirs = model.flow.field(whole, allowed_mask(whole, include_seen=seen), asked)
            np.testing.assert_array_equal(mine.candidates, theirs.candidates)
            np.testing.assert_array_equal(mine.features, theirs.features)
        assert life.kept


def test_what_is_proposed_is_kept_for_as_long_as_it_holds(model: Model) -> None:
    """Until an event, another day, another question of what is allowed, or another item."""
    log, lives, asked = Log(), Lives(), np.arange(0, 40, 3, dtype=np.int32)[None]
    fresh = [Item(item_id="new", title="maker1 thing2")]
    wider = model.items.extended(fresh, table_of(fresh).base)
    for step in range(6):
        if step % 3 == 0:
            log.write(event(5 + step, LATER_S + step * DAY_S))
        for items, seen in ((model.items, False), (model.items, True), (wider, True)):
            user = log.user("u3", now=LATER_S + (step // 2) * DAY_S)
            states, life = lives.state(model, items, user)
            usual, whole = Usual(seen, len(items)), user_state(model, items, user)
            mine = model.flow.field(states, usual, asked, kept=life.kept)
            again = model.flow.field(states, usual, asked, kept=life.kept)
            theirs = model.flow.field(whole, usual.mask(whole), asked)
            for each in (mine, again):
                np.testing.assert_array_equal(each.candidates, theirs.candidates)
                np.testing.assert_array_equal(each.features, theirs.features)
            assert life.kept.proposed


def test_what_was_found_goes_before_lives_do(model: Model) -> None:
    """Where room is short, what was found for the user asked for longest ago is forgotten, and the user is not."""
    roomy = Lives()
    for user in range(4):
        find(roomy, model, user)
    found = sum(kept_of(roomy, model, user).size_bytes for user in range(4))
    lives = Lives(max_bytes=roomy.size_bytes - found // 2)
    for user in range(4):
        find(lives, model, user)
        assert lives.size_bytes <= roomy.size_bytes - found // 2
    assert len(lives) == 4
    assert [bool(kept_of(lives, model, user)) for user in (0, 3)] == [False, True]


def find(lives: Lives, model: Model, user: int) -> None:
    states, life = lives.state(model, model.items, User(user_id=f"u{user}"))
    model.flow.field(states, Usual(True, len(model.items)), kept=life.kept)
    lives.keep(User(user_id=f"u{user}"), life)


def kept_of(lives: Lives, model: Model, user: int) -> Kept:
    return lives.state(model, model.items, User(user_id=f"u{user}"))[1].kept


def test_a_warm_life_asks_the_store_for_what_is_new_alone(model: Model) -> None:
    log, lives = Log(), Lives()
    for step in range(5):
        log.write(event(step, LATER_S + step * DAY_S))
    lives.state(model, model.items, log.user("u3"))
    log.reads.clear()
    lives.state(model, model.items, log.user("u3"))
    assert log.reads == []
    log.write(event(9, LATER_S + 9 * DAY_S))
    lives.state(model, model.items, log.user("u3"))
    assert log.reads == [5]


def test_an_item_described_later_brings_its_events_back(model: Model) -> None:
    log, lives = Log(), Lives()
    log.write(Event(user_id="u3", item_id="new", timestamp=LATER_S))
    lives.state(model, model.items, log.user("u3"))
    fresh = [Item(item_id="new", title="a new thing")]
    wider = model.items.extended(fresh, table_of(fresh).base)
    states, _ = lives.state(model, wider, log.user("u3"))
    assert states.histories.items[-1] == len(model.items)


def test_an_erasure_is_noticed(model: Model) -> None:
    log, lives = Log(), Lives()
    log.write(event(5, LATER_S, user_id="visitor"))
    assert check(lives, model, log.user("visitor"))[0].histories.num_events == 1
    log.events = [(2, event(1, LATER_S, user_id="somebody else"))]
    assert check(lives, model, log.user("visitor", erased_seq=2))[0].histories.num_events == 0


def test_an_answer_that_is_kept_is_told_by_what_it_saw(model: Model) -> None:
    log = Log()
    log.write(event(5, LATER_S))
    then = log.user("u3")
    log.write(event(6, LATER_S + DAY_S))
    assert [each.item_id for each in then.events] == ["i5"]
    assert len(then.events) == then.events.num_held == 1  # type: ignore[attr-defined]  # a `Told`
    assert [each.item_id for each in log.user("u3").events] == ["i5", "i6"]


def test_lives_are_bounded_and_the_longest_unasked_go_first(model: Model) -> None:
    one = Lives()
    one.state(model, model.items, User(user_id="u0"))
    lives = Lives(max_bytes=4 * one.size_bytes)
    for user in range(40):
        states, life = lives.state(model, model.items, User(user_id=f"u{user}"))
        model.flow.field(states, allowed_mask(states, include_seen=True), kept=life.kept)
        lives.keep(User(user_id=f"u{user}"), life)
        assert lives.size_bytes <= 4 * one.size_bytes or len(lives) == 1
    assert lives.state(model, model.items, User(user_id="u39"))[1] is life
    assert lives.state(model, model.items, User(user_id="u0"))[1].kept == Kept()


def test_what_is_kept_does_not_grow_with_the_length_of_a_life(model: Model) -> None:
    log, lives, sizes = Log(), Lives(), []
    for step in range(3_000):
        log.write(event(step % 7, LATER_S + step * 60.0))
        if step in (999, 2_999):
            sizes.append(lives.state(model, model.items, log.user("u3"))[1].size_bytes)
    assert sizes[0] == sizes[1]


def test_many_at_once_see_what_one_sees(model: Model) -> None:
    log = Log()
    for step in range(20):
        log.write(event(step, LATER_S + step * DAY_S, user_id=f"u{step % 3}"))
    recommender, asked = recommender_of(model), [Candidate(item_id=f"i{row}") for row in range(30)]
    alone = replace(recommender, lives=Lives())
    serial = [alone.rank(log.user(f"u{n % 3}"), asked) for n in range(24)]
    small: Recommender = replace(recommender, lives=Lives(max_bytes=1))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: small.rank(log.user(f"u{n % 3}"), asked), range(24))) == serial
