"""Bounded work: a lane runs a few calls, lets those wait that will soon have a turn, and refuses the rest at once.

How many may wait is not a number but a time: a call is refused where the work ahead of it, by what calls of each method
took of late, would make it wait longer than `max_wait_s`. One call a worker may wait in any case, which takes up small
bursts of slow calls. Turns are given in order of arrival, and to nobody whose time is over: under overload a lane
works on calls that can still be answered, and on nothing else.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from recsys.errors import DeadlineExceeded, Overloaded
from recsys.serve.config import LaneConfig
from recsys.serve.deadline import MIN_LEFT_S, Deadline

_FIRST_GUESS_S = 0.003
"""What a call of a method is thought to take before one was seen."""
_NEWEST = 0.1
"""Weight of the newest call in the recent time of its method."""
_LEAST_RETRY_S = 0.1


@dataclass(eq=False, slots=True)
class _Ticket:
    method: str
    tenant: str
    deadline: Deadline
    called: threading.Event = field(default_factory=threading.Event)
    in_time: bool = True


class Lane:
    """Calls of one kind. Every method may be called from any thread."""

    def __init__(self, config: LaneConfig, *, num_tenants: int = 1) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[_Ticket] = deque()
        self._waiting_of: Counter[str] = Counter()
        self._ahead_s = 0.0  # the work of all that wait
        self._took_s: dict[str, float] = {}
        # One of several tenants gets half of the queue: whoever floods the lane leaves the others room to wait.
        self._share = 0.5 if num_tenants > 1 else 1.0

    @property
    def inside(self) -> int:
        """Calls that run or wait."""
        return self._running + len(self._waiting)

    @property
    def waiting(self) -> int:
        """Calls that wait for a turn."""
        return len(self._waiting)

    def took_s(self, method: str) -> float:
        """How long a call of `method` ran of late, in seconds."""
        return self._took_s.get(method, _FIRST_GUESS_S)

    def refuse_if_full(self, method: str = "", tenant: str = "", *, waited_s: float = 0.0) -> None:
        """Raises Overloaded where `enter` would; for calls whose message is still to be waited for.

        `waited_s` is how long the call has been here without a thread: that is waiting, too.
        """
        with self._lock:
            if self.is_full(method, tenant, waited_s):
                raise self.overloaded(method)

    @contextmanager
    def enter(self, deadline: Deadline, *, method: str = "", tenant: str = "") -> Iterator[None]:
        """Holds a worker's place. Raises Overloaded at once, or DeadlineExceeded where no turn came in time."""
        self._wait_for_turn(_Ticket(method, tenant, deadline))
        start_s, done = time.monotonic(), False
        try:
            yield
            done = True
        finally:
            self._leave(method, time.monotonic() - start_s, done)

    def _wait_for_turn(self, ticket: _Ticket) -> None:
        with self._lock:
            if self._running < self.config.workers:
                self._running += 1
                return
            if self.is_full(ticket.method, ticket.tenant):
                raise self.overloaded(ticket.method)
            self._waiting.append(ticket)
            self._waiting_of[ticket.tenant] += 1
            self._ahead_s += self.took_s(ticket.method)
        if not ticket.called.wait(ticket.deadline.left_s):
            with self._lock:
                if not ticket.called.is_set():  # nor called between the end of the wait and this line
                    self._drop(ticket, in_time=False)
        if not ticket.in_time:
            raise DeadlineExceeded("the call waited for its turn until its time was over")

    def is_full(self, method: str = "", tenant: str = "", waited_s: float = 0.0) -> bool:
        """Whether `enter` would raise Overloaded, as far as can be told without the lock."""
        if self._running < self.config.workers:
            return False
        config = self.config
        waiting, of_tenant = len(self._waiting), self._waiting_of[tenant]
        wait_s = self._wait_s(method)
        late = waited_s > config.max_wait_s
        too_long = late or (waiting >= config.workers and waited_s + wait_s > config.max_wait_s)
        too_many = waiting >= config.queue or of_tenant >= max(self._share * config.queue, 1)
        greedy = self._share < 1 and of_tenant >= config.workers and wait_s > self._share * config.max_wait_s
        return too_long or too_many or greedy

    def overloaded(self, method: str = "") -> Overloaded:
        """What `enter` raises."""
        wait_s = self._wait_s(method)
        message = f"{self.inside} calls are under way or waiting: about {wait_s * 1000:.0f} ms for a turn"
        return Overloaded(message, retry_after_s=max(_LEAST_RETRY_S, wait_s))

    def _wait_s(self, method: str) -> float:
        return (self._ahead_s + self.took_s(method)) / self.config.workers

    def _leave(self, method: str, took_s: float, done: bool) -> None:
        with self._lock:
            before = self._took_s.get(method)
            if before is None:
                self._took_s[method] = took_s
            elif done or took_s > before:  # one that failed early says nothing of what its method takes
                self._took_s[method] = before + _NEWEST * (took_s - before)
            self._running -= 1
            while self._waiting and self._running < self.config.workers:
                ticket = self._waiting[0]
                # What has waited too long to be answered would only make the next ones late, too.
                in_time = ticket.deadline.left_s >= max(MIN_LEFT_S, 0.5 * self.took_s(ticket.method))
                self._running += in_time
                self._drop(ticket, in_time=in_time)

    def _drop(self, ticket: _Ticket, *, in_time: bool) -> None:
        """Out of the queue; whoever holds the ticket goes on with a place, or is told that its time is over."""
        self._waiting.remove(ticket)
        self._waiting_of[ticket.tenant] -= 1
        if not self._waiting_of[ticket.tenant]:
            del self._waiting_of[ticket.tenant]
        self._ahead_s = sum(self.took_s(each.method) for each in self._waiting)
        ticket.in_time = in_time
        ticket.called.set()
