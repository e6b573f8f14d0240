"""Each kind of bad row: strict refuses and names it, lenient leaves it out and says so."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from recsys.data import dataset as dataset_module
from recsys.data.dataset import load_dataset
from recsys.data.items import cut
from recsys.data.report import KINDS, MAX_EXAMPLES
from recsys.errors import InvalidData, InvalidInput
from recsys.types import MAX_ID_BYTES, MAX_TEXT_BYTES, Item

NOW = 1_700_000_000.0
DAY = 24 * 3600.0
LONG = "é" * (MAX_ID_BYTES // 2) + "x"
GOOD = {
    "user_id": "u",
    "item_id": "a",
    "event_type": "view",
    "timestamp": NOW - 10,
    "value": 1.0,
    "event_id": "e0",
    "basket_id": "b",
}
ITEMS = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"]})


def events_with(**bad: Any) -> pl.DataFrame:
    """Three good rows with a bad one in third place."""
    rows = [{**GOOD, "event_id": f"e{i}"} for i in range(4)]
    rows[2] |= bad
    schema = {name: pl.Float64 if name in ("timestamp", "value") else pl.String for name in GOOD}
    return pl.DataFrame(rows, schema=schema)


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("user_id", None, "missing"),
        ("user_id", "", "missing"),
        ("item_id", None, "missing"),
        ("user_id", LONG, "too_long"),
        ("item_id", LONG, "too_long"),
        ("event_type", LONG, "too_long"),
        ("basket_id", LONG, "too_long"),
        ("timestamp", None, "no_time"),
        ("timestamp", NOW + DAY + 1, "future"),
        ("timestamp", float("inf"), "not_finite"),
        ("timestamp", float("nan"), "not_finite"),
        ("value", float("nan"), "not_finite"),
        ("value", float("-inf"), "not_finite"),
        ("value", 1e39, "not_finite"),
        ("event_id", "e0", "duplicate"),
        ("item_id", "z", "unknown"),
    ],
)
def test_a_bad_event(field: str, value: Any, kind: str) -> None:
    source = (events_with(**{field: value}), ITEMS)
    with pytest.raises(InvalidData) as caught:
        load_dataset(source, now=NOW)
    assert KINDS[kind][0] in str(caught.value)
    assert f"events[3].{field}" in [violation.field for violation in caught.value.violations]

    lenient = load_dataset(source, strict=False, now=NOW)
    assert lenient.histories.num_events == 3
    assert (lenient.report.events_read, lenient.report.events_kept) == (4, 3)
    problems = {(p.table, p.field, p.kind): p for p in lenient.report.problems}
    found = problems["events", field, kind]
    assert (found.count, found.examples[0].row) == (1, 3)
    assert field in lenient.report.table()
    assert all(p.examples[0].row == 3 for p in problems.values())


@pytest.mark.parametrize("value", ["yesterday", "2020-13-01", "nan?"])
def test_text_that_is_no_time(value: str) -> None:
    events = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "a"], "timestamp": ["2020-01-01", value]})
    with pytest.raises(InvalidData, match=r"timestamp .* missing, or not a time"):
        load_dataset(events)
    assert load_dataset(events, strict=False).histories.num_events == 1


def test_text_that_is_no_number() -> None:
    events = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "a"], "position": ["1", "2"], "value": ["x", None]})
    with pytest.raises(InvalidData, match="row 1: 'x'"):
        load_dataset(events)
    assert list(load_dataset(events, strict=False).users) == ["v"]


def test_the_future_begins_a_day_from_now() -> None:
    assert load_dataset(events_with(timestamp=NOW + DAY), now=NOW).histories.num_events == 4


@pytest.mark.parametrize("missing", ["user_id", "item_id", "timestamp"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_missing_column_is_named(missing: str, strict: bool) -> None:
    with pytest.raises(InvalidData, match=rf"events\.{missing}.*required column is missing"):
        load_dataset(events_with().drop(missing), strict=strict)


def test_columns_cut_at_the_wrong_sign_are_seen() -> None:
    events = pl.DataFrame({"user_id;item_id;timestamp": ["u;i;1"]})
    with pytest.raises(InvalidData, match=r"found columns: \['user_id;item_id;timestamp'\]; they hold ';'"):
        load_dataset(events)


def test_a_missing_item_id_column_is_named() -> None:
    with pytest.raises(InvalidData, match=r"items\.item_id"):
        load_dataset((events_with(), ITEMS.drop("item_id")))


@pytest.mark.parametrize(
    ("column", "dtype", "reason"),
    [("user_id", pl.List(pl.String), "strings or integers"), ("timestamp", pl.Boolean, "numbers or times")],
)
def test_columns_of_a_hopeless_type(column: str, dtype: Any, reason: str) -> None:
    events = events_with().with_columns(pl.lit(None, dtype=dtype).alias(column))
    with pytest.raises(InvalidInput, match=reason):
        load_dataset(events)


@pytest.mark.parametrize(
    ("bad", "kind", "kept"),
    [
        ({"item_id": None}, "missing", 2),
        ({"item_id": LONG}, "too_long", 2),
        ({"item_id": "a"}, "duplicate", 2),
        ({"description": "é" * MAX_TEXT_BYTES}, "text_too_long", 3),
        ({"attributes": "[1]"}, "not_attributes", 3),
        ({"attributes": "{"}, "not_attributes", 3),
    ],
)
def test_a_bad_item(bad: dict[str, str | None], kind: str, kept: int) -> None:
    rows = [{"item_id": id_, "title": id_, "description": "", "attributes": ""} for id_ in "abc"]
    rows[2] |= bad  # type: ignore[arg-type]
    source = (events_with(), pl.DataFrame(rows))
    with pytest.raises(InvalidData, match=KINDS[kind][0].split("(")[0]):
        load_dataset(source, now=NOW)
    lenient = load_dataset(source, strict=False, now=NOW)
    assert (lenient.report.items_read, lenient.report.items_kept, len(lenient.catalogue)) == (3, kept, kept)
    (problem,) = lenient.report.problems
    assert (problem.table, problem.kind, problem.count, problem.examples[0].row) == ("items", kind, 1, 3)
    assert all(len(text.encode()) <= MAX_TEXT_BYTES for text in lenient.catalogue.texts)


def test_a_long_text_loses_its_description_first() -> None:
    long = Item(item_id="a", title="T", description="é" * MAX_TEXT_BYTES, categories=("c",))
    short = cut(long)
    assert len(short.text.encode()) in (MAX_TEXT_BYTES, MAX_TEXT_BYTES - 1)
    assert (short.title, short.categories) == ("T", ("c",))
    assert long.description.startswith(short.description)
    only_title = cut(Item(item_id="a", title="x" * 2 * MAX_TEXT_BYTES, categories=("c",)))
    assert only_title == Item(item_id="a", title="x" * MAX_TEXT_BYTES)


def test_rows_are_counted_across_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "BATCH_EVENTS", 7)
    ids = [None if row % 10 == 9 else f"u{row}" for row in range(100)]
    events = pl.DataFrame(
        {"user_id": ids, "item_id": "a", "timestamp": 1.0, "event_id": [f"e{row % 99}" for row in range(100)]}
    )
    report = load_dataset(events, strict=False).report
    found = {p.field: p for p in report.problems}
    assert (found["user_id"].count, len(found["user_id"].examples)) == (10, MAX_EXAMPLES)
    assert [example.row for example in found["user_id"].examples] == [10, 20, 30, 40, 50]
    assert [example.row for example in found["event_id"].examples] == [100]
    assert report.events_kept == 90


def test_a_dropped_row_leaves_no_user_behind() -> None:
    dataset = load_dataset((events_with(user_id="ghost", item_id="z"), ITEMS), strict=False, now=NOW)
    assert list(dataset.users) == ["u"]
    assert list(dataset.catalogue.ids) == ["a", "b"]


def test_when_no_row_is_good_lenient_refuses_too() -> None:
    events = pl.DataFrame({"user_id": [None, ""], "item_id": ["a", "b"], "position": [1, 2]})
    with pytest.raises(InvalidInput, match="has no good event"):
        load_dataset(events, strict=False)


def test_the_report_reads_as_a_table() -> None:
    events = events_with(user_id="").with_columns(page=pl.lit("x"))
    report = load_dataset(events, strict=False, now=NOW).report
    assert str(report).splitlines() == [
        "frame: 3 of 4 events and 0 of 0 items are good",
        "table   field    rows  problem                       lenient loading  first rows",
        "events  user_id  1     missing, empty, or not an id  row dropped      row 3: ''",
        "columns not used: events.page",
    ]
    assert not report.ok
    clean = load_dataset(events_with(), now=NOW).report
    assert (clean.ok, clean.table(), str(clean)) == (True, "", "frame: 4 of 4 events and 0 of 0 items are good")
