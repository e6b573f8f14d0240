"""The whole flow on a world whose best item is provable: everybody walks up by one, so 23 follows 20, 21, 22."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from recsys.data.dataset import Dataset
from recsys.errors import InvalidInput
from recsys.flow import allowed_mask
from recsys.recommend import Recommender
from recsys.states import user_state
from recsys.types import Candidate, Event, Fallback, Item, Ranking, User
from tests.world import (
    DAY_S,
    START_S,
    dataset_of,
    events,
    histories_of,
    item_of,
    model_of,
    recommender_of,
    shop,
    words,
)

NUM_ITEMS = 150
NEW = Item(item_id="new", title="maker1 thing22 again", description="a kind2 of maker1", categories=("novel",))


def staircase() -> Dataset:
    """Twelve steps up from anywhere, by 300 users; nobody ever does anything else."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, NUM_ITEMS, 300)
    lives = [[int(start + step) % NUM_ITEMS for step in range(12)] for start in starts]
    return dataset_of(histories_of(lives), [item_of(row) for row in range(NUM_ITEMS)])


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return recommender_of(model_of(staircase()))


@pytest.fixture(scope="module")
def store() -> Recommender:
    """With timestamps, baskets and repeats."""
    return recommender_of(model_of(shop()))


def walker(*rows: int) -> User:
    return User(events=events(*(f"i{row % NUM_ITEMS}" for row in rows)))


def ids(ranking: Ranking) -> list[str]:
    return [item.item_id for item in ranking.items]


def candidates(*item_ids: str) -> list[Candidate]:
    return [Candidate(item_id=item_id) for item_id in item_ids]


class TestRecommend:
    def test_the_next_step_is_first_from_anywhere(self, recommender: Recommender) -> None:
        for row in range(0, NUM_ITEMS, 7):
            first, *_ = ids(recommender.recommend(walker(row, row + 1, row + 2)))
            assert first == f"i{(row + 3) % NUM_ITEMS}"

    def test_without_a_ranker_too_and_it_says_so(self, recommender: Recommender) -> None:
        bare = replace(recommender, model=replace(recommender.model, ranker=None))
        answer = bare.recommend(walker(20, 21, 22))
        assert ids(answer)[0] == "i23"
        assert answer.fallbacks == (Fallback.RANKER_UNAVAILABLE,)

    def test_rows_are_numbered_by_falling_score(self, recommender: Recommender) -> None:
        answer = recommender.recommend(walker(20, 21, 22), k=30)
        scores = [item.score for item in answer.items]
        assert scores == sorted(scores, reverse=True)
        assert [item.rank for item in answer.items] == list(range(1, 31))
        assert {item.index for item in answer.items} == {-1}
        assert len(set(ids(answer))) == 30
        assert answer.fallbacks == ()

    def test_what_was_met_comes_back_only_where_wanted(self, recommender: Recommender) -> None:
        met = {"i20", "i21", "i22"}
        assert not met & set(ids(recommender.recommend(walker(20, 21, 22), k=NUM_ITEMS)))
        assert met <= set(ids(recommender.recommend(walker(20, 21, 22), k=NUM_ITEMS, include_seen=True)))

    def test_a_shop_repeats_by_itself(self, store: Recommender) -> None:
        user = User(user_id="u5")
        met = {event.item_id for event in store.history(user)}
        assert met & set(ids(store.recommend(user, k=5)))
        assert not met & set(ids(store.recommend(user, k=5, include_seen=False)))

    def test_the_excluded_stay_away(self, recommender: Recommender) -> None:
        answer = recommender.recommend(walker(20, 21, 22), k=NUM_ITEMS, exclude=["i23", "never heard of"])
        assert "i23" not in ids(answer)
        assert len(answer.items) == NUM_ITEMS - 4

    def test_categories_hold_the_answer_together(self, recommender: Recommender) -> None:
        answer = recommender.recommend(walker(20, 21, 22), k=NUM_ITEMS, categories=["kind0", "kind3"])
        rows = {int(item_id[1:]) for item_id in ids(answer)}
        assert rows == {row for row in range(NUM_ITEMS) if row % 5 in (0, 3)} - {20}
        assert ids(answer)[0] == "i23"

    def test_nothing_allowed_is_an_empty_answer(self, recommender: Recommender) -> None:
        assert recommender.recommend(walker(20), categories=["no such shelf"]).items == ()

    def test_popular_items_fill_what_the_matchers_cannot(self, recommender: Recommender) -> None:
        """All 150 are asked for; of a stranger nothing is known, so what is popular leads."""
        stranger = User(user_id="stranger")
        proposed = recommender.recommend(stranger, k=1)
        answer = recommender.recommend(stranger, k=NUM_ITEMS)
        assert sorted(ids(answer)) == sorted(f"i{row}" for row in range(NUM_ITEMS))
        assert answer.fallbacks == proposed.fallbacks == (Fallback.UNKNOWN_USER,)
        counts = np.bincount(recommender.model.histories.items, minlength=NUM_ITEMS)
        short = recommender.recommend(stranger, k=100)
        chosen = counts[[int(item_id[1:]) for item_id in ids(short)]]
        assert chosen.min() >= np.sort(counts)[::-1][:100].min()

    def test_never_more_than_there_are(self, recommender: Recommender) -> None:
        assert len(recommender.recommend(walker(20), k=10_000).items) == NUM_ITEMS - 1

    @pytest.mark.parametrize("k", [0, -3])
    def test_k_below_one_is_an_error(self, recommender: Recommender, k: int) -> None:
        with pytest.raises(InvalidInput, match=f"k={k}"):
            recommender.recommend(walker(20), k=k)

    def test_parts_are_the_matchers_scores(self, recommender: Recommender) -> None:
        first = recommender.recommend(walker(20, 21, 22), k=1, parts=True).items[0]
        assert set(first.parts) == {signal.name for signal in recommender.model.flow.signals}
        assert first.parts["transitions_next"] > 0
        assert recommender.recommend(walker(20), k=1).items[0].parts == {}


