"""Runs the notebooks top to bottom, each in a kernel of this Python, and says how long each took.

    python scripts/notebooks.py [NAME ...] [--keep FOLDER]

The sources in notebooks/ hold no outputs. What a run shows is thrown away, unless a folder is named to keep it in.
Exits with 1 and the cell's error where a notebook fails; the others are run all the same.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "notebooks"
CELL_TIMEOUT_S = 600

# A notebook is one of several jobs on a machine, needs no network, and runs in this Python, whatever a user installed.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "JUPYTER_PREFER_ENV_PATH": "1"}


def find(names: list[str]) -> list[Path]:
    """The sources whose names begin with one of `names`; all where none is given."""
    sources = sorted(SOURCES.glob("*.py"))
    chosen = [path for path in sources if not names or path.name.startswith(tuple(names))]
    if unknown := [name for name in names if not any(path.name.startswith(name) for path in sources)]:
        known = ", ".join(path.stem for path in sources)
        sys.exit(f"there is no notebook {', '.join(unknown)}; there are {known}")
    return chosen


def execute(source: Path, keep: Path | None) -> str | None:
    """Run one notebook in the repository's root, where its imports are; what went wrong, None where nothing did."""
    notebook = jupytext.read(source, fmt="py:percent")
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    try:
        client.execute()
    except (CellControlSignal, DeadKernelError) as error:
        return str(error)
    finally:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, keep / f"{source.stem}.ipynb")
    return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="./run notebooks", description="Run the notebooks top to bottom.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="how their names begin (01); all by default")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the notebooks with what they show here")
    options = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    failed = []
    for source in find(options.names):
        started = time.monotonic()
        error = execute(source, options.keep)
        print(f"{source.stem:28s} {time.monotonic() - started:6.1f} s  {'failed' if error else 'ran'}", flush=True)
        if error is not None:
            failed.append(source.stem)
            print(error, file=sys.stderr, flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
