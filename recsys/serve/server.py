"""The server's life: start, load and warm, serve, drain, stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

import grpc
import structlog
from grpc_reflection.v1alpha import reflection

from recsys.errors import InvalidInput
from recsys.serve.access import AccessInterceptor, check_complete
from recsys.serve.admission import AdmissionInterceptor, Streams
from recsys.serve.auth import Authenticator, load_access
from recsys.serve.backend import Backend
from recsys.serve.caller import DEFAULT_TENANT
from recsys.serve.config import ServerConfig
from recsys.serve.engine import Shelf, Store
from recsys.serve.errors import ErrorInterceptor
from recsys.serve.handlers import PoolInterceptor
from recsys.serve.health import SERVICE as HEALTH_SERVICE
from recsys.serve.health import THREADS as HEALTH_THREADS
from recsys.serve.health import Health, HealthDoor, health_reader
from recsys.serve.lane import Lane
from recsys.serve.live import Live
from recsys.serve.message import CallTimer, Reader, ReadInterceptor
from recsys.serve.ops.operations import Operations
from recsys.serve.ops.replay import Replay
from recsys.serve.ops.telemetry import start_tracing
from recsys.serve.rankings import Rankings
from recsys.serve.services import ADMIN, INGEST, MEMORY, RANKING, SERVICES, register
from recsys.serve.tenants import Home, Tenant, load_all, routed
from recsys.serve.tls import TlsFiles, server_credentials

_log = structlog.get_logger("recsys.serve")

_POLL_S = 0.01
_FLUSH_S = 0.5  # a call that left its lane still sends its answer

_REFLECTION_THREADS = 4
_REFLECTION_IDLE_S = 2.0


class Server:
    """One process, one port. `start` answers health at once, `load` makes it ready, `stop` drains and closes the store.

    Without an access file there is one tenant, whose `shelf` and `store` are given; with one, `tenants` are those it
    names. `run` does all three until SIGTERM or SIGINT. Raises InvalidInput where the address cannot be had, a file of
    secrets cannot be used, or a method has no entry in the table of scopes.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        shelf: Shelf | None = None,
        store: Store | None = None,
        tenants: Mapping[str, Home] | None = None,
    ) -> None:
        self._config = config
        homes = _homes(config, shelf, store, tenants)
        self._tenants = {name: _tenant(name, home, config) for name, home in homes.items()}
        self._authenticator = Authenticator(load_access(config.access_path)) if config.access_path else None
        self._health = Health(SERVICES)
        work, write, admin = (Lane(each, num_tenants=len(homes)) for each in (config.work, config.write, config.admin))
        self._lanes = {RANKING: work, MEMORY: work, INGEST: write, ADMIN: admin}
        # Health and reflection hold no thread that work waits for, and the other way round.
        self._pools = {
            HEALTH_SERVICE: ThreadPoolExecutor(HEALTH_THREADS, "health"),
            reflection.SERVICE_NAME: ThreadPoolExecutor(_REFLECTION_THREADS, "reflection"),
        }
        self._workers = ThreadPoolExecutor(config.max_threads, "work")
        self._timer = CallTimer()
        self._operations = Operations(
            config.admin_http,
            [tenant.backend for tenant in self._tenants.values()],
            services=SERVICES,
            inside=lambda: {name: lane.inside for name, lane in (("work", work), ("write", write), ("admin", admin))},
            ready=lambda: self._health.ready,
            begin=start_tracing() if config.tracing else None,
        )
        self._server = self._make()
        self._stopping = threading.Event()
        self.port = _bind(self._server, config)
        self._health_door = self._make_health_door()

    def start(self) -> None:
        """Listens; every call but health and reflection is UNAVAILABLE until `load`."""
        self._server.start()
        if self._health_door:
            self._health_door.start()
        self._operations.start()
        _log.info("listening", host=self._config.host, port=self.port, health_port=self.health_port)

    def load(self) -> None:
        """Loads and warms the current snapshots, then reports ready. Raises NotFound or SnapshotError."""
        load_all(self._tenants)
        self._health.set_ready(True)

    @property
    def tenants(self) -> Mapping[str, Tenant]:
        """Who is served, by name."""
        return self._tenants

    @property
    def health_port(self) -> int | None:
        """Of the second port; None without one."""
        return self._health_door.port if self._health_door else None

    @property
    def admin_port(self) -> int | None:
        """Of the operators' HTTP; None without it."""
        return self._operations.port

    @property
    def snapshot_id(self) -> str:
        """What serves, of the first tenant that is served; empty until `load`."""
        found = (tenant.backend.live.snapshot_id for tenant in self._tenants.values())
        return next(filter(None, found), "")

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
        if self.snapshot_id:  # nobody was sent to a server that was never ready
            time.sleep(self._config.lame_duck_s)
        self._drain()
        if self._health_door:
            self._health_door.stop()
        self._operations.stop()
        self._timer.stop()
        for pool in (self._workers, *self._pools.values()):
            pool.shutdown(wait=False, cancel_futures=True)
        for tenant in self._tenants.values():
            tenant.close()
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
        config = self._config
        handlers = routed(self._tenants)
        check_complete(handlers)
        timer, num_tenants = self._timer, len(self._tenants)
        aside = Reader(timer, timeout_s=_REFLECTION_IDLE_S, most=_REFLECTION_THREADS)
        server = grpc.server(
            self._workers,
            interceptors=[
                *self._operations.outer,
                PoolInterceptor(self._pools),
                ErrorInterceptor(),
                AccessInterceptor(self._authenticator, {name: each.rates for name, each in self._tenants.items()}),
                ReadInterceptor({HEALTH_SERVICE: health_reader(timer), reflection.SERVICE_NAME: aside}),
                AdmissionInterceptor(
                    self._lanes,
                    reader=Reader(
                        timer, timeout_s=config.message_timeout_s, most=config.max_unread, num_tenants=num_tenants
                    ),
                    streams=Streams(
                        timer, most=config.max_streams, idle_s=config.stream_idle_s, num_tenants=num_tenants
                    ),
                    at_once=self._authenticator is None,
                ),
                *self._operations.inner,
            ],
            options=config.grpc_options(),
        )
        register(server, handlers)
        self._health.add_to(server)
        if config.reflection:
            reflection.enable_server_reflection((*SERVICES, HEALTH_SERVICE, reflection.SERVICE_NAME), server)
        return server

    def _make_health_door(self) -> HealthDoor | None:
        port = self._config.health_port
        return None if port is None else HealthDoor(self._health, self._config.address_of(port), self._timer)


