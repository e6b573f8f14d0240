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
            name = what if total < 2 else f"{what} ({total:,})"
            self._console.print(f"[{elapsed_s:4.0f} s] {name}", soft_wrap=True)
