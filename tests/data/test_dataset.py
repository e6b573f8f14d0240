"""What a loaded data set says: clocks, times, order, fingerprints."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest

from recsys.data import dataset as dataset_module
from recsys.data.dataset import Dataset, load_dataset

AT = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
SECONDS = AT.timestamp()


def load_times(*times: Any, name: str = "timestamp", dtype: Any = None) -> Dataset:
    return load_dataset(
        pl.DataFrame(
            {"user_id": ["u"] * len(times), "item_id": ["a"] * len(times), name: pl.Series(times, dtype=dtype)}
        )
    )


@pytest.mark.parametrize(
    "time",
    [
        AT,
        AT.replace(tzinfo=None),
        AT.astimezone(timezone(timedelta(hours=5))),
        int(SECONDS),
        SECONDS,
        int(SECONDS) * 1000,
        str(int(SECONDS)),
        str(int(SECONDS) * 1000),
        "2020-01-02T03:04:05Z",
        "2020-01-02T03:04:05",
        "2020-01-02 03:04:05",
        " 2020-01-02 03:04:05.000 ",
        "2020-01-02T05:04:05+02:00",
    ],
)
def test_every_way_to_write_a_time(time: Any) -> None:
    assert load_times(time).histories.times.tolist() == [SECONDS]


def test_dates_and_minutes_are_times_too() -> None:
    assert load_times(date(2020, 1, 2)).histories.times.tolist() == [1_577_923_200]
    assert load_times("2020-01-02", "2020-01-02T00:01").histories.times.tolist() == [1_577_923_200, 1_577_923_260]
    assert load_times("2020-01-02T03:04:05.25", "2020-01-02T03:04:05Z").histories.times.tolist() == [
        SECONDS,
        SECONDS + 0.25,
    ]


@pytest.mark.parametrize("name", ["seconds_since_first", "position"])
def test_other_clocks(name: str) -> None:
    dataset = load_times(5, 0, 10**15, name=name)
    assert dataset.histories.times.tolist() == [0, 5, 1e15]
    assert dataset.histories.clock == {"seconds_since_first": "relative", "position": "position"}[name]


def test_position_breaks_ties_of_a_better_clock() -> None:
    events = pl.DataFrame(
        {"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": [1.0, 1.0, 0.0], "position": [2, 1, 3]}
    )
    dataset = load_dataset(events)
    assert [dataset.catalogue.ids.ids[item] for item in dataset.histories.items] == ["c", "b", "a"]


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    events = pl.DataFrame(
        {
            "user_id": [f"u{i * 7 % 11}" for i in range(50)],
            "item_id": [f"i{i * 5 % 13}" for i in range(50)],
            "event_type": ["view" if i < 40 else "buy" for i in range(50)],
            "timestamp": [float(i * 17 % 23) for i in range(50)],
        }
    )
    whole = load_dataset(events)
    monkeypatch.setattr(dataset_module, "BATCH_EVENTS", 3)
    assert load_dataset(events).fingerprint == whole.fingerprint
    assert list(whole.users)[:3] == ["u0", "u7", "u3"]


def test_the_fingerprint_sees_each_change() -> None:
    events = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1.0, 2.0], "value": [1.0, 2.0]})
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"]})
    changed = [
        (events, items),
        (events.with_columns(user_id=pl.lit("w")), items),
        (events.with_columns(timestamp=pl.col("timestamp") + 1), items),
        (events.with_columns(value=pl.lit(3.0)), items),
        (events.with_columns(event_type=pl.lit("buy")), items),
        (events, items.with_columns(title=pl.lit("C"))),
        (events.reverse(), items.reverse()),
    ]
    prints = [load_dataset(source).fingerprint for source in changed]
    assert len(set(prints)) == len(prints)
    assert load_dataset((events, items)).fingerprint == prints[0]
