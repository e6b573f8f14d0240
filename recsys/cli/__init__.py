"""The command line: `app` is its grammar; each command's work stands in a file of its own, imported when it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 something is not installed, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from recsys.errors import InvalidInput, MissingExtra, NotFound, RecsysError

FAILED, MISUSED, NOT_INSTALLED = 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command (None: the process's arguments) and exits with its code; a mistake gets a message, no stack."""

    def run() -> None:
        from recsys.cli.app import app  # the client's install has no typer

        app(arguments, prog_name="recsys")

    ended(run)


def ended(run: Callable[[], object]) -> NoReturn:
    """Exits as `run` ends: with 0, or with what it raised as lines on standard error and one of the codes above."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a title may hold what the terminal cannot show
            stream.reconfigure(errors="replace")
    try:
        run()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("recsys", "indexer"):
            raise
        _say(MissingExtra(error.name or "a package", "engine,serve"))
        sys.exit(NOT_INSTALLED)
    except RecsysError as error:
        _say(error)
        sys.exit(_code(error))
    except OSError as error:
        _say(error)
        sys.exit(FAILED)
    sys.exit(0)


def _say(error: Exception) -> None:
    """One line a mistake, on standard error."""
    if type(error) is InvalidInput:
        lines = [str(violation) for violation in error.violations]
    else:
        lines = [str(error) or type(error).__name__]
    sys.stderr.write("".join(f"error: {line}\n" for line in lines))


def _code(error: RecsysError) -> int:
    if isinstance(error, MissingExtra):
        return NOT_INSTALLED
    return MISUSED if isinstance(error, InvalidInput | NotFound) else FAILED
