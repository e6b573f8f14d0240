"""docs/operations.md, followed block by block."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, write_shop

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE | re.DOTALL)
TIMEOUT_S = 900


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="bash and curl are needed")
def test_the_runbook_can_be_followed(tmp_path: Path) -> None:
    write_shop(tmp_path / "shop")
    vectors = f'\n[paths]\nvectors = "{tmp_path / "vectors"}"\n'
    (tmp_path / "longrec.toml").write_text(CONFIG + vectors)
    (tmp_path / "other.toml").write_text(CONFIG.replace("max_trees = 20", "max_trees = 15") + vectors)
    # The words a reader has: the program, Python with the client, and two ports of this machine.
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, arguments in (("python", ""), ("recsys", "-m recsys.cli")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (bin_folder / name).chmod(0o755)
    port, admin_port = _free_ports(2)
    steps = "\n".join(f"echo 'step {number}' >&2\n{block}" for number, block in enumerate(BLOCKS, 1))
    script = f"set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{steps}\necho followed\n"
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PORT": str(port),
        "ADMIN_PORT": str(admin_port),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("followed")
    assert len(BLOCKS) == 9
