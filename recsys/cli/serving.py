"""`recsys serve`."""

from __future__ import annotations

import os
import sys

from recsys import _native
from recsys.cli.output import Output
from recsys.cli.snapshots import some_snapshots
from recsys.config import Settings
from recsys.encode.cache import VectorCache
from recsys.serve import Server
from recsys.serve.log import configure_logging
from recsys.serve.shelf import SnapshotShelf
from recsys.store import EventStore


def serve(settings: Settings, output: Output) -> None:
    """Serves the current snapshot until SIGTERM or SIGINT."""
    configure_logging()
    _native.limit_threads(1)  # requests run side by side; threads within one would only get in each other's way
    root, config = settings.paths.snapshots, settings.server
    some_snapshots(root)  # said at once, not after a port is open and a store is made
    # Texts of items written since the snapshot are not encoded anew at every start.
    shelf = SnapshotShelf(root, cache=VectorCache(settings.paths.vectors))
    server = Server(config, shelf=shelf, store=EventStore.open(settings.paths.store))

    def ready(port: int) -> None:
        output.lines(f"serving snapshot {server.snapshot_id} of {root} on {config.host}:{port}; Ctrl-C ends it")
        output.result({"host": config.host, "port": port, "snapshot_id": server.snapshot_id})

    server.run(ready=ready)
    if server.busy:
        # Nothing interrupts a thread inside the text encoder, and Python would wait for it; the store is closed by now.
        sys.stdout.flush()
        os._exit(0)