class TestReadYourWrites:
    def test_events_since_the_snapshot_change_the_answer(self, recommender: Recommender) -> None:
        plain = ids(recommender.recommend(User(user_id="u0")))
        moved = ids(recommender.recommend(User(user_id="u0", events=events("i40", "i41", "i42"))))
        assert moved[0] == "i43" != plain[0]

    def test_a_history_may_be_replaced(self, recommender: Recommender) -> None:
        told = User(user_id="u0", events=events("i40", "i41"), replace_history=True)
        nameless = replace(told, user_id="")
        assert recommender.recommend(told) == recommender.recommend(nameless)
        assert [event.item_id for event in recommender.history(told)] == ["i40", "i41"]

    def test_events_about_unknown_items_change_nothing(self, recommender: Recommender) -> None:
        noise = events("never heard of", "nor of this")
        assert recommender.recommend(User(user_id="u0", events=noise)) == recommender.recommend(User(user_id="u0"))

    def test_history_is_all_of_it_in_order(self, store: Recommender) -> None:
        last = max(event.timestamp or 0.0 for event in store.history(User(user_id="u5")))
        late = Event(user_id="u5", item_id="i3", timestamp=last + DAY_S, event_id="e1")
        early = Event(user_id="u5", item_id="i4", timestamp=START_S - DAY_S, event_id="e2")
        timeless = Event(user_id="u5", item_id="unknown", event_id="e3")
        history = store.history(User(user_id="u5", events=(timeless, late, early)))
        assert [event.event_id for event in (history[0], history[-2], history[-1])] == ["e2", "e1", "e3"]
        assert len(history) == len(store.history(User(user_id="u5"))) + 3

    def test_history_without_a_clock_ends_with_what_is_new(self, recommender: Recommender) -> None:
        fresh = (Event(user_id="u0", item_id="i9", timestamp=7.0), Event(user_id="u0", item_id="i8", timestamp=5.0))
        history = recommender.history(User(user_id="u0", events=fresh))
        assert [event.item_id for event in history[-2:]] == ["i8", "i9"]
        assert history[:-2] == recommender.history(User(user_id="u0"))

    def test_history_of_a_stranger_is_empty(self, recommender: Recommender) -> None:
        assert recommender.history(User(user_id="stranger")) == []


