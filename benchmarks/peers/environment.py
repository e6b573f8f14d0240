"""The peer's virtual environment: made once, kept as long as its requirements stay the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
TORCH_INDEX = "LONGREC_TORCH_INDEX"
"""The variable that names an index of CPU wheels, as for the engine's own environment."""


def ready(venv: Path) -> Path:
    """The environment's python; makes the environment in the folder `venv` where it is missing or another one."""
    python, stamp = venv / "bin" / "python", venv / ".peers-setup"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    # It lies inside the checkout unless told otherwise, and never belongs to it.
    (venv / ".gitignore").write_text("*\n")
    for arguments in installs(REQUIREMENTS.read_text(), os.environ.get(TORCH_INDEX)):
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-input", *arguments], check=True)
    stamp.write_text(wanted)
    return python


def installs(requirements: str, torch_index: str | None) -> list[list[str]]:
    """Arguments of pip, one call after the other: torch first and alone, since its index may be another one."""
    torch = next(line for line in requirements.splitlines() if line.startswith("torch=="))
    index = ["--index-url", torch_index] if torch_index else []
    return [[*index, torch], ["--requirement", str(REQUIREMENTS)]]
