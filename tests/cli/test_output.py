"""Tables, JSON, progress and words."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from rich.progress import Progress as Bars

from recsys.cli.output import Output, table
from recsys.cli.progress import _InLines, _OnTerminal, _Steps, in_words
from recsys.cli.words import day, earlier, reasons, size, span


def screen() -> Console:
    return Console(file=io.StringIO(), markup=False, highlight=False, emoji=False, width=80)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_title_is_no_markup() -> None:
    console = screen()
    Output(screen=console).show(table(("title",), [("[red]Alien[/red] :smile: [/]",)]))
    assert "[red]Alien[/red] :smile: [/]" in said(console)


def test_json_alone_on_standard_output() -> None:
    console = screen()
    output = Output(json_to="-", screen=console)
    output.heading("a heading")
    output.show("a table")
    output.result({"a": [1, float("nan"), float("inf")]})
    assert json.loads(said(console)) == {"a": [1, None, None]}


def test_reports_that_go_on_counting_share_a_step() -> None:
    steps = _Steps()
    reports = [
        ("memory: text", 0, 3, True),
        ("memory: linear", 1, 3, False),
        ("memory: text", 0, 3, True),
        ("ranker: examples", 64, 100, True),
        ("ranker: examples", 100, 100, False),
        ("ranker: trees", 1, 600, True),
    ]
    for what, done, total, begins in reports:
        assert steps.begins(what, done, total) is begins


def test_without_a_terminal_a_step_is_a_line() -> None:
    console = screen()
    lines = _InLines(console)
    for done in range(101):
        lines("item texts", done, 100)
    assert [line.partition("] ")[2] for line in said(console).splitlines()] == ["item texts (100 texts)"]


def test_on_a_terminal_a_step_is_a_bar_that_ends_full() -> None:
    bars = Bars(console=screen())
    shown = _OnTerminal(bars)
    for report in (("memory: text", 0, 2), ("memory: linear", 1, 2), ("ranker: trees", 68, 600), ("asking", 64, 64)):
        shown(*report)
    shown.finish()
    found = [(task.description, task.completed, task.total) for task in bars.tasks]
    assert found == [("memory: linear", 2, 2), ("ranker: trees", 68, 68), ("asking", 64, 64)]
    assert all(task.finished for task in bars.tasks)


def test_a_step_says_what_its_number_counts() -> None:
    assert in_words("memory: neighbours", 9) == "memory (9 parts, one after the other)"
    assert in_words("asking: test", 2_000) == "asking: test (2,000 questions)"
    assert in_words("ranker: trees", 600) == "ranker: trees (600 trees at most)"
    assert in_words("items", 40) == "items (40 steps)"


def test_what_lowers_a_score_speaks_against_it() -> None:
    raised, lowered = reasons({"linear_score": 0.2}), reasons({"linear_score": -0.2})
    assert raised == [("it goes with everything met so far", 0.2)]
    assert lowered == [("against it: what goes with everything met so far", -0.2)]


def test_reasons_add_up_by_matcher() -> None:
    shares = {
        "text_last": 0.1,
        "text_last_rank": 0.2,
        "popularity_week_norm": -0.5,
        "repeat_due": 0.0,
        "new_thing": 0.4,
    }
    found = reasons(shares, k=5)
    assert [share for _, share in found] == pytest.approx([-0.5, 0.4, 0.3])
    assert found[1][0] == "new"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "moments"), (90, "1 minute"), (7_200, "2 hours"), (86_400 * 3, "3 days"), (86_400 * 366 * 13, "13 years")],
)
def test_spans_in_their_largest_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_times_of_a_mere_order_are_not_shown() -> None:
    assert (day(None), earlier(None, 1.0), earlier(1.0, None)) == ("", "", "")
    assert (day(0.0), earlier(0.0, 86_400.0)) == ("1970-01-01", "1 day earlier")
    assert day(-1e11) == "-1199-02-15"


def test_sizes() -> None:
    assert [size(count) for count in (5, 2_048, 3 * 1024**2, 5 * 1024**3)] == ["5 B", "2.0 KiB", "3.0 MiB", "5.0 GiB"]
