"""`recsys serve --access`: real snapshots and stores, one process, tenants apart."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys.client import RecsysClient
from recsys.errors import NotFound, Unavailable
from recsys.serve.auth.tokens import add_token, new_token
from recsys.serve.caller import Scope
from recsys.types import Event, User
from tests.cli.conftest import World


def test_each_tenant_meets_its_own_store_and_snapshots(world: World, tmp_path: Path) -> None:
    for tenant in ("shop", "mall"):
        shutil.copytree(world.snapshots, tmp_path / "data" / tenant / "snapshots")
    access = tmp_path / "access.toml"
    access.write_text('tokens = "tokens.json"\nroot = "data"\n[tenants.shop]\n[tenants.mall]\n[tenants.bare]\n')
    access.chmod(0o600)
    tokens = {}
    for tenant in ("shop", "mall", "bare"):
        tokens[tenant], entry = new_token(tenant, tuple(Scope))
        add_token(tmp_path / "tokens.json", entry)
    command = [sys.executable, "-m", "recsys.cli", "serve", "--access", str(access), "--port", "0"]
    found = tmp_path / "ready.json"
    log = (tmp_path / "log").open("w")
    with subprocess.Popen([*command, "--json", str(found), "--config", str(world.config)], stderr=log) as process:
        try:
            target = f"127.0.0.1:{_port(process, found)}"
            shop, mall, bare = (RecsysClient(target, token=tokens[name], timeout_s=30) for name in tokens)
            with shop, mall, bare:
                shop.write_events([Event(user_id="ada", item_id="a0-1", event_type="view", timestamp=1.7e9)])
                assert shop.list_memories("ada").total == 1
                assert mall.list_memories("ada").total == 0
                ranking = shop.rank_items(User(user_id="ada"), ["a0-1", "a0-2"])
                with pytest.raises(NotFound):
                    mall.explain(ranking.ranking_id)
                with pytest.raises(Unavailable):
                    bare.rank_items(User(), ["a0-1"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            log.close()
    assert process.returncode == 0
    written = (tmp_path / "log").read_text()
    assert "tenant not served" in written
    assert "ada" not in written
    assert all(json.loads(line) for line in written.splitlines())


def _port(process: subprocess.Popen[bytes], found: Path) -> int:
    end = time.monotonic() + 120
    while not (found.exists() and found.read_text().strip()):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    return int(json.loads(found.read_text())["port"])
