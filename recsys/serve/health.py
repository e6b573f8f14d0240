"""Health by service name: ready means that a snapshot is loaded and warmed; `recsys.live`, that the process runs."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE = "grpc.health.v1.Health"
LIVE = "recsys.live"
"""Always SERVING: for liveness probes, so that loading or draining never restarts the process."""


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
        status = health_pb2.HealthCheckResponse
        for name in self._names:
            self._servicer.set(name, status.SERVING if ready else status.NOT_SERVING)
