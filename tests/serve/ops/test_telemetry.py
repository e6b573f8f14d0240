"""Spans of a call and its stages, of a caller's trace."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import grpc
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from recsys.serve import server as server_module
from recsys.serve.ops.telemetry import tracing
from recsys.v1 import ranking_service_pb2 as pb
from recsys.watch import stage
from tests.serve.conftest import World
from tests.serve.fake import FakeEngine


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Servers with tracing export into it."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(server_module, "start_tracing", lambda: tracing(provider.get_tracer("test")))
    return exporter


def rank(world: World, *candidates: str, metadata: Any = ()) -> None:
    call = world.channel.unary_unary(
        "/recsys.v1.RankingService/RankItems",
        request_serializer=pb.RankItemsRequest.SerializeToString,
        response_deserializer=pb.RankItemsResponse.FromString,
    )
    rows = [pb.Candidate(item_id=each) for each in candidates]
    user = pb.UserContext(user_id="canary")
    call(pb.RankItemsRequest(user=user, candidates=rows), timeout=20, metadata=metadata)


def test_a_call_is_a_child_of_its_callers_span(make_world: Callable[..., World], spans: InMemorySpanExporter) -> None:
    def work() -> None:
        with stage("match"):
            pass

    world = make_world(FakeEngine(before=work), tracing=True)
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    rank(world, "item-1", metadata=[("traceparent", f"00-{trace_id}-{parent_id}-01")])
    world.server.stop()
    by_name = {span.name: span for span in spans.get_finished_spans()}
    call, match = by_name["RankItems"], by_name["match"]
    assert call.kind is SpanKind.SERVER
    assert f"{call.context.trace_id:032x}" == trace_id
    assert f"{call.parent.span_id:016x}" == parent_id
    assert match.parent.span_id == call.context.span_id
    assert call.start_time <= match.end_time <= call.end_time
    assert call.attributes["rpc.grpc.status_code"] == "OK"
    assert "canary" not in " ".join(span.to_json() for span in spans.get_finished_spans())


def test_a_refused_call_says_so(make_world: Callable[..., World], spans: InMemorySpanExporter) -> None:
    world = make_world(tracing=True)
    with pytest.raises(grpc.RpcError):
        rank(world)
    world.server.stop()
    (span,) = [span for span in spans.get_finished_spans() if span.name == "RankItems"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["rpc.grpc.status_code"] == "INVALID_ARGUMENT"


def test_without_the_option_nothing_of_it_is_imported() -> None:
    code = "import sys, recsys.serve; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