class TestRank:
    def test_every_row_is_answered_in_order(self, recommender: Recommender) -> None:
        answer = recommender.rank(walker(20, 21, 22), candidates("i99", "i23", "i60"))
        assert ids(answer)[0] == "i23"
        assert sorted(item.index for item in answer.items) == [0, 1, 2]
        assert [item.rank for item in answer.items] == [1, 2, 3]
        assert answer.fallbacks == ()

    def test_duplicates_are_answered_each(self, recommender: Recommender) -> None:
        answer = recommender.rank(walker(20, 21, 22), candidates("i23", "i60", "i23"))
        assert [item.index for item in answer.items] == [0, 2, 1]
        assert answer.items[0].score == answer.items[1].score

    def test_one_candidate_scores_as_among_many(self, recommender: Recommender) -> None:
        """Candidates that the engine would bring itself change nothing of each other's score."""
        user = walker(20, 21, 22)
        best = ids(recommender.recommend(user, k=5))
        alone = [recommender.rank(user, candidates(item_id)).items[0].score for item_id in best]
        together = {item.item_id: item.score for item in recommender.rank(user, candidates(*best)).items}
        assert [together[item_id] for item_id in best] == pytest.approx(alone, abs=1e-6)
        assert alone == pytest.approx([item.score for item in recommender.recommend(user, k=5).items], abs=1e-6)

    def test_top_k_is_the_head_of_all(self, recommender: Recommender) -> None:
        rows = candidates(*(f"i{row}" for row in range(0, 60, 3)))
        whole = recommender.rank(walker(20, 21, 22), rows)
        assert recommender.rank(walker(20, 21, 22), rows, top_k=4).items == whole.items[:4]
        assert recommender.rank(walker(20, 21, 22), rows, top_k=99).items == whole.items
        with pytest.raises(InvalidInput, match="top_k=-1"):
            recommender.rank(walker(20), rows, top_k=-1)

    def test_what_was_met_is_ranked_when_asked(self, recommender: Recommender) -> None:
        assert set(ids(recommender.rank(walker(20, 21, 22), candidates("i21", "i70")))) == {"i21", "i70"}

    def test_fallbacks_are_named_by_row_and_for_all(self, recommender: Recommender) -> None:
        rows = [
            Candidate(item_id="i60"),
            Candidate(text="a kind2 of maker1"),
            Candidate(item_id="never heard of", text="a kind2 of maker1"),
            Candidate(item_id="never heard of"),
        ]
        answer = recommender.rank(User(user_id="stranger"), rows)
        by_index = {item.index: item for item in answer.items}
        assert [by_index[index].fallbacks for index in range(4)] == [
            (),
            (Fallback.COLD_ITEM,),
            (Fallback.COLD_ITEM,),
            (Fallback.UNKNOWN_ITEM,),
        ]
        assert set(answer.fallbacks) == {Fallback.UNKNOWN_USER, Fallback.COLD_ITEM, Fallback.UNKNOWN_ITEM}
        assert [by_index[index].item_id for index in range(4)] == ["i60", "", "never heard of", "never heard of"]

    def test_a_text_that_resembles_is_seen_to(self, recommender: Recommender) -> None:
        texts = [Candidate(text="something else entirely"), Candidate(text=item_of(22).text)]
        answer = recommender.rank(walker(20, 21, 22), texts, parts=True)
        alike, other = sorted(answer.items, key=lambda item: -item.parts["text_last"])
        assert alike.index == 1
        assert alike.parts["text_last"] == pytest.approx(1.0, abs=1e-5)
        assert alike.parts["lexical_best"] > other.parts["lexical_best"]

    def test_the_item_stands_before_the_text(self, recommender: Recommender) -> None:
        plain = recommender.rank(walker(20, 21, 22), [Candidate(item_id="i23")])
        assert recommender.rank(walker(20, 21, 22), [Candidate(item_id="i23", text="noise")]) == plain

    @pytest.mark.parametrize(
        ("rows", "field"), [([], "candidates"), ([Candidate(item_id="i1"), Candidate()], r"\[1\]")]
    )
    def test_nothing_to_rank_is_an_error(self, recommender: Recommender, rows: list[Candidate], field: str) -> None:
        with pytest.raises(InvalidInput, match=field):
            recommender.rank(walker(20), rows)

    def test_threads_answer_as_one(self, recommender: Recommender) -> None:
        users = [walker(row, row + 1) for row in range(12)]
        rows = candidates("i1", "i5", "i9")
        serial = [recommender.rank(user, rows) for user in users]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(lambda user: recommender.rank(user, rows), users)) == serial


