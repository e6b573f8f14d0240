"""Bounded work: a lane admits a few calls, lets a few wait, and refuses the rest at once.

One thread pool serves all lanes. A lane's slots, not the pool, bound what runs; a waiting call blocks a thread, and the
pool has one for each of them, so a refusal never waits behind work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from recsys.errors import DeadlineExceeded, Overloaded
from recsys.serve.config import LaneConfig
from recsys.serve.deadline import Deadline, set_deadline
from recsys.serve.handlers import Continuation, Handler, service_of, wrap_unary

RETRY_AFTER_S = 0.1


class Lane:
    """Calls of one kind."""

    def __init__(self, config: LaneConfig) -> None:
        self.config = config
        self._slots = threading.Semaphore(config.workers)
        self._lock = threading.Lock()
        self._inside = 0

    @property
    def inside(self) -> int:
        """Calls that run or wait."""
        return self._inside

    @contextmanager
    def enter(self, deadline: Deadline) -> Iterator[None]:
        """Holds a slot; raises Overloaded when the queue is full, DeadlineExceeded when none came free in time."""
        self._line_up()
        try:
            if not self._slots.acquire(timeout=deadline.left_s):
                raise DeadlineExceeded("the call waited for its turn until its time was over")
            try:
                yield
            finally:
                self._slots.release()
        finally:
            with self._lock:
                self._inside -= 1

    def _line_up(self) -> None:
        with self._lock:
            if self._inside >= self.config.workers + self.config.queue:
                raise Overloaded(f"{self._inside} calls are under way or waiting", retry_after_s=RETRY_AFTER_S)
            self._inside += 1


class AdmissionInterceptor(grpc.ServerInterceptor):
    """Sends each call of a known service through its lane and gives it its deadline."""

    def __init__(self, lanes: Mapping[str, Lane]) -> None:
        self._lanes = lanes

    def intercept_service(self, continuation: Continuation, call: grpc.HandlerCallDetails) -> Handler | None:
        handler, lane = continuation(call), self._lanes.get(service_of(call.method))
        if handler is None or lane is None:
            return handler

        def admitted(request: Any, context: grpc.ServicerContext, behaviour: Any) -> Any:
            config = lane.config
            deadline = Deadline.of(
                context.time_remaining(), default_s=config.default_timeout_s, max_s=config.max_timeout_s
            )
            with lane.enter(deadline):
                if not context.is_active():
                    raise DeadlineExceeded("the caller has gone")
                deadline.check("start")
                set_deadline(deadline)
                return behaviour(request, context)

        return wrap_unary(handler, admitted)