def _homes(
    config: ServerConfig, shelf: Shelf | None, store: Store | None, tenants: Mapping[str, Home] | None
) -> Mapping[str, Home]:
    if (tenants is not None) == (shelf is not None or store is not None):
        raise InvalidInput.of("tenants", tenants, "give tenants, or the shelf and the store of the only one")
    if tenants is not None:
        if not config.access_path:
            raise InvalidInput.of("access_path", None, "tenants are told apart by credentials")
        return tenants
    if shelf is None or store is None:
        raise InvalidInput.of("store", store, "shelf and store come together")
    return {DEFAULT_TENANT: Home(shelf=shelf, store=store)}


def _tenant(name: str, home: Home, config: ServerConfig) -> Tenant:
    log = config.replay.path
    if log is not None and config.access_path:  # what is kept of rankings is a tenant's own, too
        log = log.with_name(f"{name}-{log.name}")
    backend = Backend(
        live=Live(home.shelf, home.store, keep_previous_s=config.replay.keep_previous_s),
        store=home.store,
        shelf=home.shelf,
        rankings=Rankings(max_rows=config.max_ranking_rows, ttl_s=config.ranking_ttl_s),
        replay=Replay(replace(config.replay, path=log), lambda context, engine: backend.user(context, engine)),
        recommend_depth=config.recommend_depth,
    )
    return Tenant(
        name,
        home,
        backend,
        sweep_interval_s=config.sweep_interval_s,
        rewrite_interval_s=config.rewrite_interval_s,
    )


def _bind(server: grpc.Server, config: ServerConfig) -> int:
    credentials = None
    if config.tls_key_path and config.tls_certificate_path:
        files = TlsFiles(
            certificate=config.tls_certificate_path, key=config.tls_key_path, client_ca=config.tls_client_ca_path
        )
        credentials = server_credentials(files)
    try:
        if credentials is not None:
            return server.add_secure_port(config.address, credentials)
        return server.add_insecure_port(config.address)
    except RuntimeError as error:
        raise InvalidInput.of("port", config.port, f"cannot listen on {config.address}: is it in use?") from error
