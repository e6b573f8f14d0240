"""How fast events become durable over gRPC, on SQLite with every acknowledgement on disk.

    python -m benchmarks.ingest [--quick] [--store URL] [--json FILE]

A server in a process of its own, with the default settings, takes events for 10,000 users:

    events/s     one stream of batches of 100, and four callers of WriteEvents with batches of 100, as fast as they go
    p50, p99     ms from when a batch of 10 was due to its acknowledgement, at 1,000 events/s offered at an even pace,
                 by StreamEvents and by WriteEvents

Beside them stands what the disk alone does: milliseconds for one appended and fsynced 4 KiB, in the same folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from recsys.client import AsyncRecsysClient
from recsys.types import Event

BATCH, SMALL_BATCH, OFFERED_PER_S, USERS, CALLERS = 100, 10, 1_000, 10_000, 4
PACKAGES = ("grpcio", "protobuf", "sqlalchemy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Seconds a measurement."""

    saturated_s: float = 15.0
    offered_s: float = 30.0


QUICK = Plan(saturated_s=3.0, offered_s=5.0)


def events(rng: np.random.Generator, count: int, start: int) -> list[Event]:
    """Purchases with ids, values and sessions: as long as events commonly are."""
    users, items = rng.integers(0, USERS, count), rng.integers(0, 50_000, count)
    return [
        Event(
            user_id=f"user-{user}",
            item_id=f"item-{item}",
            event_type="purchase",
            timestamp=1.7e9 + (start + place) % 1_000_000,
            value=1.0,
            event_id=f"event-{start + place}",
            session_id=f"session-{user}",
        )
        for place, (user, item) in enumerate(zip(users, items, strict=True))
    ]


def batches(size: int, seed: int) -> Iterator[list[Event]]:
    """Without end; no event comes twice."""
    rng, start = np.random.default_rng(seed), seed * 10**9
    while True:
        yield events(rng, size, start)
        start += size


async def saturate_stream(client: AsyncRecsysClient, seconds: float) -> float:
    """Events a second that one stream has acknowledged."""
    start = time.perf_counter()

    async def source() -> AsyncIterator[list[Event]]:
        for batch in batches(BATCH, 1):
            if time.perf_counter() - start > seconds:
                return
            yield batch

    done = 0
    async for written in client.stream_events(source()):
        done += written.accepted
    return done / (time.perf_counter() - start)


async def saturate_calls(client: AsyncRecsysClient, seconds: float) -> float:
    """Events a second that callers who never pause have acknowledged."""
    start = time.perf_counter()

    async def caller(seed: int) -> int:
        done = 0
        for batch in batches(BATCH, seed):
            if time.perf_counter() - start > seconds:
                return done
            done += (await client.write_events(batch, timeout_s=20.0)).accepted
        return done

    done = await asyncio.gather(*(caller(seed) for seed in range(2, 2 + CALLERS)))
    return sum(done) / (time.perf_counter() - start)


def due(start: float, seconds: float) -> Iterator[float]:
    """When each small batch is due."""
    pause_s = SMALL_BATCH / OFFERED_PER_S
    return (start + place * pause_s for place in range(int(seconds / pause_s)))


async def offer_stream(client: AsyncRecsysClient, seconds: float) -> list[float]:
    """Seconds from due to acknowledged, a batch each, on one stream."""
    start = time.perf_counter() + 0.2
    moments = list(due(start, seconds))

    async def source() -> AsyncIterator[list[Event]]:
        for moment, batch in zip(moments, batches(SMALL_BATCH, 10), strict=False):
            await asyncio.sleep(max(moment - time.perf_counter(), 0))
            yield batch

    waits: list[float] = []
    async for _ in client.stream_events(source()):
        waits.append(time.perf_counter() - moments[len(waits)])
    return waits


async def offer_calls(client: AsyncRecsysClient, seconds: float) -> list[float]:
    """The same, a call a batch; nobody waits for another's answer."""
    start = time.perf_counter() + 0.2

    async def call(moment: float, batch: list[Event]) -> float:
        await asyncio.sleep(max(moment - time.perf_counter(), 0))
        await client.write_events(batch, timeout_s=20.0)
        return time.perf_counter() - moment

    moments = due(start, seconds)
    return list(await asyncio.gather(*map(call, moments, batches(SMALL_BATCH, 20))))


def fsync_ms(folder: Path, count: int = 200) -> float:
    """The median of appending 4 KiB and syncing them: below this no acknowledgement can be."""
    took = []
    with (folder / "sync").open("wb") as file:
        for _ in range(count):
            start = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - start)
    return float(np.median(took) * 1e3)


def _serve(store: str, root: Path, ready: Connection, stop: Connection) -> None:
    """An engine is not needed to take events: a server over a snapshot that answers nothing."""
    from recsys.serve import Server, ServerConfig
    from recsys.serve.log import configure_logging
    from recsys.serve.shelf import SnapshotShelf
    from recsys.store import EventStore

    configure_logging()
    server = Server(ServerConfig(port=0), shelf=SnapshotShelf(root), store=EventStore.open(store))
    server.start()
    ready.send(server.port)
    stop.recv()
    server.stop()


@contextmanager
def served(store: str, root: Path) -> Iterator[str]:
    """The address of a server over `store`, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ready, told = context.Pipe(duplex=False)
    stop_here, stop = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(store, root, told, stop_here), daemon=True)
    process.start()
    try:
        if not ready.poll(120):
            raise SystemExit("the server did not start")
        yield f"127.0.0.1:{ready.recv()}"
    finally:
        stop.send(None)
        process.join(20)


async def measure(target: str, plan: Plan) -> dict[str, float]:
    """All figures, one after the other."""
    async with AsyncRecsysClient(target, timeout_s=20.0) as client:
        async for _ in client.stream_events([events(np.random.default_rng(0), BATCH, 0)]):
            pass  # the first call waits for what is loaded lazily
        figures = {
            "events_per_s": await saturate_stream(client, plan.saturated_s),
            "events_per_s_calls": await saturate_calls(client, plan.saturated_s),
        }
        for name, offer in (("", offer_stream), ("_calls", offer_calls)):
            waits_ms = np.array(await offer(client, plan.offered_s)) * 1e3
            figures[f"p50_ms{name}"], figures[f"p99_ms{name}"] = map(float, np.percentile(waits_ms, (50, 99)))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds a measurement")
    parser.add_argument("--store", metavar="URL", help="another store than a new SQLite file, e.g. postgresql://...")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = options.store or str(root / "events.sqlite")
        report: dict[str, object] = {"fsync_ms": fsync_ms(root)}
        with served(store, root) as target:
            report |= asyncio.run(measure(target, QUICK if options.quick else Plan()))
    print("\n".join(f"{name:20s} {value:10,.2f}" for name, value in report.items()))
    report |= {
        "store": store.partition("://")[0] if options.store else "sqlite",
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "versions": {name: version(name) for name in PACKAGES},
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
