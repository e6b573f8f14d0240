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
def both(root: Path, snapshot: Path) -> Iterator[dict[str, str]]:
    """The addresses of "engine", which serves what is current in `root`, and of "plain", which reads `snapshot`."""
    store = f"sqlite:///{root / 'events.sqlite'}"
    modules = {
        "engine": ["recsys.cli", "serve", "--snapshots", str(root), "--store", store, "--port", "0"],
        "plain": ["benchmarks.plain", str(snapshot)],
    }
    with ExitStack() as stack:
        yield {name: stack.enter_context(_running(name, module, root)) for name, module in modules.items()}


@contextmanager
def _running(name: str, module: list[str], folder: Path) -> Iterator[str]:
    """One native thread a call for either: calls run side by side, and threads within one would get in each other's way."""
    port_file, log_file = folder / f"{name}.json", folder / f"{name}.log"
    command = [sys.executable, "-m", *module, "--json", str(port_file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log_file.open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{_port(process, port_file, log_file)}"
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], file: Path, log_file: Path) -> int:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        if file.exists() and (text := file.read_text()):
            return int(json.loads(text)["port"])
        time.sleep(0.05)
    raise SystemExit(f"{' '.join(map(str, process.args))} did not serve:\n{log_file.read_text()}")
