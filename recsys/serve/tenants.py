"""Tenants: each has its own store, snapshots, live engine, kept rankings, limits, and handlers that reach no other's.

No request names a tenant. A call goes to the handlers of the tenant that its verified credential names; what answers
then was built around that tenant's backend and holds a reference to nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from recsys.errors import LimitExceeded, NotFound, SnapshotError, Unauthenticated
from recsys.serve.auth.limits import EventQuota, QuotaConfig, Rates
from recsys.serve.backend import Backend
from recsys.serve.caller import Scope, caller
from recsys.serve.engine import Shelf, Store
from recsys.serve.handlers import Behaviour, Handler, behaviour_of, make_handler
from recsys.serve.services import handlers_of
from recsys.serve.sweep import Sweeper
from recsys.v1 import ingest_service_pb2 as ingest_pb

_log = structlog.get_logger("recsys.serve")

_ITEMS_RETRY_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What a tenant brings along. `usage` is the file that keeps what it used of its quotas over a restart."""

    shelf: Shelf
    store: Store
    rates: Mapping[Scope, float] = field(default_factory=dict)
    quotas: QuotaConfig = field(default_factory=QuotaConfig)
    usage: Path | None = None


class Tenant:
    """A tenant that is being served."""

    def __init__(
        self,
        name: str,
        home: Home,
        backend: Backend,
        *,
        sweep_interval_s: float = 300.0,
        rewrite_interval_s: float = 6 * 3600.0,
    ) -> None:
        self.name = name
        self.backend = backend
        self.rates = Rates(home.rates)
        self._events = EventQuota(home.quotas.events_per_day, home.usage)
        self._most_items = home.quotas.items
        self._handlers = handlers_of(backend)
        self._sweeper = Sweeper(
            backend.live,
            backend.store,
            backend.shelf,
            interval_s=sweep_interval_s,
            rewrite_interval_s=rewrite_interval_s,
        )

    def load(self) -> None:
        """Loads and warms the current snapshot. Raises NotFound or SnapshotError."""
        self.backend.replay.log.load()
        self.backend.live.load(self.backend.replay.warm)
        self._sweeper.start()

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By method."""
        return self._handlers

    def behaviour(self, method: str) -> Behaviour:
        """What answers `method` for this tenant, within its quotas."""
        handler = self._handlers[method]
        inner = behaviour_of(handler)
        if handler.request_streaming:
            return lambda requests, context: inner(map(self._refuse_beyond, requests), context)
        metered = _METERED.get(method)
        return metered(self, inner) if metered else inner

    def close(self) -> None:
        """Keeps what was asked and used, and closes the store."""
        self.backend.replay.log.save()
        self._events.close()
        self._sweeper.stop()
        self.backend.live.close()
        self.backend.store.close()

    def _refuse_beyond(self, request: Any) -> Any:
        """For the batches of a stream: counted as they come, duplicates among them."""
        with self._events.taking(len(request.events)) as accepted:
            accepted(len(request.events))
        return request

    def _write_events(self, inner: Behaviour) -> Behaviour:
        def metered(request: ingest_pb.WriteEventsRequest, context: Any) -> ingest_pb.WriteEventsResponse:
            with self._events.taking(len(request.events)) as accepted:
                response: ingest_pb.WriteEventsResponse = inner(request, context)
                accepted(response.accepted_count)
            return response

        return metered

    def _write_items(self, inner: Behaviour) -> Behaviour:
        most = self._most_items
        if most is None:
            return inner

        def metered(request: ingest_pb.WriteItemsRequest, context: Any) -> ingest_pb.WriteItemsResponse:
            engine = self.backend.live.engine
            fresh = sum(engine.item(item.item_id) is None for item in request.items)
            if engine.num_items + fresh > most:
                message = f"the catalogue has {engine.num_items} of {most} items, no room for {fresh}"
                raise LimitExceeded(message, retry_after_s=_ITEMS_RETRY_S)
            response: ingest_pb.WriteItemsResponse = inner(request, context)
            return response

        return metered


_METERED: Mapping[str, Callable[[Tenant, Behaviour], Behaviour]] = {
    "/recsys.v1.IngestService/WriteEvents": Tenant._write_events,
    "/recsys.v1.IngestService/WriteItems": Tenant._write_items,
}


def routed(tenants: Mapping[str, Tenant]) -> Mapping[str, Handler]:
    """The handlers to register: each sends a call to the tenant of its caller."""
    first = next(iter(tenants.values()))
    return {
        method: make_handler(like, _route({name: tenant.behaviour(method) for name, tenant in tenants.items()}))
        for method, like in first.handlers.items()
    }


def load_all(tenants: Mapping[str, Tenant]) -> None:
    """Loads each tenant. One of several that has nothing to serve is not served, and the others are.

    Raises NotFound or SnapshotError where none has.
    """
    failure: NotFound | SnapshotError | None = None
    for tenant in tenants.values():
        try:
            tenant.load()
        except (NotFound, SnapshotError) as error:
            failure = failure or error
            _log.error("tenant not served", tenant=tenant.name, error=type(error).__name__, reason=str(error))
    if failure is not None and not any(tenant.backend.live.snapshot_id for tenant in tenants.values()):
        raise failure


def _route(behaviours: Mapping[str, Behaviour]) -> Behaviour:
    def route(request: Any, context: Any) -> Any:
        behaviour = behaviours.get(caller().tenant)
        if behaviour is None:  # nobody comes here without a credential; this holds if that ever fails
            raise Unauthenticated("a valid credential is needed")
        return behaviour(request, context)

    return route
