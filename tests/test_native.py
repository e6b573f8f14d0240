from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import _native

SHOW = """
import json, os, sys
from recsys import _native
names = ("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS")
print(json.dumps([[os.environ.get(name) for name in names], "torch" in sys.modules, _native.threads()]))
"""


def shown(**environment: str) -> list[object]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-c", SHOW]
    done = subprocess.run(command, env=inherited | environment, check=True, capture_output=True, text=True)
    found: list[object] = json.loads(done.stdout)
    return found


def test_sets_what_the_user_has_not() -> None:
    variables, has_torch, threads = shown()
    assert variables == ["PASSIVE", "false", None]
    assert has_torch
    assert isinstance(threads, int)
    assert threads >= 1


def test_the_users_environment_wins() -> None:
    variables, _, threads = shown(OMP_WAIT_POLICY="ACTIVE", TOKENIZERS_PARALLELISM="true", OMP_NUM_THREADS="1")
    assert variables == ["ACTIVE", "true", "1"]
    assert threads == 1


def test_packages_are_hidden_from_an_import_and_from_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_and_unused.py").write_text("FOUND = True")
    monkeypatch.syspath_prepend(tmp_path)
    with _native.without("heavy_and_unused", "json"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("heavy_and_unused")
        assert importlib.import_module("json") is json  # it was there before
    assert importlib.import_module("heavy_and_unused").FOUND
