"""OpenTelemetry by option: a span a call, child of the caller's where it sends a `traceparent`, with its stages below.

Where spans go is said by the standard variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER,
...). Spans carry methods, codes and stages: no id of anybody, no text.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recsys.errors import MissingExtra
from recsys.serve.ops.watching import Begin, Trace

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_NAME = "longrec"
_CARRIED = frozenset({"traceparent", "tracestate"})


def start_tracing() -> Begin:
    """Spans to the OTLP endpoint of the environment. Raises MissingExtra without the extra `otel`."""
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtra("opentelemetry", "otel") from error
    service = os.environ.get("OTEL_SERVICE_NAME", _NAME)
    provider = TracerProvider(resource=Resource.create({"service.name": service}))  # a provider of the server's own
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return tracing(provider.get_tracer(_NAME))


def tracing(tracer: Tracer) -> Begin:
    """What begins a span for each call."""
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()

    def begin(method: str, metadata: Sequence[tuple[str, Any]]) -> Trace:
        carrier = {key: value for key, value in metadata if key in _CARRIED and isinstance(value, str)}
        parent = propagator.extract(carrier)
        attributes = {"rpc.system": "grpc", "rpc.method": method}
        return _CallSpan(tracer, tracer.start_span(method, parent, SpanKind.SERVER, attributes))

    return begin


class _CallSpan:
    """Stages are reported when they end, so their spans are made then, with the times they had."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    def stage(self, name: str, seconds: float) -> None:
        from opentelemetry.trace import set_span_in_context

        end_ns = time.time_ns()
        parent = set_span_in_context(self._span)
        span = self._tracer.start_span(name, parent, start_time=end_ns - int(seconds * 1e9))
        span.end(end_ns)

    def end(self, code: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("rpc.grpc.status_code", code)
        if code != "OK":
            self._span.set_status(Status(StatusCode.ERROR, code))
        self._span.end()
