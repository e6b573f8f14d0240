"""No stage remembers what it is asked, in either protocol."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.data.dataset import Dataset
from recsys.data.histories import Histories
from recsys.errors import InvalidInput
from recsys.match import Corpus, States
from recsys.match.popularity import Popularity
from recsys.train.stages import (
    Stage,
    StageConfig,
    Stages,
    global_time_stages,
    leave_one_out_stages,
    repeats,
)
from tests.world import DAY_S, START_S, chains, dataset_of, histories_of, item_of, shop, table_of

NAMES = ("train", "validation", "test")
LOO = StageConfig()
GTS = StageConfig(test_days=60.0, validation_days=40.0)


def loo(dataset: Dataset, config: StageConfig = LOO) -> Stages:
    return leave_one_out_stages(dataset.histories, table_of(dataset.catalogue.items), config)


def gts(dataset: Dataset, config: StageConfig = GTS, ignored: tuple[str, ...] = ()) -> Stages:
    return global_time_stages(dataset.histories, table_of(dataset.catalogue.items), config, ignored)


def positions(stage: Stage, histories: Histories) -> np.ndarray:
    """Where each query's first target stands among all events: right after its state."""
    return histories.indptr[stage.users] + stage.queries.states.histories.lengths


def targets_of(stage: Stage, query: int) -> list[int]:
    return stage.queries.targets[stage.queries.indptr[query] : stage.queries.indptr[query + 1]].tolist()


def assert_states_end_before_their_targets(stage: Stage, histories: Histories) -> None:
    past = stage.queries.states.histories
    for query, (user, at) in enumerate(zip(stage.users, positions(stage, histories), strict=True)):
        start = histories.indptr[user]
        assert past.items[past.slice(query)].tolist() == histories.items[start:at].tolist()
        assert past.times[past.slice(query)].tolist() == histories.times[start:at].tolist()
        assert stage.target_times[query] == histories.times[at]
        assert stage.target_types[query] == histories.types[at]
        assert histories.items[at] in targets_of(stage, query)


def assert_memory_is_a_beginning(memory: Histories, histories: Histories) -> None:
    for user in range(len(histories)):
        mine, whole = memory.items[memory.slice(user)], histories.items[histories.slice(user)]
        assert mine.tolist() == whole[: len(mine)].tolist()


CONFIGS = [
    LOO,
    StageConfig(with_validation=True),
    StageConfig(train_queries=150, validation_queries=40, test_queries=70, seed=3),
    StageConfig(train_queries=400),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["all", "with validation", "sampled", "depth 2"])
@pytest.mark.parametrize("world", [chains, shop], ids=["chains", "shop"])
class TestLeaveOneOut:
    def test_nothing_asked_is_remembered(self, world: type, config: StageConfig) -> None:
        histories = world().histories
        stages = loo(world(), config)
        for name in NAMES:
            stage: Stage = getattr(stages, name)
            assert_states_end_before_their_targets(stage, histories)
            assert_memory_is_a_beginning(stage.memory, histories)
            assert stage.passing is stage.memory
            asked_at = positions(stage, histories) - histories.indptr[stage.users]
            assert (stage.memory.lengths[stage.users] <= asked_at).all(), name

    def test_each_user_is_asked_once_and_in_order(self, world: type, config: StageConfig) -> None:
        histories = world().histories
        stages = loo(world(), config)
        back = {name: histories.indptr[1:][s.users] - positions(s, histories) for name, s in _named(stages)}
        assert set(back["test"]) == {1}
        assert set(back["validation"]) == {2}
        assert back["train"].min() == 3
        for name in ("validation", "test"):
            users = getattr(stages, name).users
            assert len(set(users.tolist())) == len(users)

    def test_the_limits_hold(self, world: type, config: StageConfig) -> None:
        stages = loo(world(), config)
        limits = (config.train_queries, config.validation_queries, config.test_queries)
        for (_, stage), limit in zip(_named(stages), limits, strict=True):
            assert limit is None or len(stage.queries) <= limit


def _named(stages: Stages) -> list[tuple[str, Stage]]:
    return [(name, getattr(stages, name)) for name in NAMES]


def test_loo_reads_no_deeper_than_it_must() -> None:
    """300 users: up to 600 queries take one event each, 800 take two, 12,000 would take more than three."""
    histories = chains().histories
    for queries, depth in ((600, 1), (800, 2), (12_000, 3)):
        stages = loo(chains(), StageConfig(train_queries=queries))
        assert stages.train.memory.lengths.tolist() == np.maximum(histories.lengths - 2 - depth, 0).tolist()


def test_loo_test_memory_holds_validation_only_where_asked_to() -> None:
    histories = chains().histories
    plain, wider = loo(chains()), loo(chains(), StageConfig(with_validation=True))
    assert plain.test.memory is plain.validation.memory
    assert wider.test.memory.lengths.tolist() == (histories.lengths - 1).tolist()
    # The state holds what came before the question in either case.
    for stages in (plain, wider):
        assert stages.test.queries.states.histories.lengths.tolist() == (histories.lengths - 1).tolist()


def test_loo_remembers_short_lives_and_does_not_ask_them() -> None:
    lives = [[0, 1, 2, 3, 4, 5]] * 3 + [[6], [7, 8], []]
    stages = loo(dataset_of(histories_of(lives), [item_of(row) for row in range(9)]))
    assert sorted(set(stages.test.users.tolist())) == [0, 1, 2, 4]
    assert sorted(set(stages.train.users.tolist())) == [0, 1, 2]


