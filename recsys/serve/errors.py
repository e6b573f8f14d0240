"""One interceptor turns what a handler raises into a status with details; no other file here knows of codes."""

from __future__ import annotations

import traceback
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_status import rpc_status

from recsys.errors import InvalidInput, RecsysError
from recsys.serve.handlers import Behaviour, Continuation, Decode, Handler, wrap_unary
from recsys.wire.status import to_status

_log = structlog.get_logger("recsys.serve")


class ErrorInterceptor(grpc.ServerInterceptor):
    """Stands outside all others, so that their errors, too, reach the caller in full."""

    def intercept_service(self, continuation: Continuation, call: grpc.HandlerCallDetails) -> Handler | None:
        handler = continuation(call)
        if handler is None or handler.unary_unary is None:
            return handler

        def guarded(request: Any, context: grpc.ServicerContext, behaviour: Behaviour) -> Any:
            try:
                if isinstance(request, _Undecodable):
                    raise InvalidInput.of("request", f"{request.size_bytes} bytes", "is not this method's message")
                return behaviour(request, context)
            except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the caller gets a status
                status = _report(call.method, error)
            return context.abort_with_status(rpc_status.to_status(status))

        return wrap_unary(handler, guarded, _tolerant)


def _report(method: str, error: Exception) -> status_pb2.Status:
    if isinstance(error, RecsysError):
        _log.debug("refused", method=method, error=type(error).__name__)
    else:
        _log.error("failed", method=method, error=type(error).__name__, where=_frames(error))
    return to_status(error)


class _Undecodable:
    """Stands in for a request that does not parse: gRPC itself would answer INTERNAL."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes


def _tolerant(deserialize: Decode) -> Decode:
    def decode(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _Undecodable(len(data))

    return decode


def _frames(error: BaseException) -> list[str]:
    # The stack without the message: messages of foreign errors may hold texts or ids of users.
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
