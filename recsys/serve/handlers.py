"""Wrapping gRPC method handlers, streaming or not: what the interceptors share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Handler | None]"
# (request or iterator of requests, context) -> response or iterator of responses. A behaviour that gRPC calls
# non-blocking, such as the watch of health, also takes a callback and returns at once.
Behaviour = Callable[..., Any]
Wrapper = Callable[[Any, grpc.ServicerContext, Behaviour], Any]
Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]

_MAKERS: Mapping[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def service_of(method: str) -> str:
    """`recsys.v1.RankingService` of `/recsys.v1.RankingService/RankItems`."""
    return method.rpartition("/")[0].removeprefix("/")


def behaviour_of(handler: Handler) -> Behaviour:
    """What a handler calls."""
    found = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    assert found is not None, "a handler has a behaviour"
    return found


def make_handler(
    like: Handler,
    behaviour: Behaviour,
    *,
    decode: Decode | None = None,
    encode: Encode | None = None,
    request_streaming: bool | None = None,
) -> Handler:
    """A handler with another behaviour, and with other codecs or another kind of request where they are given."""
    streaming = like.request_streaming if request_streaming is None else request_streaming
    return _MAKERS[streaming, like.response_streaming](
        behaviour,
        request_deserializer=decode or like.request_deserializer,
        response_serializer=encode or like.response_serializer,
    )


def wrap(handler: Handler, wrapper: Wrapper) -> Handler:
    """The handler with `wrapper(request or requests, context, behaviour)` for its behaviour.

    Where responses stream, the wrapper is over before the first of them is made.
    """
    inner = behaviour_of(handler)

    @functools.wraps(inner)
    def wrapped(request: Any, context: grpc.ServicerContext, *callback: Any) -> Any:
        return wrapper(request, context, functools.partial(_call, inner, callback))

    return make_handler(handler, wrapped)


def wrap_steps(handler: Handler, guard: Callable[[grpc.ServicerContext, Callable[[], Any]], Any]) -> Handler:
    """The handler with `guard(context, step)` around each step of it: the call, and each response of a stream."""
    inner = behaviour_of(handler)

    @functools.wraps(inner)
    def once(request: Any, context: grpc.ServicerContext, *callback: Any) -> Any:
        return guard(context, lambda: inner(request, context, *callback))

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        responses = iter(guard(context, lambda: inner(request, context)))
        while (response := guard(context, lambda: next(responses, None))) is not None:
            yield response

    blocking = not getattr(inner, "experimental_non_blocking", False)
    return make_handler(handler, stream if handler.response_streaming and blocking else once)


class Wrapped:
    """Handlers wrapped once each, not once a call."""

    def __init__(self, make: Callable[[str, Handler], Handler]) -> None:
        self._make = make
        self._made: dict[tuple[str, Handler], Handler] = {}

    def of(self, method: str, handler: Handler) -> Handler:
        made = self._made.get((method, handler))
        if made is None:
            made = self._made[method, handler] = self._make(method, handler)
        return made


class AtOnce(ThreadPoolExecutor):
    """No pool: what is submitted is done there and then, by gRPC's own thread. For what takes next to no time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as a pool does
            done.set_exception(error)
        return done


class PoolInterceptor(grpc.ServerInterceptor):
    """Gives services threads of their own, so that they answer while every other thread is busy."""

    def __init__(self, pools: Mapping[str, ThreadPoolExecutor]) -> None:
        self._pools = pools
        self._wrapped = Wrapped(lambda method, handler: in_pool(handler, pools[service_of(method)]))

    def intercept_service(self, continuation: Continuation, call: grpc.HandlerCallDetails) -> Handler | None:
        handler = continuation(call)
        if handler is None or service_of(call.method) not in self._pools:
            return handler
        return self._wrapped.of(call.method, handler)


def in_pool(handler: Handler, pool: ThreadPoolExecutor) -> Handler:
    """The handler, answered by the threads of `pool`."""
    inner = behaviour_of(handler)

    # gRPC looks for this attribute; a function of its own keeps two servers in one process apart.
    @functools.wraps(inner)
    def marked(*arguments: Any) -> Any:
        return inner(*arguments)

    marked.experimental_thread_pool = pool  # type: ignore[attr-defined]  # a function takes any attribute
    return make_handler(handler, marked)


def _call(inner: Behaviour, callback: tuple[Any, ...], request: Any, context: grpc.ServicerContext) -> Any:
    return inner(request, context, *callback)
