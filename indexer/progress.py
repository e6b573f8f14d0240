"""Progress with rates and time left: a bar a step on a terminal, lines elsewhere, nothing where only JSON is wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from recsys.train.fit import Progress, quiet

_LINE_EVERY_S = 10.0


@contextmanager
def progress(*, silent: bool) -> Iterator[Progress]:
    """A callback (what, done, total) that shows progress on standard error; a `total` of 0 is not known yet."""
    console = Console(stderr=True, markup=False, highlight=False)
    if silent:
        yield quiet
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=console) as bars:
            yield _OnTerminal(bars)
    else:
        yield _InLines(console)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "")


class _OnTerminal:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._what, self._task = what, self._bars.add_task(what, total=total or None)
        self._bars.update(self._task, completed=done, total=total or None)


class _InLines:
    """A line when a step begins and ends, and one every ten seconds between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._what, self._begun_s, self._said_s, self._first = "", 0.0, 0.0, 0

    def __call__(self, what: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if what != self._what:
            self._what, self._begun_s, self._first = what, now_s, done
        elif done != total and now_s - self._said_s < _LINE_EVERY_S:
            return
        self._said_s = now_s
        self._console.print(line(what, done - self._first, done, total, now_s - self._begun_s), soft_wrap=True)


def line(what: str, fresh: int, done: int, total: int, elapsed_s: float) -> str:
    """A step in words: how far it is, its rate over what was `fresh`ly done, and the time left."""
    shown = f"{what}: {done:,}" + (f" of {total:,}" if total else "")
    if fresh <= 0 or elapsed_s <= 0:
        return shown
    rate = fresh / elapsed_s
    left = f", {(total - done) / rate:.0f} s left" if total > done else ""
    return f"{shown} ({rate:,.1f}/s{left})"
