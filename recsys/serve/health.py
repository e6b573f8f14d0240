"""Health by service name: ready means that a snapshot is loaded and warmed; `recsys.live`, that the process runs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from recsys.errors import InvalidInput
from recsys.serve.errors import ErrorInterceptor
from recsys.serve.message import CallTimer, Reader, ReadInterceptor

SERVICE = "grpc.health.v1.Health"
LIVE = "recsys.live"
"""Always SERVING: for liveness probes, so that loading or draining never restarts the process."""
THREADS = 32
"""For probes of one port."""


class Health:
    """Starts as not ready."""

    def __init__(self, services: Sequence[str]) -> None:
        self._names = ("", *services)
        self._servicer = health.HealthServicer()
        self._servicer.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        self.set_ready(False)

    def add_to(self, server: grpc.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def set_ready(self, ready: bool) -> None:
        self.ready = ready
        status = health_pb2.HealthCheckResponse
        for name in self._names:
            self._servicer.set(name, status.SERVING if ready else status.NOT_SERVING)


def health_reader(timer: CallTimer) -> Reader:
    """Half of the threads of health, at most, wait for one connection's probes; a probe is a few bytes."""
    return Reader(timer, timeout_s=2.0, most=THREADS)


class HealthDoor:
    """A port for health alone, with threads and connections that no other call has."""

    def __init__(self, health: Health, address: str, timer: CallTimer) -> None:
        """Raises InvalidInput where the address cannot be had."""
        self._pool = ThreadPoolExecutor(THREADS, "health-port")
        interceptors = [ErrorInterceptor(), ReadInterceptor({SERVICE: health_reader(timer)})]
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 4096)]
        self._server = grpc.server(self._pool, interceptors=interceptors, options=options)
        health.add_to(self._server)
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise InvalidInput.of("health_port", address, "cannot listen: is it in use?") from error

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """At once: who watches is told by the end of the stream."""
        self._server.stop(None)
        self._pool.shutdown(wait=False, cancel_futures=True)
