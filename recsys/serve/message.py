"""The request's message: it comes in time, and it parses.

gRPC gives a call a thread when its headers have come. A caller that never sends the message would keep the thread as
long as it likes, so every method reads its message here: with a limit in time, and with a limit on how many calls of
one connection, and of one tenant, are waited for at once.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from recsys.errors import DeadlineExceeded, InvalidInput, Overloaded
from recsys.serve.handlers import Continuation, Decode, Handler, Wrapped, behaviour_of, make_handler, service_of

RETRY_AFTER_S = 0.1


class CallTimer:
    """Cancels calls that keep the server waiting; one thread watches over all of them."""

    def __init__(self, tick_s: float = 0.1) -> None:
        self._tick_s = tick_s
        self._waiting: dict[object, tuple[float, grpc.ServicerContext]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="call-timer", daemon=True)
        self._thread.start()

    @contextmanager
    def within(self, context: grpc.ServicerContext, timeout_s: float) -> Iterator[None]:
        """Cancels the call unless the block ends within `timeout_s`, a tenth of a second more or less."""
        key = object()
        self._waiting[key] = (time.monotonic() + timeout_s, context)
        try:
            yield
        finally:
            del self._waiting[key]

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._tick_s):
            now = time.monotonic()
            for end, context in list(self._waiting.values()):
                if end < now:
                    context.cancel()


class Reader:
    """Reads first messages: at most `most` are waited for at once, half of them of one connection.

    One of several tenants may have half of them, too, over however many connections.
    """

    def __init__(self, timer: CallTimer, *, timeout_s: float, most: int, num_tenants: int = 1) -> None:
        self._timer = timer
        self._timeout_s = timeout_s
        self._most = most
        self._most_each = max(most // 2, 1)
        self._by_tenant = num_tenants > 1
        self._lock = threading.Lock()
        self._waiting: Counter[Hashable] = Counter()
        self._total = 0

    @property
    def waiting(self) -> int:
        """Calls whose message has not come."""
        return self._total

    def read(self, requests: Iterator[Any], context: grpc.ServicerContext, tenant: str = "") -> Any:
        """The one message of a call. Raises InvalidInput, Overloaded, or DeadlineExceeded where it came too late."""
        keys = [("connection", context.peer()), *([("tenant", tenant)] if self._by_tenant else [])]
        with self._among(keys), self._timer.within(context, self._timeout_s):
            request = next_message(requests)
        if request is None:
            raise InvalidInput.of("request", "", "a message is required")
        return request

    def each(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """The messages of a stream, none of which may take longer than a first one."""
        return messages(requests, context, self._timer, self._timeout_s)

    @contextmanager
    def _among(self, keys: list[tuple[str, str]]) -> Iterator[None]:
        with self._lock:
            if self._total >= self._most or any(self._waiting[key] >= self._most_each for key in keys):
                raise Overloaded("too many calls have not sent their message", retry_after_s=RETRY_AFTER_S)
            self._total += 1
            self._waiting.update(keys)
        try:
            yield
        finally:
            with self._lock:
                self._total -= 1
                for key in keys:
                    self._waiting[key] -= 1
                    if not self._waiting[key]:
                        del self._waiting[key]


class ReadInterceptor(grpc.ServerInterceptor):
    """Reads the messages of services that have no lane by a reader of their own."""

    def __init__(self, readers: Mapping[str, Reader]) -> None:
        self._readers = readers
        self._wrapped = Wrapped(lambda method, handler: _reading(handler, readers[service_of(method)]))

    def intercept_service(self, continuation: Continuation, call: grpc.HandlerCallDetails) -> Handler | None:
        handler = continuation(call)
        if handler is None or service_of(call.method) not in self._readers:
            return handler
        return self._wrapped.of(call.method, handler)


def _reading(handler: Handler, reader: Reader) -> Handler:
    """A handler that is called once `reader` has its message, or that has each message of a stream in time."""
    inner = behaviour_of(handler)

    @functools.wraps(inner)
    def read_each(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        return inner(reader.each(requests, context), context)

    @functools.wraps(inner)
    def read_first(requests: Iterator[Any], context: grpc.ServicerContext, *callback: Any) -> Any:
        return inner(reader.read(requests, context), context, *callback)

    behaviour = read_each if handler.request_streaming else read_first
    return make_handler(handler, behaviour, decode=tolerant(handler), request_streaming=True)


class _Undecodable:
    """Stands in for a message that does not parse: gRPC itself would answer INTERNAL."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes


def tolerant(handler: Handler) -> Decode:
    """The handler's decoder; what it cannot parse is told by `next_message`."""
    deserialize = handler.request_deserializer
    assert deserialize is not None, "every message of the API is protobuf"

    def decode(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _Undecodable(len(data))

    return decode


def next_message(requests: Iterator[Any]) -> Any:
    """The next message; None after the last. Raises InvalidInput for one that does not parse.

    Raises DeadlineExceeded where the caller has gone, or the server sent it away.
    """
    try:
        request = next(requests, None)
    except grpc.RpcError as error:
        raise DeadlineExceeded("the call was cancelled before its message came") from error
    if isinstance(request, _Undecodable):
        raise InvalidInput.of("request", f"{request.size_bytes} bytes", "is not this method's message")
    return request


def messages(requests: Iterator[Any], context: grpc.ServicerContext, timer: CallTimer, idle_s: float) -> Iterator[Any]:
    """The messages of a stream, each within `idle_s` of being asked for."""
    while True:
        with timer.within(context, idle_s):
            request = next_message(requests)
        if request is None:
            return
        yield request
