"""Files of secrets: readable by their owner alone, and read anew when they change."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from recsys.errors import InvalidInput

T = TypeVar("T")

_log = structlog.get_logger("recsys.serve")

CHECK_S = 1.0
"""A change is seen within this time."""
_MAX_BYTES = 16 * 1024 * 1024


def read_private(path: Path, field: str) -> bytes:
    """The content of a file that only its owner reads: 0600, or 0640 where root owns it and a group is let in.

    Raises InvalidInput, on `field`, for any other, and for one that another user owns.
    """
    try:
        with path.open("rb") as file:
            _check_private(os.fstat(file.fileno()), path, field)
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise InvalidInput.of(field, str(path), f"cannot be read: {error.strerror}") from error


def _check_private(found: os.stat_result, path: Path, field: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in (0, os.geteuid()):
        raise InvalidInput.of(field, str(path), f"belongs to user {found.st_uid}: whoever owns it could change it")
    if mode & (0o037 if found.st_uid == 0 else 0o077):
        raise InvalidInput.of(field, str(path), f"has mode {mode:04o}: others could read or change it; chmod 600 it")


class Watched(Generic[T]):
    """What `parse` makes of a file that may change. A file that cannot be read, or is wrong, changes nothing."""

    def __init__(
        self,
        paths: tuple[Path, ...],
        parse: Callable[[], T],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises what `parse` raises: there is nothing to go on with."""
        self._paths = paths
        self._parse = parse
        self._clock = clock
        self._lock = threading.Lock()
        self._checked_s = clock()
        self._seen = self._look()
        self._value = parse()

    @property
    def value(self) -> T:
        """The newest sound version, at most `CHECK_S` old."""
        if self._clock() - self._checked_s >= CHECK_S and self._lock.acquire(blocking=False):
            try:
                self._renew()
                self._checked_s = self._clock()
            finally:
                self._lock.release()
        return self._value

    def _renew(self) -> None:
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._value = self._parse()
            _log.info("read anew", files=[str(path) for path in self._paths])
        except InvalidInput as error:
            _log.error("kept the earlier version", files=[str(path) for path in self._paths], reason=str(error))

    def _look(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(map(_state, self._paths))


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
