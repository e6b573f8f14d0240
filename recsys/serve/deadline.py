"""How much time a call has left. Stages ask before they start; the call's context carries it."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass

from recsys.errors import DeadlineExceeded

# A stage that starts with less than this cannot bring its answer home.
MIN_LEFT_S = 0.001


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of the monotonic clock, in seconds."""

    at: float

    @classmethod
    def of(cls, client_left_s: float | None, *, default_s: float, max_s: float) -> Deadline:
        """The client's remaining time, the default where it set none, and never more than the server's maximum."""
        return cls(time.monotonic() + min(default_s if client_left_s is None else client_left_s, max_s))

    @property
    def left_s(self) -> float:
        return max(self.at - time.monotonic(), 0.0)

    def check(self, stage: str) -> None:
        """Raises DeadlineExceeded where too little is left to start `stage`."""
        if self.left_s < MIN_LEFT_S:
            raise DeadlineExceeded(f"no time left to {stage}")


_current: ContextVar[Deadline] = ContextVar("deadline")


def set_deadline(deadline: Deadline) -> None:
    """For the rest of this call: gRPC runs each call in a context of its own."""
    _current.set(deadline)


def check_deadline(stage: str) -> None:
    """Raises DeadlineExceeded where the present call has too little time left; outside a call there is no limit."""
    deadline = _current.get(None)
    if deadline is not None:
        deadline.check(stage)
