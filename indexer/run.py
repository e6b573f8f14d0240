"""Who calls `build_shard`: this process, or several. A runner maps a pure function over tasks and keeps no state."""

from __future__ import annotations

import errno
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, Self, TypeVar

from recsys import _native
from recsys.errors import InvalidInput, RecsysError

Task = TypeVar("Task")
Result = TypeVar("Result")

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says where a file cannot grow."""

ATTEMPTS = 3
"""A task may fail for a machine's reasons (a worker killed for memory, a file system that hiccups)."""


class Runner(Protocol):
    """Maps a function that can be pickled over tasks that can; results come in any order.

    A task that fails is tried `ATTEMPTS` times, but for one whose input is wrong (`RecsysError`) or whose disk is full.
    """

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]: ...


class LocalRunner:
    """One worker is this process; more are processes of their own, begun anew (`spawn`), which share the cores.

    Workers live until `close`: they have read the text encoder, and need not do so again.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InvalidInput.of("workers", workers, "must be at least 1")
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets the workers go; a later `map` begins new ones."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        if min(self._workers, len(tasks)) > 1:
            return self._beside(function, tasks)
        return (_patiently(function, task) for task in tasks)

    def _beside(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """A worker that dies takes its pool along: what is left goes to a fresh one, `ATTEMPTS` times at most without
        anything done."""
        left, deaths = list(tasks), 0
        while left:
            pool, size = self._workers_ready(), len(left)
            running = {pool.submit(_patiently, function, each): each for each in left}
            try:
                for future, task in _as_they_end(running):
                    result = future.result()
                    left.remove(task)
                    yield result
            except BrokenProcessPool:
                self.close()
                deaths = deaths + 1 if len(left) == size else 0
                if deaths >= ATTEMPTS:
                    raise
            except BaseException:
                self.close()
                raise

    def _workers_ready(self) -> ProcessPoolExecutor:
        if self._pool is None:
            threads = max(1, _native.threads() // self._workers)
            # Never by fork: OpenMP has run here, and a forked child of it hangs.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._workers, mp_context=context, initializer=_native.limit_threads, initargs=(threads,)
            )
        return self._pool


def _as_they_end(running: dict[Future[Result], Task]) -> Iterator[tuple[Future[Result], Task]]:
    waiting = set(running)
    while waiting:
        ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in ended:
            yield future, running[future]


def _patiently(function: Callable[[Task], Result], task: Task) -> Result:
    for _ in range(ATTEMPTS - 1):
        try:
            return function(task)
        except RecsysError:
            raise
        except Exception as error:  # whatever it is, the last attempt raises it
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise
    return function(task)
