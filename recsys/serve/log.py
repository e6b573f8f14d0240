"""JSON lines on standard error. Callers log names, ids of snapshots and counts: never texts, tokens or user ids.

A line is ASCII: line ends, control characters and marks of direction in a value stand there escaped, so nobody writes a
line of their own, or one that reads otherwise than it is. What libraries log comes in the same form; of an exception
only its type and its place, since its message may hold what was asked.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType

import structlog

_SHOWN_CHARS = 500


class _StandardError:
    """Standard error as it is when a line is written: loggers outlive the streams they were made with."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _Libraries(logging.Handler):
    """What libraries log, in our form."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger("recsys.serve")
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            log.error("failed", logger=record.name, error=type(error).__name__, where=frames(error.__traceback__))
        else:
            log.log(record.levelno, "library", logger=record.name, message=record.getMessage()[:_SHOWN_CHARS])


def configure_logging(level: int = logging.INFO) -> None:
    """For a serving process; a library user's own structlog configuration is left alone unless this is called."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=_StandardError()),  # type: ignore[arg-type]  # all it calls
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Libraries()], level=max(level, logging.WARNING), force=True)
    threading.excepthook = _thread_failed


def frames(trace: TracebackType | None) -> list[str]:
    """The stack without the message: messages of foreign errors may hold texts or ids of users."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    structlog.get_logger("recsys.serve").error(
        "thread failed", error=failure.exc_type.__name__, where=frames(failure.exc_traceback)
    )
