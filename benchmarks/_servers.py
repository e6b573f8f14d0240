"""Servers in processes of their own: `recsys serve`, and the plain script over the same snapshot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

START_S, STOP_S = 120.0, 20.0


@contextmanager
def both(root: Path, snapshot: Path, folder: Path) -> Iterator[tuple[dict[str, str], float]]:
    """The addresses of "engine", which serves what is current in `root`, and of "plain", which reads `snapshot`; and
    the seconds that the engine took from its start to serving, alone. Both write into `folder`."""
    store = f"sqlite:///{folder / 'events.sqlite'}"
    modules = {
        "engine": ["recsys.cli", "serve", "--snapshots", str(root), "--store", store, "--port", "0"],
        "plain": ["benchmarks.plain", str(snapshot)],
    }
    with ExitStack() as stack:
        targets, took_s = {}, {}
        for name, module in modules.items():
            began = time.monotonic()
            process = stack.enter_context(_running(name, module, folder))
            targets[name] = f"127.0.0.1:{_port(process, folder / name)}"
            took_s[name] = time.monotonic() - began
        yield targets, took_s["engine"]


@contextmanager
def _running(name: str, module: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One native thread a call for either: calls run side by side, and threads within one would only be in the way."""
    command = [sys.executable, "-m", *module, "--json", str(folder / f"{name}.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], files: Path) -> int:
    """The port, as soon as the server has written it."""
    end, file = time.monotonic() + START_S, files.with_suffix(".json")
    while time.monotonic() < end and process.poll() is None:
        if file.exists() and (text := file.read_text()):
            return int(json.loads(text)["port"])
        time.sleep(0.02)
    raise SystemExit(f"{files.name} did not serve:\n{files.with_suffix('.log').read_text()}")
