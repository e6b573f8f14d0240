"""A server over a real store in a process of its own: it can be killed, and started again on the same files.

    python -m tests.reliability.served STORE [--takes MS] [--snapshots N]

The engine is the fake of `tests.serve`: a row scores 1,000 for each snapshot's number, and one for each time its user
met the item, so an answer tells which snapshot made it and which events it saw.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
STEP = 1_000.0
START_S = 120.0


class Served:
    """One server at a time, on `folder`/events.db; its log is `folder`/server.log."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.store = folder / "events.db"
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self.target = ""

    def start(self) -> str:
        """The address, once it serves."""
        with (self.folder / "server.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.reliability.served", str(self.store), *self._arguments],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (self.folder / "server.log").read_text()[-3_000:]
        self.target = f"127.0.0.1:{int(line)}"
        return self.target

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def terminate(self) -> tuple[int, float]:
        """SIGTERM: (exit status, seconds until the process was gone)."""
        start_s = time.monotonic()
        return self._end(signal.SIGTERM), time.monotonic() - start_s

    def _end(self, number: int) -> int:
        process, self._process, self.target = self._process, None, ""
        assert process is not None
        process.send_signal(number)
        code = process.wait(60)
        if process.stdout:
            process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()


def main() -> None:
    from recsys.serve import LaneConfig, Server, ServerConfig
    from recsys.serve.log import configure_logging
    from recsys.store import EventStore
    from tests.serve.fake import FakeEngine, FakeShelf

    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--takes", type=float, default=0.0, help="milliseconds that a ranking takes")
    parser.add_argument("--snapshots", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    configure_logging()
    before = (lambda: time.sleep(options.takes / 1e3)) if options.takes else (lambda: None)
    engines = [
        FakeEngine(snapshot_id=f"s{number}", base=STEP * number, before=before, asked=Forgetful())
        for number in range(1, options.snapshots + 1)
    ]
    lane = LaneConfig(workers=options.workers, queue=64, default_timeout_s=1.0, max_timeout_s=10.0)
    server = Server(ServerConfig(port=0, work=lane), shelf=FakeShelf(*engines), store=EventStore.open(options.store))
    server.run(ready=lambda port: print(port, flush=True))


class Forgetful(list):  # type: ignore[type-arg]  # of whatever it is given, and it keeps none of it
    """What was asked is not kept: a soak looks for growth."""

    def append(self, each: object) -> None:
        """Drops it."""


if __name__ == "__main__":
    main()
