"""All that operators have of one server, put together: interceptors that watch, and the HTTP port that shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import grpc

from recsys.serve.backend import Backend
from recsys.serve.ops.admin_http import AdminHttp, Query, Reply, Route, to_json
from recsys.serve.ops.config import AdminConfig
from recsys.serve.ops.memory_view import MemoryView
from recsys.serve.ops.metrics import CONTENT_TYPE, Figures, Metrics
from recsys.serve.ops.watching import Begin, InnerWatch, OuterWatch


class Operations:
    """`inside` tells how many calls of each lane run or wait; `ready` whether the server takes calls.

    Where neither the port nor tracing is configured nothing watches, and calls cost what they cost without.
    """

    def __init__(
        self,
        config: AdminConfig,
        backends: Sequence[Backend],
        *,
        services: Sequence[str],
        inside: Callable[[], Mapping[str, int]],
        ready: Callable[[], bool],
        begin: Begin | None = None,
    ) -> None:
        self._backends = backends
        self._inside = inside
        self._ready = ready
        self.metrics = Metrics(self._figures)
        watched = config.port is not None or begin is not None
        self.outer: list[grpc.ServerInterceptor] = [OuterWatch(self.metrics, services, begin)] if watched else []
        self.inner: list[grpc.ServerInterceptor] = [InnerWatch(self.metrics, services)] if watched else []
        self._http = None if config.port is None else AdminHttp(config, self._routes())

    @property
    def port(self) -> int | None:
        """Of HTTP; None without it."""
        return self._http.port if self._http else None

    def start(self) -> None:
        if self._http:
            self._http.start()

    def stop(self) -> None:
        if self._http:
            self._http.stop()

    def _routes(self) -> dict[str, Route]:
        own = {
            "/metrics": Route(lambda query: Reply(self.metrics.text(), CONTENT_TYPE)),
            "/healthz": Route(lambda query: to_json({"status": "alive"})),
            "/readyz": Route(self._readiness),
        }
        if len(self._backends) == 1:
            return {**MemoryView(self._backends[0]).routes(), **own}
        return own  # what a tenant holds is shown to that tenant's callers, through the API, alone

    def _readiness(self, query: Query) -> Reply:
        ready = self._ready()
        return to_json({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    def _figures(self) -> Figures:
        """Over all tenants: sums, the oldest snapshot, the earliest watermark."""
        served = [each for each in self._backends if each.live.snapshot_id]
        engines = [each.live.engine for each in served]
        return Figures(
            ready=self._ready(),
            snapshots={each.snapshot_id: each.fingerprints for each in engines},
            created=min((each.created for each in engines), default=0.0),
            watermark=min((each.live.watermark for each in served if each.live.watermark), default=0.0),
            num_users=sum(each.num_users for each in engines),
            num_items=sum(each.num_items for each in engines),
            num_memories=sum(each.num_memories for each in engines),
            bytes_of={"ranking_log": sum(each.replay.log.size_bytes for each in self._backends)},
            inside=self._inside(),
            kept_rankings=sum(len(each.rankings) for each in self._backends),
            logged_requests=sum(len(each.replay.log) for each in self._backends),
            replays=[each.replay.last for each in self._backends if each.replay.last is not None],
        )
