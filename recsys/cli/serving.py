"""`recsys serve`."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from recsys import _native
from recsys.cli.output import Output
from recsys.cli.snapshots import some_snapshots
from recsys.config import Settings
from recsys.encode.cache import VectorCache
from recsys.serve import Server
from recsys.serve.auth import load_access
from recsys.serve.log import configure_logging
from recsys.serve.shelf import SnapshotShelf
from recsys.serve.tenants import Home
from recsys.store import EventStore


def serve(settings: Settings, output: Output) -> None:
    """Serves the current snapshot until SIGTERM or SIGINT."""
    configure_logging()
    _native.limit_threads(1)  # requests run side by side; threads within one would only get in each other's way
    config = settings.server
    server = _of_tenants(settings, config.access_path) if config.access_path else _of_one(settings)

    def ready(port: int) -> None:
        gc.freeze()  # and later on it would hold calls up
        gc.enable()
        output.lines(f"serving {_what(server, settings)} on {config.host}:{port}; Ctrl-C ends it")
        if server.admin_port is not None:
            output.lines(f"metrics and the memory page on http://{config.admin_http.host}:{server.admin_port}/")
        output.result(
            {
                "host": config.host,
                "port": port,
                "admin_port": server.admin_port,
                "snapshot_id": server.snapshot_id,
            }
        )

    server.run(ready=ready)
    if server.busy:
        # Nothing interrupts a thread inside the text encoder, and Python would wait for it; the store is closed by now.
        sys.stdout.flush()
        os._exit(0)


def _of_one(settings: Settings) -> Server:
    root = settings.paths.snapshots
    some_snapshots(root)  # said at once, not after a port is open and a store is made
    # Texts of items written since the snapshot are not encoded anew at every start.
    shelf = SnapshotShelf(root, cache=VectorCache(settings.paths.vectors), store_url=settings.paths.store)
    return Server(settings.server, shelf=shelf, store=EventStore.open(settings.paths.store))


def _of_tenants(settings: Settings, access: Path) -> Server:
    """Each tenant with its own store, snapshots and cache of vectors."""
    found = load_access(access)
    homes = {
        name: Home(
            shelf=SnapshotShelf(
                tenant.snapshots,
                cache=VectorCache(settings.paths.vectors / "tenants" / name),
                store_url=str(tenant.store),
            ),
            store=EventStore.open(tenant.store),
            rates=tenant.rates,
            quotas=tenant.quotas,
            usage=found.usage / f"{name}.json" if found.usage else None,
        )
        for name, tenant in found.tenants.items()
    }
    return Server(settings.server, tenants=homes)


def _what(server: Server, settings: Settings) -> str:
    if settings.server.access_path is None:
        return f"snapshot {server.snapshot_id} of {settings.paths.snapshots}"
    return ", ".join(f"{name}: {each.backend.live.snapshot_id or 'nothing'}" for name, each in server.tenants.items())
