"""What was wrong with a data set: counted, with the first examples, as a value and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from recsys.errors import InvalidData, Violation, shorten
from recsys.types import MAX_ID_BYTES, MAX_TEXT_BYTES

MAX_EXAMPLES = 5

# kind: (what is wrong, what lenient loading does about it)
KINDS = {
    "missing": ("missing, empty, or not an id", "row dropped"),
    "nul": ("contains NUL", "row dropped"),
    "too_long": (f"longer than {MAX_ID_BYTES} bytes", "row dropped"),
    "no_time": ("missing, or not a time", "row dropped"),
    "future": ("more than a day in the future", "row dropped"),
    "not_finite": ("not a finite number", "row dropped"),
    "duplicate": ("comes a second time", "row dropped, the first kept"),
    "unknown": ("not among the items", "row dropped"),
    "text_too_long": (f"text longer than {MAX_TEXT_BYTES} bytes", "text cut"),
    "not_attributes": ("not a JSON object or struct", "attributes left out"),
}


@dataclass(frozen=True, slots=True)
class Example:
    """One bad row; rows count from 1, a CSV header not counted. `value` is a shortened repr."""

    row: int
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """All rows of a table with the same thing wrong in the same field. `kind` is a key of `KINDS`."""

    table: str
    field: str
    kind: str
    count: int
    examples: tuple[Example, ...]

    @property
    def reason(self) -> str:
        return KINDS[self.kind][0]

    @property
    def remedy(self) -> str:
        return KINDS[self.kind][1]

    @property
    def shown(self) -> str:
        return ", ".join(f"row {example.row}: {example.value}" for example in self.examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """What was read, what was kept, and why the rest was not. `ignored` are columns nobody reads, `table.column`."""

    source: str
    events_read: int
    events_kept: int
    items_read: int
    items_kept: int
    problems: tuple[Problem, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def violations(self) -> tuple[Violation, ...]:
        """One a problem, by its first example."""
        return tuple(
            Violation(
                f"{p.table}[{p.examples[0].row}].{p.field}", p.examples[0].value, f"{p.reason} ({p.count:,} rows)"
            )
            for p in self.problems
        )

    def table(self) -> str:
        """The problems as aligned text, one line each; "" where there are none."""
        head = ("table", "field", "rows", "problem", "lenient loading", "first rows")
        rows = [head] + [(p.table, p.field, f"{p.count:,}", p.reason, p.remedy, p.shown) for p in self.problems]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines) if self.problems else ""

    def __str__(self) -> str:
        counts = (
            f"{self.source}: {self.events_kept:,} of {self.events_read:,} events and "
            f"{self.items_kept:,} of {self.items_read:,} items are good"
        )
        ignored = f"columns not used: {', '.join(self.ignored)}" if self.ignored else ""
        return "\n".join(part for part in (counts, self.table(), ignored) if part)

    def raise_problems(self) -> None:
        """Raises InvalidData whose message is this report, if there are problems."""
        if self.problems:
            raise InvalidData(self.violations, str(self))


@dataclass(slots=True)
class Findings:
    """Gathers problems of one table while it is read batch by batch; keeps counts and the first examples only."""

    table: str
    _found: dict[tuple[str, str], tuple[int, tuple[Example, ...]]] = field(default_factory=dict)

    def add(self, name: str, kind: str, count: int, examples: Sequence[tuple[int, object]]) -> None:
        """`examples` are (row counted from 0, raw value); the first `MAX_EXAMPLES` over all calls are kept."""
        before, kept = self._found.get((name, kind), (0, ()))
        fresh = tuple(Example(row + 1, shorten(value)) for row, value in examples[: MAX_EXAMPLES - len(kept)])
        self._found[name, kind] = (before + count, kept + fresh)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(table=self.table, field=name, kind=kind, count=count, examples=examples)
            for (name, kind), (count, examples) in sorted(self._found.items())
        )
