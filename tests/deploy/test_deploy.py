"""The files of deploy/: they parse, fit together, and speak of metrics, settings and options that exist."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.cli.app import app
from recsys.config import load_settings
from recsys.serve.ops.metrics import Figures, Metrics
from recsys.serve.ops.replay import ReplayReport

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def exported() -> Mapping[str, set[str]]:
    """Labels by the name of each sample that a server can export."""
    report = ReplayReport(
        num_requests=1, num_errors=0, overlap=1.0, correlation=1.0, old_ms=1.0, new_ms=1.0, latency_ratio=1.0
    )
    figures = Figures(
        ready=True,
        snapshots={"s1": {"encoder": "e"}},
        created=1.0,
        watermark=1.0,
        num_users=1,
        num_items=1,
        num_memories=1,
        bytes_of={"ranking_log": 1},
        inside={"work": 0},
        kept_rankings=0,
        logged_requests=0,
        replays=[report],
    )
    metrics = Metrics(lambda: figures)
    for instrument in vars(metrics).values():
        if names := getattr(instrument, "_labelnames", ()):
            instrument.labels(*["x"] * len(names))
    return {
        sample.name: set(sample.labels) - {"le"} for family in metrics.registry.collect() for sample in family.samples
    }


def expressions() -> Iterator[str]:
    for rule in load("alerts.yml")["groups"][0]["rules"]:
        yield rule["expr"]
    for panel in json.loads((DEPLOY / "grafana" / "longrec.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_alerts_and_dashboard_speak_of_metrics_that_exist() -> None:
    known = exported()
    found = set()
    for expression in expressions():
        for name, selector in re.findall(r"\b((?:recsys|process)_[a-z_]+)(?:\{([^}]*)\})?", expression):
            assert name in known, f"{name} of {expression}"
            labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector)) - {"instance", "job"}
            assert labels <= known[name], f"{name}{{{selector}}}"
            found.add(name)
    assert len(found) > 15


def test_every_alert_is_in_the_runbook() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    for rule in load("alerts.yml")["groups"][0]["rules"]:
        assert f"| {rule['alert']} |" in text


def test_every_metric_is_in_the_runbook() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    families = {re.sub(r"_(bucket|sum|count|total|created|info)$", "", name) for name in exported()}
    for name in sorted(name for name in families if name.startswith("recsys_")):
        assert f"`{name}" in text, name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_reads_its_files() -> None:
    for command in (["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"]):
        done = subprocess.run(["promtool", *command], cwd=DEPLOY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_reads_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "longrec.service"
    unit.write_text((DEPLOY / "longrec.service").read_text().replace("/opt/longrec/bin/recsys", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True, check=False
    )
    assert float(re.findall(r"exposure level for longrec.service: ([0-9.]+)", judged.stdout)[0]) < 2.0


def test_the_unit_and_the_containers_use_options_that_exist() -> None:
    (serve,) = [each for each in app.registered_commands if (each.name or each.callback.__name__) == "serve"]
    names = set(serve.callback.__annotations__)
    unit = (DEPLOY / "longrec.service").read_text()
    compose = " ".join(load("compose.yaml")["services"]["recsys"]["command"])
    for option in re.findall(r"--([a-z-]+)", f"{re.findall('ExecStart=.*', unit)[0]} {compose}"):
        assert option.replace("-", "_") in names, option


def test_the_containers_settings_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = load("compose.yaml")["services"]["recsys"]["environment"]
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    for name, value in re.findall(r"(RECSYS_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()):
        if name not in environment:
            monkeypatch.setenv(name, value)
    settings = load_settings(DEPLOY / "longrec.toml").settings
    assert (settings.server.admin_http.host, settings.server.admin_http.port) == ("0.0.0.0", 9090)
    assert settings.paths.store.startswith("postgresql://")
    assert settings.server.replay.path is not None


def test_what_compose_mounts_is_there() -> None:
    compose = load("compose.yaml")
    services, made = compose["services"], {"./secrets", "../data"}
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            known = source in compose["volumes"] or source in made or (DEPLOY / source).exists()
            assert known, volume
        for needed in service.get("depends_on", ()):
            assert needed in services
        if "env_file" in service:
            assert Path(service["env_file"]).parent == Path("secrets")
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "nothing is open to others by default"
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
    targets = load("prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert [each.split(":")[0] for each in targets] == ["recsys"]


def test_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "secrets.sh", tmp_path)
    seen = []
    for _ in range(2):
        subprocess.run(["sh", tmp_path / "secrets.sh"], check=True)
        seen.append({path.name: path.read_text().strip() for path in (tmp_path / "secrets").iterdir()})
    assert seen[0] == seen[1]
    named = {name: text.split("=") for name, text in seen[0].items()}
    assert named["recsys.env"][0] == "PGPASSWORD"
    assert named["recsys.env"][1] == named["postgres.env"][1] != named["grafana.env"][1]
    assert all(len(password) == 48 for _, password in named.values())
    used = {Path(each["env_file"]).name for each in load("compose.yaml")["services"].values() if "env_file" in each}
    assert used == set(named)
    for path in (tmp_path / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_image_runs_as_nobody_in_particular_and_holds_what_it_copies() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(stages) == {"base", "packages", "build-cpu", "build-gpu", "server", "gpu", "cpu"}
    assert re.search(r"^USER 10001:10001$", stages["server"], re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", stages["server"], re.MULTILINE)
    assert text.rstrip().splitlines()[-2] == "FROM server AS cpu"  # what is built where no target is named
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"]
    for line in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == each or source.startswith(f"{each}/") for each in kept), source
