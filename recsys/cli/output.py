"""What a command says: tables for people on standard output, or one JSON value for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 120


def _screen() -> Console:
    # Titles are data: no markup is read from them.
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """`json_to`: a file to write the result to, "-" for standard output and nothing else there, None for none."""

    json_to: str | None = None
    screen: Console = field(default_factory=_screen)

    @property
    def only_json(self) -> bool:
        return self.json_to == "-"

    def show(self, *parts: RenderableType) -> None:
        """For people; silent where standard output belongs to the JSON."""
        if not self.only_json:
            for part in parts:
                self.screen.print(part)

    def lines(self, *lines: str) -> None:
        """Text that is not wrapped: someone may copy it."""
        if not self.only_json:
            for line in lines:
                self.screen.print(line, soft_wrap=True)

    def heading(self, text: str) -> None:
        if not self.only_json:
            self.screen.print(f"\n{text}", style="bold")

    def result(self, value: Any) -> None:
        """For programs; numbers that JSON lacks (NaN, infinities) become null."""
        text = json.dumps(_plain(value), indent=2, allow_nan=False)
        if self.only_json:
            self.screen.file.write(f"{text}\n")
        elif self.json_to is not None:
            Path(self.json_to).write_text(f"{text}\n", "utf-8")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = ()) -> Table:
    """A plain table; the columns at `numbers` stand to the right and are never cut."""
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        out.add_column(name, justify="right" if place in numbers else "left", no_wrap=place in numbers)
    for row in rows:
        out.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row))
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
