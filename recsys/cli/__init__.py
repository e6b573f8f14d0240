"""The command line: `app` is its grammar; each command's work stands in a file of its own, imported when it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 something is not installed, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from recsys.errors import InvalidInput, MissingExtra, NotFound, RecsysError

FAILED, MISUSED, NOT_INSTALLED = 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command (None: the process's arguments) and exits with its code; a mistake gets a message, no stack."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a title may hold what the terminal cannot show
            stream.reconfigure(errors="replace")
    try:
        from recsys.cli.app import app  # the client's install has no typer

        app(arguments, prog_name="recsys")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "recsys":
            raise
        say(MissingExtra(error.name or "a package", "engine,serve"))
        sys.exit(NOT_INSTALLED)
    except RecsysError as error:
        say(error)
        sys.exit(exit_code(error))
    except OSError as error:
        say(error)
        sys.exit(FAILED)
    sys.exit(0)


def say(error: Exception) -> None:
    """One line a mistake, on standard error."""
    if type(error) is InvalidInput:
        lines = [str(violation) for violation in error.violations]
    else:
        lines = [str(error) or type(error).__name__]
    sys.stderr.write("".join(f"error: {line}\n" for line in lines))


def exit_code(error: RecsysError) -> int:
    """See above."""
    if isinstance(error, MissingExtra):
        return NOT_INSTALLED
    return MISUSED if isinstance(error, InvalidInput | NotFound) else FAILED
