from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InvalidInput
from recsys.types import Candidate, Event, Explanation, Fallback, Item, RankedItem, Remembered
from recsys.v1 import types_pb2 as pb
from recsys.wire import values

TEXT = st.text(max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TIME = st.integers(0, 2**40).map(lambda ticks: ticks / 256)  # what nanoseconds and float64 both hold
EVENTS = st.builds(
    Event,
    user_id=TEXT,
    item_id=TEXT,
    event_type=TEXT,
    timestamp=st.none() | TIME,
    value=st.none() | NUMBER,
    event_id=TEXT,
    session_id=TEXT,
)
MEMORIES = st.builds(Remembered, event=EVENTS, title=TEXT, weight=NUMBER, source=TEXT)


@given(EVENTS)
def test_events_come_back(event: Event) -> None:
    assert values.from_event(values.to_event(event)) == event


@given(
    st.builds(
        Item, item_id=TEXT, title=TEXT, description=TEXT, categories=st.tuples(TEXT), attributes=st.just({"a": "1"})
    )
)
def test_items_come_back(item: Item) -> None:
    assert values.from_item(values.to_item(item)) == item


@given(st.builds(Candidate, item_id=TEXT, text=TEXT))
def test_candidates_come_back(candidate: Candidate) -> None:
    assert values.from_candidate(values.to_candidate(candidate)) == candidate


@given(
    st.builds(
        RankedItem,
        item_id=TEXT,
        score=st.floats(width=32, allow_nan=False),
        rank=st.integers(1, 1000),
        index=st.integers(-1, 1000),
        parts=st.dictionaries(TEXT, st.floats(width=32, allow_nan=False), max_size=3),
        fallbacks=st.lists(st.sampled_from(Fallback)).map(tuple),
    )
)
def test_ranked_items_come_back(row: RankedItem) -> None:
    assert values.from_ranked(values.to_ranked(row)) == row


@given(
    st.builds(
        Explanation,
        item_id=TEXT,
        score=st.floats(width=32, allow_nan=False),
        base=NUMBER,
        contributions=st.dictionaries(TEXT, NUMBER, max_size=3),
        memories=st.lists(MEMORIES, max_size=3).map(tuple),
    )
)
def test_explanations_come_back(explanation: Explanation) -> None:
    assert values.from_explanation(values.to_explanation(explanation)) == explanation


@given(TIME)
def test_times_of_the_present_are_exact(seconds: float) -> None:
    assert values.from_time(values.to_time(seconds)) == seconds


@pytest.mark.parametrize("seconds", [0.0, -0.5, 1.9999999999, values.MIN_SECONDS, values.MAX_SECONDS])
def test_times_are_valid_timestamps(seconds: float) -> None:
    time = values.to_time(seconds)
    assert 0 <= time.nanos < 1_000_000_000
    assert values.from_time(time) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1e300, values.MAX_SECONDS + 1])
def test_impossible_times_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        values.to_time(seconds)


def test_what_does_not_fit_names_its_field() -> None:
    with pytest.raises(InvalidInput, match=r"^user\.extra_history\[0\]="), values.building("user.extra_history[0]", 3):
        pb.Event(user_id="\udc80")


def test_every_fallback_has_its_number_and_new_ones_are_passed_over() -> None:
    names = {name.removeprefix("FALLBACK_REASON_") for name in pb.FallbackReason.keys()}  # noqa: SIM118 - no dict
    assert names == {fallback.name for fallback in Fallback} | {"UNSPECIFIED"}
    assert values.from_fallbacks([1, 999]) == (Fallback.UNKNOWN_USER,)


def test_vectors_travel_as_little_endian_bytes() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    message = values.to_vectors(vectors[:, ::-1])
    assert message.f32_le[:4] == np.float32(1).astype("<f4").tobytes()
    np.testing.assert_array_equal(values.from_vectors(message), vectors[:, ::-1])
    assert values.from_vectors(values.to_vectors(np.zeros((0, 8), np.float32))).shape == (0, 8)


def test_long_titles_are_cut_in_memories() -> None:
    memory = Remembered(event=Event(user_id="u", item_id="i"), title="t" * 8000, weight=1.0, source="s")
    assert len(values.to_memory(memory).title) == 200
