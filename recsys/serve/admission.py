"""Each call through its lane: refused at once, or read, given its turn and its deadline.

One thread pool serves all lanes. A lane's places, not the pool, bound what runs; a waiting call blocks a thread, and
the pool has one for each of them, for each message and for each stream that may be waited for, so a refusal never waits
behind work.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from recsys.errors import DeadlineExceeded, Overloaded
from recsys.serve.caller import caller
from recsys.serve.deadline import Deadline, set_deadline
from recsys.serve.handlers import (
    AtOnce,
    Behaviour,
    Continuation,
    Handler,
    Wrapped,
    behaviour_of,
    in_pool,
    make_handler,
    service_of,
)
from recsys.serve.lane import Lane
from recsys.serve.message import CallTimer, Reader, messages, tolerant

RETRY_AFTER_S = 1.0


class Streams:
    """Open streams: at most `most`, half of them of one of several tenants. An idle one is cancelled."""

    def __init__(self, timer: CallTimer, *, most: int, idle_s: float, num_tenants: int = 1) -> None:
        self.timer = timer
        self.idle_s = idle_s
        self._most = most
        self._most_each = most if num_tenants == 1 else max(most // 2, 1)
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    @contextmanager
    def enter(self, tenant: str) -> Iterator[None]:
        """Counts one as open; raises Overloaded where too many are."""
        with self._lock:
            if self._open.total() >= self._most or self._open[tenant] >= self._most_each:
                raise Overloaded(f"{self._open.total()} streams are open", retry_after_s=RETRY_AFTER_S)
            self._open[tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[tenant] -= 1


@dataclass(frozen=True, slots=True)
class _Turns:
    """What a stream needs to take turns in its lane."""

    lane: Lane
    method: str
    tenant: str
    context: grpc.ServicerContext


_turns: ContextVar[_Turns] = ContextVar("turns")
_arrived: ContextVar[float] = ContextVar("arrived")


@contextmanager
def turn() -> Iterator[None]:
    """One batch of a stream: takes its turn in the lane, and has a deadline, as a call of its own would.

    A stream holds no place between its batches. Outside a call there is nothing to wait for.
    """
    own = _turns.get(None)
    if own is None:
        yield
        return
    with _entered(own.lane, own.method, own.tenant, own.context):
        yield


class AdmissionInterceptor(grpc.ServerInterceptor):
    """Sends each call of a known service through its lane; a stream is counted, and takes a `turn` for each batch.

    `at_once`: what a full lane refuses is refused by gRPC's own thread, in a fraction of what handing it to another
    one costs: under overload that is what is left for work. Not where credentials have to be verified first.
    """

    def __init__(self, lanes: Mapping[str, Lane], *, reader: Reader, streams: Streams, at_once: bool = False) -> None:
        self._lanes = lanes
        self._reader = reader
        self._streams = streams
        self._at_once = at_once
        self._wrapped = Wrapped(self._wrap)
        self._refused = Wrapped(self._refusing)

    def intercept_service(self, continuation: Continuation, call: grpc.HandlerCallDetails) -> Handler | None:
        handler = continuation(call)
        if handler is None or service_of(call.method) not in self._lanes:
            return handler
        lane = self._lanes[service_of(call.method)]
        if self._at_once and not handler.response_streaming and lane.is_full(call.method):
            return self._refused.of(call.method, handler)
        _arrived.set(time.monotonic())  # the call's context is here already, its thread is not
        return self._wrapped.of(call.method, handler)

    def _wrap(self, method: str, handler: Handler) -> Handler:
        lane, behaviour = self._lanes[service_of(method)], behaviour_of(handler)
        if handler.response_streaming:
            admitted = self._stream(method, lane, behaviour, handler.request_streaming)
        else:
            assert not handler.request_streaming, "a stream of requests is answered by a stream"
            admitted = self._single(method, lane, behaviour)
        return make_handler(handler, admitted, decode=tolerant(handler), request_streaming=True)

    def _refusing(self, method: str, handler: Handler) -> Handler:
        lane = self._lanes[service_of(method)]

        def refused(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            raise lane.overloaded(method)

        return in_pool(make_handler(handler, refused, request_streaming=True), AtOnce(1))

    def _single(self, method: str, lane: Lane, behaviour: Behaviour) -> Behaviour:
        def admitted(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            tenant = caller().tenant
            lane.refuse_if_full(method, tenant, waited_s=time.monotonic() - _arrived.get())
            request = self._reader.read(requests, context, tenant)
            with _entered(lane, method, tenant, context):
                return behaviour(request, context)

        return admitted

    def _stream(self, method: str, lane: Lane, behaviour: Behaviour, request_streaming: bool) -> Behaviour:
        streams = self._streams

        def admitted(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            tenant = caller().tenant
            with streams.enter(tenant):
                _turns.set(_Turns(lane, method, tenant, context))
                if request_streaming:
                    yield from behaviour(messages(requests, context, streams.timer, streams.idle_s), context)
                else:
                    yield from behaviour(self._reader.read(requests, context, tenant), context)

        return admitted


@contextmanager
def _entered(lane: Lane, method: str, tenant: str, context: grpc.ServicerContext) -> Iterator[None]:
    config = lane.config
    deadline = Deadline.of(context.time_remaining(), default_s=config.default_timeout_s, max_s=config.max_timeout_s)
    with lane.enter(deadline, method=method, tenant=tenant):
        if not context.is_active():
            raise DeadlineExceeded("the caller has gone")
        deadline.check("start")
        set_deadline(deadline)
        yield
