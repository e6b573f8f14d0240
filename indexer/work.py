"""The work folder: one rebuild at a time, finished shards that outlive a crash, and nothing else that does.

WORK/lock              held by the rebuild at work, as long as its process lives
WORK/run/              of this run alone: spilled rows, ids, texts; swept when a run begins and when it ends
WORK/done/KIND-DIGEST/ finished shards; swept when a snapshot was published
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import Conflict


@dataclass(frozen=True, slots=True)
class Work:
    """The folders of a rebuild that holds the lock."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def done(self) -> Path:
        return self.folder / "done"

    def forget(self) -> None:
        """Nothing is left to be resumed."""
        shutil.rmtree(self.done, ignore_errors=True)


@contextmanager
def working(folder: Path, *, wait: bool) -> Iterator[Work]:
    """Holds the work folder. Raises Conflict where another rebuild does and `wait` is false."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise Conflict(f"another rebuild is at work in {folder}: wait for it, or say --wait") from error
        work = Work(folder)
        _sweep(work)
        work.run.mkdir()
        work.done.mkdir(exist_ok=True)
        try:
            yield work
        finally:
            _sweep(work)
    finally:
        os.close(descriptor)


def _sweep(work: Work) -> None:
    """What a run left, and shards that were never finished."""
    shutil.rmtree(work.run, ignore_errors=True)
    if work.done.is_dir():
        for path in work.done.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)
        if not any(work.done.iterdir()):
            work.done.rmdir()
