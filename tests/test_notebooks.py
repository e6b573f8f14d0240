"""The notebooks' sources are sound; `./run notebooks` executes them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
CELL = re.compile(r"^# %%(?P<markdown> \[markdown\])?$", re.MULTILINE)


def cells(source: str) -> list[tuple[bool, str]]:
    """(whether it is prose, its text) of each cell of a percent script."""
    marks = list(CELL.finditer(source))
    ends = [*(mark.start() for mark in marks[1:]), len(source)]
    return [
        (mark["markdown"] is not None, source[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)
    ]


def test_there_are_notebooks_in_order() -> None:
    assert [path.name[:3] for path in SOURCES] == [f"{number:02d}_" for number in range(1, len(SOURCES) + 1)]
    assert len(SOURCES) >= 4


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_parses_and_begins_with_its_title(path: Path) -> None:
    found = cells(path.read_text("utf-8"))
    is_prose, title = found[0]
    assert is_prose
    assert title.startswith(f"# # {int(path.name[:2])}. ")
    for is_prose, text in found:
        assert text, "an empty cell"
        if is_prose:
            assert all(line.startswith("#") for line in text.splitlines())
        else:
            ast.parse(text)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_readme_names_it(path: Path) -> None:
    assert path.name in (FOLDER / "README.md").read_text("utf-8")


def test_no_outputs_lie_beside_the_sources() -> None:
    assert {path.suffix for path in FOLDER.iterdir() if path.is_file()} <= {".py", ".md"}
