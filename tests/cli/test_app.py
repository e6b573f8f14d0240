"""Help, exit codes, and that a mistake gets a message."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.cli.app import PORT_DEFAULT, SNAPSHOTS_DEFAULT, STORE_DEFAULT
from recsys.config import Settings
from tests.cli.conftest import Run

COMMANDS = (
    "quickstart",
    "doctor",
    "train",
    "evaluate",
    "serve",
    "rank",
    "recommend",
    "explain",
    "import",
    "export",
    "status",
)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(run: Run, command: str) -> None:
    found = run(command, "--help")
    assert found.code == 0
    assert "--json" in found.out


def test_the_module_is_the_program() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "recsys.cli", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.startswith("recsys ")


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from recsys.cli import main
try:
    main(["--help"])
except SystemExit as left:
    assert left.code == 0
heavy = {"torch", "polars", "numpy", "lightgbm", "faiss", "grpc", "sqlalchemy"} & set(sys.modules)
assert not heavy, heavy
"""
    assert python(code).returncode == 0


@pytest.mark.parametrize("missing", ["typer", "pydantic"])
def test_what_is_not_installed_is_named(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from recsys.cli import main; main(['config', 'show'])"
    found = python(code)
    assert found.returncode == 3
    assert found.stderr.startswith(f"error: {missing} is not installed: pip install")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nosuch",), "nosuch"),
        (("recommend", "-k", "0"), "-k"),
        (("recommend", "-k", "many"), "Invalid value for '-k'"),
        (("recommend",), "no snapshot"),
        (("recommend", "--target", ""), "target=''"),
        (("status",), "no snapshot"),
        (("serve",), "no snapshot"),
        (("serve", "--port", "70000"), "port=70000"),
        (("serve", "--host", "0.0.0.0"), "host='0.0.0.0'"),
        (("serve", "--host", "0.0.0.0"), "--insecure"),
        (("rank",), "ITEM=[]"),
        (("train",), "nothing to learn from"),
        (("train", "shop", "--from-store"), "leave one of them out"),
        (("train", "nowhere", "--protocol", "foo"), "protocol='foo'"),
        (("evaluate", "nowhere", "--protocol", "foo"), "protocol='foo'"),
        (("train", "shop.db"), "sqlite:///shop.db"),
        (("train", "foo://host/name"), "unknown kind of source"),
        (("recommend", "--snapshots", "nowhere"), "no snapshot in nowhere: make one with `recsys train`"),
        (("export", "out", "--snapshots", "nowhere"), "no snapshot in nowhere: make one with `recsys train`"),
        (("train", "nowhere"), "source='nowhere'"),
        (("evaluate", "nowhere.csv"), "no such file"),
        (("import", "nowhere.csv"), "no such file"),
        (("export", "out", "--format", "xlsx"), "format='xlsx'"),
        (("config", "show", "--config", "nowhere.toml"), "config='nowhere.toml'"),
    ],
)
def test_a_mistake_is_named(run: Run, arguments: tuple[str, ...], said: str) -> None:
    found = run(*arguments)
    assert found.code == 2
    assert said in found.err


def test_a_file_that_cannot_be_written_is_a_failure(run: Run) -> None:
    found = run("config", "show", "--json", "no/such/folder/out.json")
    assert found.code == 1
    assert "no/such/folder/out.json" in found.err


def test_a_server_that_does_not_start_leaves_garbage_collected(run: Run, tmp_path: Path) -> None:
    """Streams of gRPC hang in circles until they are collected: without it a server refuses the hundred-and-first."""
    assert run("serve", "--snapshots", str(tmp_path / "none")).code != 0
    assert gc.isenabled()


def test_nobody_answers(run: Run) -> None:
    found = run("recommend", "--target", "127.0.0.1:1")
    assert found.code == 1
    assert "no server answers at 127.0.0.1:1; start one with `recsys serve`" in found.err


def test_help_shows_the_defaults_that_hold(run: Run) -> None:
    settings = Settings()
    assert str(settings.paths.snapshots) == SNAPSHOTS_DEFAULT
    assert settings.paths.store == STORE_DEFAULT
    assert str(settings.server.port) == PORT_DEFAULT
    said = run("serve", "--help").out
    assert all(default in said for default in (SNAPSHOTS_DEFAULT, STORE_DEFAULT, PORT_DEFAULT))


def test_a_missing_driver_is_something_not_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    found = run("train", "mysql://somebody:secret@host/shop")
    assert found.code == 3
    assert "pip install mysqlclient" in found.err
    assert "secret" not in found.err


def test_asking_makes_no_store(run: Run, tmp_path: Path) -> None:
    run("recommend")
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_every_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    assert [command for command in COMMANDS if f"| `{command}" not in page] == []