def test_loo_without_a_life_to_ask_is_an_error() -> None:
    for lives in ([[0], [1]], [[], []], [[0, 1], [1, 0]]):
        with pytest.raises(InvalidInput, match="event"):
            loo(dataset_of(histories_of(lives), [item_of(row) for row in range(2)]))


class TestGlobalTime:
    @pytest.mark.parametrize("config", [GTS, replace(GTS, train_queries=60, validation_queries=50, test_queries=40)])
    def test_nothing_asked_is_remembered(self, config: StageConfig) -> None:
        histories = shop().histories
        for name, stage in _named(gts(shop(), config)):
            assert_states_end_before_their_targets(stage, histories)
            assert stage.memory.times.max() < stage.target_times.min(), name
            past = stage.queries.states.histories
            assert (past.last_times < stage.target_times).all(), name
            np.testing.assert_array_equal(stage.queries.states.now, stage.target_times)

    def test_a_basket_is_all_that_a_user_took_at_one_moment(self) -> None:
        histories = shop().histories
        for _, stage in _named(gts(shop())):
            for query, (user, time) in enumerate(zip(stage.users, stage.target_times, strict=True)):
                mine = histories.slice(user)
                basket = set(histories.items[mine][histories.times[mine] == time].tolist())
                assert targets_of(stage, query) == sorted(basket)

    def test_every_basket_of_a_window_is_asked_once(self) -> None:
        histories = shop().histories
        end = histories.times.max() + 1.0
        bounds = [end - days * DAY_S for days in (160, 100, 60, 0)]
        for (_, stage), start, stop in zip(_named(gts(shop())), bounds[:-1], bounds[1:], strict=True):
            inside = (histories.times >= start) & (histories.times < stop)
            wanted = set(zip(histories.users[inside].tolist(), histories.times[inside].tolist(), strict=True))
            found = list(zip(stage.users.tolist(), stage.target_times.tolist(), strict=True))
            assert sorted(found) == sorted(wanted)
            assert stage.memory.num_events == (histories.times < start).sum()

    def test_windows_follow_one_another(self) -> None:
        stages = gts(shop())
        assert stages.train.target_times.max() < stages.validation.target_times.min()
        assert stages.validation.target_times.max() < stages.test.target_times.min()

    def test_what_passes_by_is_read_before_the_question_only(self) -> None:
        """Popularity is the one reader of `passing`: whatever happens from the question on changes nothing it says."""
        dataset = shop()
        items = table_of(dataset.catalogue.items)
        stage = gts(dataset).test
        assert stage.passing.num_events > stage.memory.num_events
        everything = np.arange(len(items), dtype=np.int32)[None]
        for query in range(0, len(stage.queries), 40):
            now = stage.queries.states.now[query]
            nobody = States(histories=histories_of([[]], [[]], clock="timestamp"), now=np.array([now]), items=items)
            later = replace(stage.passing, items=np.where(stage.passing.times >= now, 0, stage.passing.items))
            scores = [
                Popularity.fit(Corpus(histories=histories, items=items)).read(nobody).score(everything)
                for histories in (stage.passing, later)
            ]
            np.testing.assert_array_equal(scores[0], scores[1])
            assert scores[0].any()

    def test_returns_are_neither_remembered_nor_asked(self) -> None:
        dataset = shop()
        types = np.zeros(dataset.histories.num_events, np.int16)
        types[::5] = 1
        histories = replace(dataset.histories, types=types, event_types=("buy", "return"))
        stages = gts(dataset_of(histories, dataset.catalogue.items), ignored=("return",))
        for _, stage in _named(stages):
            assert not stage.memory.types.any()
            assert not stage.queries.states.histories.types.any()
            assert not stage.target_types.any()

    def test_a_clock_that_is_no_timestamp_is_an_error(self) -> None:
        with pytest.raises(InvalidInput, match=r"clock.*timestamps"):
            gts(chains())

    def test_too_short_a_time_is_an_error_that_says_so(self) -> None:
        """Ten days cannot be cut into 56, 28 and 56; nor can 100, of which nothing would be left to remember."""
        for days in (10, 100, 130):
            times = [[START_S + day * DAY_S for day in range(days)]] * 4
            lives = [[day % 5 for day in range(days)]] * 4
            short = dataset_of(histories_of(lives, times, clock="timestamp"), [item_of(row) for row in range(5)])
            with pytest.raises(InvalidInput, match="days"):
                gts(short, StageConfig(test_days=56.0, validation_days=28.0))

    @pytest.mark.parametrize("gap_days", [0, 400])
    def test_left_to_itself_it_finds_room(self, gap_days: int) -> None:
        """A log of ten days, and one whose last events come more than a year after the others."""
        days = [*range(40), *range(40 + gap_days, 42 + gap_days)]
        times = [[START_S + day * DAY_S for day in days]] * 4
        lives = [[place % 5 for place in range(len(days))]] * 4
        stages = gts(
            dataset_of(histories_of(lives, times, clock="timestamp"), [item_of(row) for row in range(5)]), StageConfig()
        )
        for stage in (stages.train, stages.validation, stages.test):
            assert len(stage.queries) > 0
            assert stage.memory.times.max() < stage.queries.states.now.min()


def test_a_shop_repeats_and_films_do_not() -> None:
    assert repeats(shop().histories)
    assert not repeats(chains().histories)
    assert not repeats(histories_of([[0, 0, 1]], [[1.0, 1.0, 2.0]]))  # one basket twice is no repeat


def test_the_draw_hangs_on_the_seed() -> None:
    def users(seed: int) -> list[int]:
        return loo(chains(), StageConfig(test_queries=30, seed=seed)).test.users.tolist()

    assert users(0) == users(0) != users(1)
