"""Work that is begun in order, goes on side by side, and is answered in order; at most so much of it at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from queue import SimpleQueue
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")


class Promise(Protocol[T_co]):
    """Something that has been begun."""

    def result(self, timeout: float | None = None) -> T_co:
        """Waits for it; raises what it raised."""
        ...


def answered(requests: Iterator[A], begin: Callable[[A], Promise[B]], *, most: int) -> Iterator[B]:
    """The result of `begin(request)` for each request, in order.

    The next request is read at once while fewer than `most` wait for their answer or for it to be taken, and not before
    then, so whoever sends faster than the disk takes, or does not read answers, is slowed down. The first failure, of
    `requests`, of `begin` or of a promise, is raised in its place, after all answers before it; nothing more is begun.

    Requests are read in a thread of their own that ends with them; `requests` must end when the call does.
    """
    begun: SimpleQueue[Promise[B] | BaseException | None] = SimpleQueue()
    room = threading.Semaphore(most)
    over = threading.Event()

    def read() -> None:
        try:
            while room.acquire() and not over.is_set():
                request = next(requests, None)
                if request is None or over.is_set():
                    break
                begun.put(begin(request))
            begun.put(None)
        except BaseException as error:  # noqa: BLE001 - the edge of a thread: raised again where answers are taken
            begun.put(error)

    # What the call carries, such as its deadline and its caller, is seen by the thread as well.
    threading.Thread(target=copy_context().run, args=(read,), name="stream-reader", daemon=True).start()
    try:
        while (found := begun.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found.result()
            room.release()
    finally:
        over.set()
        room.release()
