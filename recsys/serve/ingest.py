"""IngestService: what users did, and what there is."""

# ruff: noqa: N802 - gRPC calls methods by the names that the .proto files give them

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from recsys.errors import Overloaded
from recsys.serve import pages
from recsys.serve.admission import turn
from recsys.serve.backend import Backend
from recsys.serve.deadline import check_deadline
from recsys.serve.engine import Pending, Receipt
from recsys.serve.pipeline import answered
from recsys.serve.validate import validate
from recsys.v1 import ingest_service_pb2 as ingest_pb
from recsys.v1.ingest_service_pb2_grpc import IngestServiceServicer
from recsys.watch import stage
from recsys.wire import values

MAX_UNACKNOWLEDGED = 16
"""Batches of a stream that are read before the first of them is acknowledged."""
PATIENCE_S = 5.0
"""How long a batch of a stream waits for room where there is none; its sender is slowed down meanwhile."""


class IngestServicer(IngestServiceServicer):
    """WriteEvents, StreamEvents, WriteItems."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def WriteEvents(
        self, request: ingest_pb.WriteEventsRequest, context: grpc.ServicerContext
    ) -> ingest_pb.WriteEventsResponse:
        pending = self._begin(request)
        with stage("commit"):
            receipt = pending.result()
        self._backend.live.wrote(receipt)
        return ingest_pb.WriteEventsResponse(
            accepted_count=receipt.accepted,
            duplicate_count=receipt.duplicates,
            memory_watermark=values.to_time(receipt.watermark),
        )

    def StreamEvents(
        self, requests: Iterator[ingest_pb.StreamEventsRequest], context: grpc.ServicerContext
    ) -> Iterator[ingest_pb.StreamEventsResponse]:
        for batch in answered(requests, self._begin_batch, most=MAX_UNACKNOWLEDGED):
            self._backend.live.wrote(batch.receipt)
            yield ingest_pb.StreamEventsResponse(
                accepted_count=batch.receipt.accepted,
                duplicate_count=batch.receipt.duplicates,
                memory_watermark=values.to_time(batch.receipt.watermark),
                request_id=batch.request_id,
            )

    def WriteItems(
        self, request: ingest_pb.WriteItemsRequest, context: grpc.ServicerContext
    ) -> ingest_pb.WriteItemsResponse:
        validate(request)
        items = [values.from_item(item) for item in request.items]
        check_deadline("write")
        receipt = self._backend.live.write_items(items, request.request_id, pages.body_digest(request))
        return ingest_pb.WriteItemsResponse(
            accepted_count=receipt.accepted,
            duplicate_count=receipt.duplicates,
            memory_watermark=values.to_time(receipt.watermark),
        )

    def _begin(self, request: ingest_pb.WriteEventsRequest | ingest_pb.StreamEventsRequest) -> Pending:
        validate(request)
        received = time.time()
        events = [values.from_event(event, received=received) for event in request.events]
        check_deadline("write")
        # As of one method: what a stream did not see acknowledged may be sent again by the other.
        digest = pages.body_digest(request, ingest_pb.WriteEventsRequest) if request.request_id else b""
        return self._backend.store.enqueue_events(events, request_id=request.request_id, digest=digest)

    def _begin_batch(self, request: ingest_pb.StreamEventsRequest) -> _Batch:
        """In a turn of its own, which ends before the disk has it: streams hold no place while they wait."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with turn():
                    return _Batch(request.request_id, self._begin(request))
            except Overloaded as error:
                delay_s = error.retry_after_s
                if time.monotonic() + delay_s > end:
                    raise
            time.sleep(delay_s)


@dataclass(frozen=True, slots=True)
class _Acknowledged:
    request_id: str
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class _Batch:
    request_id: str
    pending: Pending

    def result(self, timeout: float | None = None) -> _Acknowledged:
        return _Acknowledged(self.request_id, self.pending.result(timeout))
