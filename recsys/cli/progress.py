"""Progress of long steps: bars on a terminal, a line a step elsewhere, nothing where only JSON is wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from recsys.train.fit import Progress, quiet

# What a step's number counts, by how its name begins; the first that fits.
_COUNTED = (
    ("item texts", "texts"),
    ("memory", "parts, one after the other"),
    ("ranker: trees", "trees at most"),
    ("ranker", "questions"),
    ("asking", "questions"),
)


def in_words(what: str, total: int) -> str:
    """A step and how much there is of it: "asking: test (2,000 questions)"."""
    # Of the memory's parts only the first would be named, for they share a step.
    name = what.partition(":")[0] if what.startswith("memory") else what
    counted = next((words for start, words in _COUNTED if what.startswith(start)), "steps")
    return name if total < 2 else f"{name} ({total:,} {counted})"


@contextmanager
def progress(*, silent: bool) -> Iterator[Progress]:
    """A callback that shows progress on standard error for as long as the context lasts."""
    console = Console(stderr=True, markup=False, highlight=False)
    if silent:
        yield quiet
    elif console.is_terminal:
        columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bars(*columns, console=console) as bars:
            shown = _OnTerminal(bars)
            yield shown
            shown.finish()
    else:
        yield _InLines(console)


@dataclass(slots=True)
class _Steps:
    """Reports that go on counting where the last one stopped share a step: "memory: text" follows "memory: linear"."""

    group: str = ""
    total: int = -1
    done: int = 0

    def begins(self, what: str, done: int, total: int) -> bool:
        """Whether this report is the first of its step."""
        group = what.partition(":")[0]
        fresh = (group, total) != (self.group, self.total) or done < self.done
        self.group, self.total, self.done = group, total, done
        return fresh


class _OnTerminal:
    """A bar a step; the one before is full once the next begins, also where it stopped early."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._steps = _Steps()
        self._task: TaskID | None = None
        self._last = 1

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._steps.begins(what, done, total):
            self.finish()
            self._task = self._bars.add_task(what, total=total)
        # Some report before each part, some after it: one short of all is all.
        self._last = total if done + 1 >= total else done
        if self._task is not None:
            self._bars.update(self._task, description=what, completed=done)

    def finish(self) -> None:
        """Fills the last bar."""
        if self._task is not None:
            self._bars.update(self._task, total=self._last, completed=self._last)
            self._bars.stop_task(self._task)


class _InLines:
    """A line when a step begins."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = _Steps()
        self._start_s = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._steps.begins(what, done, total):
            elapsed_s = time.monotonic() - self._start_s
            self._console.print(f"[{elapsed_s:4.0f} s] {in_words(what, total)}", soft_wrap=True)