class TestNewItems:
    def test_known_at_once(self, recommender: Recommender) -> None:
        wider = recommender.with_items([NEW])
        assert wider.item("new") == NEW
        assert wider.num_items == NUM_ITEMS + 1
        answer = wider.rank(walker(20, 21, 22), candidates("new", "i60"), parts=True)
        new = next(item for item in answer.items if item.item_id == "new")
        assert new.fallbacks == (Fallback.COLD_ITEM,)
        assert new.parts["text_last"] > 0.3
        assert new.parts["transitions_soon"] == 0

    def test_proposed_by_its_text_at_once(self, recommender: Recommender) -> None:
        """Not asked for, not popular, never met: only its text can bring it among the candidates."""
        states = user_state(recommender.model, recommender.with_items([NEW]).items, walker(20, 21, 22))
        field = recommender.model.flow.field(states, allowed_mask(states, include_seen=False))
        assert NUM_ITEMS in field.candidates

    def test_the_first_recommender_stays_as_it_was(self, recommender: Recommender) -> None:
        before = recommender.recommend(walker(20, 21, 22))
        recommender.with_items([NEW]).recommend(walker(20, 21, 22))
        assert recommender.item("new") is None
        assert recommender.recommend(walker(20, 21, 22)) == before
        assert recommender.rank(walker(20), candidates("new")).fallbacks == (Fallback.UNKNOWN_ITEM,)

    def test_recommended_on_its_own_shelf(self, recommender: Recommender) -> None:
        answer = recommender.with_items([NEW]).recommend(walker(20, 21, 22), categories=["novel"])
        assert ids(answer) == ["new"]
        assert answer.items[0].fallbacks == (Fallback.COLD_ITEM,)

    def test_events_about_it_count(self, recommender: Recommender) -> None:
        wider = recommender.with_items([NEW])
        user = User(events=events("new"))
        assert recommender.recommend(user).fallbacks == (Fallback.UNKNOWN_USER,)
        assert wider.recommend(user).fallbacks == ()
        alike = wider.rank(user, candidates("i22"), parts=True).items[0]
        assert alike.parts["recall_best"] > 0.3

    def test_a_known_item_changes_its_words_in_its_place(self, recommender: Recommender) -> None:
        renamed = Item(item_id="i23", title="renamed", categories=("novel",))
        wider = recommender.with_items([renamed, NEW, NEW])
        assert wider.item("i23") == renamed
        assert wider.num_items == NUM_ITEMS + 1
        assert set(ids(wider.recommend(walker(20, 21, 22), categories=["novel"]))) == {"i23", "new"}
        assert ids(wider.recommend(walker(20, 21, 22)))[0] == "i23"


