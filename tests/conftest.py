"""What all tests share. Imported before any of the engine's modules, so that the hook sees every one of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Before torch, faiss and lightgbm read them: tests share the machine, and no test needs the network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import jaxtyping
import pytest
import torch  # noqa: F401  (it brings the OpenMP runtime that lightgbm needs and a slim system lacks)

from tests.typecheck import shapes

UNSHAPED = {"v1", "__init__", "__pycache__"}  # generated, or without functions
ROOT = Path(__file__).parents[1] / "recsys"
SHAPED = [f"recsys.{path.stem}" for path in sorted(ROOT.iterdir()) if path.stem not in UNSHAPED]

jaxtyping.install_import_hook([*SHAPED, "indexer"], f"{shapes.__module__}.{shapes.__name__}")


@pytest.fixture(autouse=True)
def _unshaped(request: pytest.FixtureRequest) -> Iterator[None]:
    """Turns the check of shapes off in tests marked `unshaped`."""
    off = request.node.get_closest_marker("unshaped") is not None
    jaxtyping.config.update("jaxtyping_disable", off)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    point = tmp_path / "small"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(point)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount: {error}")
    if done.returncode:
        pytest.skip(f"no right to mount: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", str(point)], check=True)
