"""Two interceptors that watch calls: one outside all others sees every call end, one inside sees its work begin."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grpc
from google.rpc import error_details_pb2, status_pb2

from recsys.serve.handlers import Behaviour, Continuation, Handler, Wrapped, behaviour_of, make_handler, service_of
from recsys.serve.ops.metrics import Metrics
from recsys.v1 import types_pb2 as pb
from recsys.watch import watch, watcher

# Rows of a request: what its cost goes by.
_ROWS: Mapping[str, Callable[[Any], int]] = {
    "RankItems": lambda request: request.num_candidates,
    "ExplainRanking": lambda request: len(request.item_ids),
    "EncodeTexts": lambda request: len(request.texts),
    "WriteEvents": lambda request: len(request.events),
    "WriteItems": lambda request: len(request.items),
}
_STATUS_KEY = "grpc-status-details-bin"


class Trace(Protocol):
    """One call's span."""

    def stage(self, name: str, seconds: float) -> None: ...
    def end(self, code: str) -> None: ...


Begin = Callable[[str, Sequence[tuple[str, Any]]], Trace]
"""A trace of `method`, called with the caller's metadata."""


class CallWatch:
    """One call under way: what its stages and caches report goes into the metrics, and into its trace if it has one."""

    def __init__(self, metrics: Metrics, method: str, trace: Trace | None) -> None:
        self._metrics = metrics
        self._trace = trace
        self._began = time.perf_counter()
        self.method = method

    def begun(self) -> None:
        """The call's work starts now."""
        self._metrics.wait_seconds.labels(self.method).observe(time.perf_counter() - self._began)

    def stage(self, name: str, seconds: float) -> None:
        self._metrics.stage_seconds.labels(self.method, name).observe(seconds)
        if self._trace is not None:
            self._trace.stage(name, seconds)

    def cache(self, name: str, hits: int, misses: int) -> None:
        for result, count in (("hit", hits), ("miss", misses)):
            if count:
                self._metrics.caches.labels(name, result).inc(count)

    def end(self, context: grpc.ServicerContext, code: str) -> None:
        metrics = self._metrics
        metrics.calls.labels(self.method, code).inc()
        metrics.call_seconds.labels(self.method).observe(time.perf_counter() - self._began)
        if code != "OK":
            metrics.refusals.labels(self.method, _reason(context) or code).inc()
        if self._trace is not None:
            self._trace.end(code)


class OuterWatch(grpc.ServerInterceptor):
    """Stands outside all others: refusals, too, are seen."""

    def __init__(self, metrics: Metrics, services: Sequence[str], begin: Begin | None = None) -> None:
        self._metrics = metrics
        self._services = frozenset(services)
        self._begin = begin
        self._wrapped = Wrapped(self._wrap)

    def intercept_service(self, continuation: Continuation, call: grpc.HandlerCallDetails) -> Handler | None:
        handler = continuation(call)
        if handler is None or service_of(call.method) not in self._services:
            return handler
        return self._wrapped.of(call.method, handler)

    def _wrap(self, path: str, handler: Handler) -> Handler:
        method, inner = path.rpartition("/")[2], behaviour_of(handler)
        behaviour = self._stream(method, inner) if handler.response_streaming else self._once(method, inner)
        return make_handler(
            handler,
            behaviour,
            decode=self._timed(method, "decode", handler.request_deserializer),
            encode=self._timed(method, "encode", handler.response_serializer),
        )

    def _once(self, method: str, inner: Behaviour) -> Behaviour:
        @functools.wraps(inner)
        def watched(request: Any, context: grpc.ServicerContext) -> Any:
            call = self._open(method, context)
            code = "UNKNOWN"
            try:
                response = inner(request, context)
                code = "OK"
                return response
            finally:
                call.end(context, _code(context) or code)

        return watched

    def _stream(self, method: str, inner: Behaviour) -> Behaviour:
        @functools.wraps(inner)
        def watched(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            call = self._open(method, context)
            code = "CANCELLED"  # also where gRPC closes this generator because the caller has gone
            try:
                yield from inner(request, context)
                code = "OK"
            finally:
                call.end(context, _code(context) or code)

        return watched

    def _open(self, method: str, context: grpc.ServicerContext) -> CallWatch:
        trace = self._begin(method, context.invocation_metadata()) if self._begin else None
        call = CallWatch(self._metrics, method, trace)
        watch(call)
        return call

    def _timed(self, method: str, stage: str, codec: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
        assert codec is not None, "every message of the API is protobuf"
        seconds = self._metrics.stage_seconds.labels(method, stage)

        def timed(data: Any) -> Any:
            start = time.perf_counter()
            out = codec(data)
            seconds.observe(time.perf_counter() - start)
            return out

        return timed


class InnerWatch(grpc.ServerInterceptor):
    """Stands inside all others: sees requests that were let in, and good answers."""

    def __init__(self, metrics: Metrics, services: Sequence[str]) -> None:
        self._metrics = metrics
        self._services = frozenset(services)
        self._wrapped = Wrapped(self._wrap)

    def intercept_service(self, continuation: Continuation, call: grpc.HandlerCallDetails) -> Handler | None:
        handler = continuation(call)
        if handler is None or handler.unary_unary is None or service_of(call.method) not in self._services:
            return handler
        return self._wrapped.of(call.method, handler)

    def _wrap(self, path: str, handler: Handler) -> Handler:
        method, inner = path.rpartition("/")[2], behaviour_of(handler)
        rows = _ROWS.get(method)

        @functools.wraps(inner)
        def watched(request: Any, context: grpc.ServicerContext) -> Any:
            if isinstance(call := watcher(), CallWatch):
                call.begun()
            if rows:
                self._metrics.batch_rows.labels(method).observe(rows(request))
            response = inner(request, context)
            for number in getattr(response, "fallbacks", ()):
                self._metrics.fallbacks.labels(_fallback(number)).inc()
            return response

        return make_handler(handler, watched)


def _code(context: grpc.ServicerContext) -> str:
    """The name of the status that was set; empty where none was."""
    code = context.code()  # type: ignore[attr-defined]  # the stubs lack it
    return getattr(code, "name", "")


def _reason(context: grpc.ServicerContext) -> str:
    """The reason in the error's details, empty without details."""
    metadata = context.trailing_metadata() or ()
    for key, value in metadata:
        if key == _STATUS_KEY:
            info = error_details_pb2.ErrorInfo()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.reason)
    return ""


def _fallback(number: int) -> str:
    return pb.FallbackReason.Name(number).removeprefix("FALLBACK_REASON_").lower()
