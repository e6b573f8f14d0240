"""One interceptor turns what a handler raises into a status with details; no other file here knows of codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import structlog
from google.rpc import status_pb2
from grpc_status import rpc_status

from recsys.errors import RecsysError
from recsys.serve.handlers import Continuation, Handler, Wrapped, wrap_steps
from recsys.serve.log import frames
from recsys.wire.status import to_status

_log = structlog.get_logger("recsys.serve")


class ErrorInterceptor(grpc.ServerInterceptor):
    """Stands outside all others, so that their errors, too, reach the caller in full."""

    def __init__(self) -> None:
        self._wrapped = Wrapped(_guarded)

    def intercept_service(self, continuation: Continuation, call: grpc.HandlerCallDetails) -> Handler | None:
        handler = continuation(call)
        return None if handler is None else self._wrapped.of(call.method, handler)


def _guarded(method: str, handler: Handler) -> Handler:
    def guard(context: grpc.ServicerContext, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except grpc.RpcError:
            raise  # gRPC's own: the call is over
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the caller gets a status
            status = _report(method, error)
        return context.abort_with_status(rpc_status.to_status(status))

    return wrap_steps(handler, guard)


def _report(method: str, error: Exception) -> status_pb2.Status:
    if isinstance(error, RecsysError):
        _log.debug("refused", method=method, error=type(error).__name__)
    else:
        _log.error("failed", method=method, error=type(error).__name__, where=frames(error.__traceback__))
    return to_status(error)
