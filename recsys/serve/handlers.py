"""Wrapping gRPC method handlers: what the interceptors share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Handler | None]"
Behaviour = Callable[[Any, grpc.ServicerContext], Any]
Wrapper = Callable[[Any, grpc.ServicerContext, Behaviour], Any]
Decode = Callable[[bytes], Any]


def service_of(method: str) -> str:
    """`recsys.v1.RankingService` of `/recsys.v1.RankingService/RankItems`."""
    return method.rpartition("/")[0].removeprefix("/")


def wrap_unary(handler: Handler, wrapper: Wrapper, decode: Callable[[Decode], Decode] = lambda same: same) -> Handler:
    """The unary handler with `wrapper(request, context, behaviour)` for a behaviour, `decode` around its decoder."""
    behaviour, deserialize = handler.unary_unary, handler.request_deserializer
    assert behaviour is not None, "every method of the API is unary"
    assert deserialize is not None, "every message of the API is protobuf"
    return grpc.unary_unary_rpc_method_handler(
        lambda request, context: wrapper(request, context, behaviour),
        request_deserializer=decode(deserialize),
        response_serializer=handler.response_serializer,
    )


class PoolInterceptor(grpc.ServerInterceptor):
    """Gives services threads of their own, so that they answer while every other thread is busy."""

    def __init__(self, pools: Mapping[str, ThreadPoolExecutor]) -> None:
        self._pools = pools

    def intercept_service(self, continuation: Continuation, call: grpc.HandlerCallDetails) -> Handler | None:
        handler, pool = continuation(call), self._pools.get(service_of(call.method))
        return handler if handler is None or pool is None else _in_pool(handler, pool)


def _in_pool(handler: Handler, pool: ThreadPoolExecutor) -> Handler:
    codec = (handler.request_deserializer, handler.response_serializer)
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(_marked(handler.unary_unary, pool), *codec)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(_marked(handler.unary_stream, pool), *codec)
    return grpc.stream_stream_rpc_method_handler(_marked(handler.stream_stream, pool), *codec)


def _marked(behaviour: Any, pool: ThreadPoolExecutor) -> Any:
    # gRPC looks for this attribute; a function of its own keeps two servers in one process apart.
    @functools.wraps(behaviour)
    def marked(*arguments: Any) -> Any:
        return behaviour(*arguments)

    marked.experimental_thread_pool = pool  # type: ignore[attr-defined]  # a function takes any attribute
    return marked