class TestExplain:
    def test_contributions_sum_to_the_score(self, recommender: Recommender) -> None:
        user = walker(20, 21, 22)
        ranked = {item.item_id: item.score for item in recommender.rank(user, candidates("i23", "i60")).items}
        for told in recommender.explain(user, ["i23", "i60", "i23"]):
            assert told.base + sum(told.contributions.values()) == pytest.approx(told.score, rel=1e-5)
            assert told.score == pytest.approx(ranked[told.item_id], rel=1e-5)
            assert tuple(told.contributions) == recommender.model.flow.features

    def test_the_step_before_is_the_memory_that_speaks(self, recommender: Recommender) -> None:
        [told] = recommender.explain(walker(90, 60, 22), ["i23"], max_memories=2)
        assert told.memories[0].event.item_id == "i22"
        assert told.memories[0].title == item_of(22).title
        assert len(told.memories) <= 2
        weights = [memory.weight for memory in told.memories]
        assert weights == sorted(weights, reverse=True)
        assert min(weights) > 0

    def test_a_memorys_worth_is_the_score_without_it(self, recommender: Recommender) -> None:
        life = walker(90, 60, 22)
        [told] = recommender.explain(life, ["i23"], max_memories=2)
        for memory in told.memories:
            others = tuple(event for event in life.events if event.item_id != memory.event.item_id)
            ranked = recommender.rank(replace(life, events=others), candidates("i23"))
            assert memory.score_change == pytest.approx(ranked.items[0].score - told.score, abs=1e-5)
        assert told.memories[0].score_change < 0  # the step before is what lifts the next one

    def test_a_remembered_users_event_is_left_out_of_what_the_snapshot_holds(self, store: Recommender) -> None:
        user = User(user_id=store.model.users.ids[0])
        held = store.history(user)
        item_id = held[-1].item_id
        [told] = store.explain(user, [item_id], max_memories=1)
        gone = told.memories[0].event
        left = [event for event in held if event != gone]
        assert len(left) == len(held) - 1
        asked = User(user_id=user.user_id, events=tuple(left), replace_history=True, now=held[-1].timestamp)
        whole = replace(asked, events=tuple(held))
        before, after = (store.rank(each, candidates(item_id)).items[0].score for each in (whole, asked))
        [again] = store.explain(whole, [item_id], max_memories=1)
        assert again.memories[0].score_change == pytest.approx(after - before, abs=1e-5)

    def test_the_work_of_an_explanation_is_bounded(
        self, recommender: Recommender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("recsys.recommend.MAX_LEFT_OUT", 2)
        told = recommender.explain(walker(90, 60, 20, 21, 22), ["i23", "i61"], max_memories=5)
        memories = [memory for each in told for memory in each.memories]
        known = {memory.event.item_id for memory in memories if memory.score_change is not None}
        assert len(known) == 2
        heaviest = max(memories, key=lambda memory: memory.weight)
        assert heaviest.score_change is not None

    def test_a_new_item_is_explained_by_its_like(self, recommender: Recommender) -> None:
        [told] = recommender.with_items([NEW]).explain(walker(90, 60, 22), ["new"])
        assert told.memories[0].event.item_id == "i22"
        assert told.memories[0].source == "recall"

    def test_a_stranger_has_no_memories(self, recommender: Recommender) -> None:
        [told] = recommender.explain(User(user_id="stranger"), ["i23"])
        assert told.memories == ()

    def test_nothing_asked_is_nothing_told(self, recommender: Recommender) -> None:
        assert recommender.explain(walker(20), []) == []

    def test_an_unknown_item_is_an_error(self, recommender: Recommender) -> None:
        with pytest.raises(InvalidInput, match="never heard of"):
            recommender.explain(walker(20), ["i23", "never heard of"])

    def test_without_a_ranker_there_is_nothing_to_explain(self, recommender: Recommender) -> None:
        bare = replace(recommender, model=replace(recommender.model, ranker=None))
        with pytest.raises(InvalidInput, match="ranker"):
            bare.explain(walker(20), ["i23"])


class TestSearchHistory:
    def test_the_closest_texts_first(self, recommender: Recommender) -> None:
        found = recommender.search_history(walker(90, 60, 22, 61), "maker1 thing22", k=3)
        assert found[0].event.item_id == "i22"
        assert len(found) == 3
        weights = [memory.weight for memory in found]
        assert weights == sorted(weights, reverse=True)
        assert {memory.source for memory in found} == {"text"}
        assert "thing22" in words(found[0].title)

    def test_no_history_has_nothing_to_find(self, recommender: Recommender) -> None:
        assert recommender.search_history(User(user_id="stranger"), "anything", k=3) == []


def test_counts_of_what_is_held(recommender: Recommender) -> None:
    assert (recommender.num_users, recommender.num_items) == (300, NUM_ITEMS)
    assert recommender.num_memories == 300 * 12
    assert recommender.fingerprints["encoder"] == recommender.encoder.fingerprint
    recommender.warm_up()


class _Broken:
    """An encoder whose weights are gone."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def encode(self, texts: list[str]) -> np.ndarray:
        raise RuntimeError("no weights")


def test_without_the_encoder_texts_are_ranked_by_their_words(recommender: Recommender) -> None:
    broken = replace(recommender, encoder=_Broken(recommender.encoder.fingerprint))
    answer = broken.rank(walker(20, 21, 22), [Candidate(text="a story"), Candidate(item_id="i23")])
    assert Fallback.ENCODER_UNAVAILABLE in answer.fallbacks
    assert {item.index for item in answer.items} == {0, 1}
    assert all(np.isfinite(item.score) for item in answer.items)


def test_equal_scores_stand_by_popularity(recommender: Recommender) -> None:
    """Of two rows the ranker cannot tell apart the unknown one stands last, whatever the order of the request."""
    answer = recommender.rank(User(user_id="stranger"), candidates("never heard of", "i23"))
    scores = {item.item_id: item.score for item in answer.items}
    if scores["never heard of"] == scores["i23"]:
        assert ids(answer) == ["i23", "never heard of"]
    rows = np.array([NUM_ITEMS, 3, 5], np.int32)
    popularity = recommender.model.popularity
    expected = [1, 2] if popularity[3] >= popularity[5] else [2, 1]
    assert recommender._order(np.zeros(3), rows).tolist() == [*expected, 0]
