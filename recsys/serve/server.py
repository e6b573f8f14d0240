"""The server's life: start, load and warm, serve, drain, stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import grpc
import structlog
from grpc_reflection.v1alpha import reflection

from recsys.errors import InvalidInput
from recsys.serve.admission import AdmissionInterceptor, Lane
from recsys.serve.backend import Backend
from recsys.serve.config import ServerConfig
from recsys.serve.engine import Shelf, Store
from recsys.serve.errors import ErrorInterceptor
from recsys.serve.handlers import PoolInterceptor
from recsys.serve.health import SERVICE as HEALTH_SERVICE
from recsys.serve.health import Health
from recsys.serve.live import Live
from recsys.serve.rankings import Rankings
from recsys.serve.servicer import AdminServicer, IngestServicer, MemoryServicer, RankingServicer
from recsys.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from recsys.v1.ingest_service_pb2_grpc import add_IngestServiceServicer_to_server
from recsys.v1.memory_service_pb2_grpc import add_MemoryServiceServicer_to_server
from recsys.v1.ranking_service_pb2_grpc import add_RankingServiceServicer_to_server

_log = structlog.get_logger("recsys.serve")

_RANKING = "recsys.v1.RankingService"
_MEMORY = "recsys.v1.MemoryService"
_INGEST = "recsys.v1.IngestService"
_ADMIN = "recsys.v1.AdminService"
SERVICES = (_RANKING, _MEMORY, _INGEST, _ADMIN)

_POLL_S = 0.01
_FLUSH_S = 0.5  # a call that left its lane still sends its answer


class Server:
    """One process, one port. `start` answers health at once, `load` makes it ready, `stop` drains and closes the store.

    `run` does all three until SIGTERM or SIGINT. Raises InvalidInput where the address cannot be had.
    """

    def __init__(self, config: ServerConfig, *, shelf: Shelf, store: Store) -> None:
        self._config = config
        self._store = store
        self._live = Live(shelf, store)
        rankings = Rankings(max_rows=config.max_ranking_rows, ttl_s=config.ranking_ttl_s)
        self._backend = Backend(
            live=self._live, store=store, shelf=shelf, rankings=rankings, recommend_depth=config.recommend_depth
        )
        self._health = Health(SERVICES)
        work, write, admin = Lane(config.work), Lane(config.write), Lane(config.admin)
        self._lanes = {_RANKING: work, _MEMORY: work, _INGEST: write, _ADMIN: admin}
        # Health and reflection hold no thread that work waits for, and the other way round.
        self._pools = [ThreadPoolExecutor(2, name) for name in ("health", "reflection")]
        self._workers = ThreadPoolExecutor(config.max_threads, "work")
        self._server = self._make()
        self._stopping = threading.Event()
        self.port = _bind(self._server, config)

    def start(self) -> None:
        """Listens; every call but health and reflection is UNAVAILABLE until `load`."""
        self._server.start()
        _log.info("listening", host=self._config.host, port=self.port)

    def load(self) -> None:
        """Loads and warms the current snapshot, then reports ready. Raises NotFound or SnapshotError."""
        self._live.load()
        self._health.set_ready(True)

    @property
    def snapshot_id(self) -> str:
        """What serves; empty until `load`."""
        return self._live.snapshot_id

    @property
    def busy(self) -> bool:
        """Whether a call is still being worked on; after `stop` one that outlasted the drain."""
        return any(lane.inside for lane in self._lanes.values())

    def stop(self) -> None:
        """Not ready, then `lame_duck_s` of service as before, then at most `drain_s` for calls in flight."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._health.set_ready(False)
        _log.info("draining")
        if self._live.snapshot_id:  # nobody was sent to a server that was never ready
            time.sleep(self._config.lame_duck_s)
        self._drain()
        for pool in (self._workers, *self._pools):
            pool.shutdown(wait=False, cancel_futures=True)
        self._store.close()
        _log.info("stopped")

    def run(self, *, ready: Callable[[int], None] | None = None) -> None:
        """Serves until SIGTERM or SIGINT; call it from the main thread. `ready(port)` is called once loaded."""
        wanted = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: wanted.set())
        self.start()
        try:
            self.load()
            if ready:
                ready(self.port)
            wanted.wait()
        finally:
            self.stop()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.load()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _drain(self) -> None:
        """Refuses new calls and waits for those in flight; streams of health watchers would otherwise hold it up."""
        end = time.monotonic() + self._config.drain_s
        stopped = self._server.stop(self._config.drain_s)
        while self.busy and time.monotonic() < end:
            time.sleep(_POLL_S)
        self._server.stop(_FLUSH_S)  # the shorter grace counts
        stopped.wait()

    def _make(self) -> grpc.Server:
        config, backend = self._config, self._backend
        pools = dict(zip((HEALTH_SERVICE, reflection.SERVICE_NAME), self._pools, strict=True))
        server = grpc.server(
            self._workers,
            interceptors=[PoolInterceptor(pools), ErrorInterceptor(), AdmissionInterceptor(self._lanes)],
            options=config.grpc_options(),
            maximum_concurrent_rpcs=4 * config.max_threads,
        )
        add_RankingServiceServicer_to_server(RankingServicer(backend), server)
        add_MemoryServiceServicer_to_server(MemoryServicer(backend), server)
        add_IngestServiceServicer_to_server(IngestServicer(backend), server)
        add_AdminServiceServicer_to_server(AdminServicer(backend), server)
        self._health.add_to(server)
        if config.reflection:
            reflection.enable_server_reflection((*SERVICES, HEALTH_SERVICE, reflection.SERVICE_NAME), server)
        return server


def _bind(server: grpc.Server, config: ServerConfig) -> int:
    try:
        if config.tls_key_path and config.tls_certificate_path:
            pair = (config.tls_key_path.read_bytes(), config.tls_certificate_path.read_bytes())
            return server.add_secure_port(config.address, grpc.ssl_server_credentials([pair]))
        return server.add_insecure_port(config.address)
    except OSError as error:
        raise InvalidInput.of("tls_key_path", str(config.tls_key_path), f"cannot be read: {error}") from error
    except RuntimeError as error:
        raise InvalidInput.of("port", config.port, f"cannot listen on {config.address}: is it in use?") from error
