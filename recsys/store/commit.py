"""Group commit: one thread writes, and what waits together is committed together, by one fsync.

Each piece of work runs in its own savepoint: a refused one takes nothing with it. An answer is given only after the
commit came back. After a failed commit nothing is known of the disk, so the connection is dropped and nothing more is
acknowledged until what was committed is settled (see `engine.settle`) and a commit works again; each write tries.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import SQLAlchemyError

from recsys.errors import Overloaded, RecsysError, StoreError
from recsys.store.engine import Engines, cause, settle
from recsys.store.once import WriteReceipt, forget_expired
from recsys.store.schema import state

MAX_WAITING = 256
"""Writes that may wait; more are refused. At 65,000 events/s a full queue of 100s drains in 0.4 s."""
MAX_GROUP_ROWS = 5_000
"""Rows committed together: more would make the first wait long for the last."""

# Two writes never share a watermark, however coarse the clock; float seconds resolve 0.24 us today.
_TICK_S = 1e-6


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a write stands: rows get `seq + 1`, `seq + 2`, ... and become visible at `time_s`."""

    seq: int
    time_s: float


Work = Callable[[Connection, Moment], WriteReceipt]


@dataclass(frozen=True, slots=True)
class _Job:
    work: Work
    num_rows: int
    done: Future[WriteReceipt] = field(default_factory=Future)


class Committer:
    """Owns the writing connection. `submit` may be called from any thread."""

    def __init__(self, engines: Engines, clock: Callable[[], float], *, max_waiting: int = MAX_WAITING) -> None:
        self._engines = engines
        self._clock = clock
        self._waiting: queue.Queue[_Job | None] = queue.Queue(max_waiting)
        self._gate = threading.Lock()
        self._closed = False
        self._sound = True
        self._last_commit_s = 0.01
        self._thread = threading.Thread(target=self._run, name="longrec-store-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Work, num_rows: int) -> WriteReceipt:
        """Runs `work` inside a transaction and returns once it is on disk.

        Raises what `work` raised, Overloaded when too many wait, StoreError when nothing was committed.
        """
        return self.enqueue(work, num_rows).result()

    def enqueue(self, work: Work, num_rows: int) -> Future[WriteReceipt]:
        """Does not wait: the future ends as `submit` does. Work is done in the order in which it was enqueued.

        Raises Overloaded when too many wait, StoreError when the store is closed.
        """
        job = _Job(work, num_rows)
        with self._gate:
            if self._closed:
                raise StoreError("the event store is closed")
            self._put(job)
        return job.done

    def close(self) -> None:
        """Commits what waits, then ends the thread."""
        with self._gate:
            first, self._closed = not self._closed, True
        if first:
            self._waiting.put(None)
        self._thread.join()

    def _put(self, job: _Job) -> None:
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            retry_after_s = max(0.05, 2 * self._last_commit_s)
            message = f"{self._waiting.maxsize} writes wait already"
            raise Overloaded(message, retry_after_s=retry_after_s) from None

    def _run(self) -> None:
        while group := self._next_group():
            self._commit(group)

    def _next_group(self) -> list[_Job]:
        """Waits for one job and takes what else is there; empty at the end."""
        group: list[_Job] = []
        job = self._waiting.get()
        while job is not None:
            group.append(job)
            if sum(each.num_rows for each in group) >= MAX_GROUP_ROWS or self._waiting.empty():
                return group
            job = self._waiting.get()
        if group:
            self._waiting.put(None)  # seen early: the next call shall meet it
        return group

    def _commit(self, group: Sequence[_Job]) -> None:
        start_s = time.monotonic()
        try:
            self._recover()
            with self._engines.writer.begin() as connection:
                outcomes = self._apply(connection, group)
        except Exception as error:  # noqa: BLE001 - the edge of a thread: whatever happened, the callers must hear of it
            self._sound = False
            for job in group:
                job.done.set_exception(_failed(error))
            return
        self._last_commit_s = time.monotonic() - start_s
        for job, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, WriteReceipt):
                job.done.set_result(outcome)
            else:
                job.done.set_exception(outcome)

    def _recover(self) -> None:
        if self._sound:
            return
        self._engines.writer.dispose()
        if not settle(self._engines.writer):
            raise StoreError("an earlier write failed and readers keep its log from being settled")
        self._sound = True

    def _apply(self, connection: Connection, group: Sequence[_Job]) -> list[WriteReceipt | RecsysError]:
        """One outcome a job; the state row is locked first and moved last."""
        row = connection.execute(select(state.c.seq, state.c.time_s).with_for_update()).one()
        now = Moment(row.seq, row.time_s)
        forget_expired(connection, max(self._clock(), now.time_s))
        outcomes: list[WriteReceipt | RecsysError] = []
        for job in group:
            here = Moment(now.seq, max(self._clock(), now.time_s + _TICK_S))
            outcome = _attempt(connection, job.work, here)
            if isinstance(outcome, WriteReceipt):  # a receipt given again is older than now
                now = Moment(max(now.seq, outcome.seq), max(now.time_s, outcome.watermark))
            outcomes.append(outcome)
        connection.execute(update(state).values(seq=now.seq, time_s=now.time_s))
        return outcomes


def _attempt(connection: Connection, work: Work, here: Moment) -> WriteReceipt | RecsysError:
    savepoint = connection.begin_nested()
    try:
        receipt = work(connection, here)
        savepoint.commit()
    except (RecsysError, SQLAlchemyError) as error:
        savepoint.rollback()  # raises where a full disk has ended the whole transaction: then the neighbours fail too
        return error if isinstance(error, RecsysError) else _failed(error)
    return receipt


def _failed(error: Exception) -> StoreError:
    failure = StoreError(f"the write was not acknowledged: {cause(error)}")
    failure.__cause__ = error
    return failure
