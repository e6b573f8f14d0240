"""Defaults < file < environment < flags, and nothing unknown anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.config import load_settings
from recsys.errors import InvalidInput


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "longrec.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def test_each_layer_covers_the_one_below(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[server]\nport = 1\nrecommend_depth = 7\n[ranker]\nmax_trees = 3\n")
    monkeypatch.setenv("RECSYS_SERVER__PORT", "2")
    monkeypatch.setenv("RECSYS_SERVER__WORK__WORKERS", "5")
    loaded = load_settings(flags={"ranker.max_trees": 9, "server.host": None})
    server = loaded.settings.server
    assert (server.port, server.recommend_depth, server.work.workers) == (2, 7, 5)
    assert (loaded.settings.ranker.max_trees, server.host) == (9, "127.0.0.1")
    assert server.work.queue > 0
    origins = {key: origin for key, (_, origin) in loaded.origins.items()}
    assert origins["server.port"] == origins["server.work.workers"] == "environment"
    assert origins["server.recommend_depth"] == "longrec.toml"
    assert origins["ranker.max_trees"] == "flag"
    assert origins["server.host"] == "default"


def test_a_named_file_replaces_the_one_here() -> None:
    write("[ranker]\nseed = 1\n")
    other = write("[stages]\nseed = 7\n", "other.toml")
    loaded = load_settings(other)
    assert loaded.settings.stages.seed == 7
    assert loaded.origins["ranker.seed"][1] == "default"


@pytest.mark.parametrize(
    "text", ["[server]\nprot = 1\n", "[sever]\nport = 1\n", "server = 3\n", "[server.work]\nx = 1\n"]
)
def test_an_unknown_key_in_the_file_is_named(text: str) -> None:
    write(text)
    with pytest.raises(InvalidInput, match=r"(server\.prot|sever\.port|server|server\.work\.x)=.*unknown key"):
        load_settings()


def test_an_unknown_key_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_SERVER__PROT", "1")
    with pytest.raises(InvalidInput, match=r"server\.prot='1': unknown key in the environment"):
        load_settings()


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_PORT", "tcp://10.0.0.1:50051")
    monkeypatch.setenv("RECSYS_CONFIG", "elsewhere.toml")
    assert load_settings().settings.server.port == 50_051


def test_a_value_of_another_type_is_named_with_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_SERVER__PORT", "many")
    with pytest.raises(InvalidInput, match=r"server\.port='many': .*integer.*\(from the environment\)"):
        load_settings()


def test_what_the_owner_refuses_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"port=70000"):
        load_settings(flags={"server.port": 70_000})


def test_a_file_that_is_no_toml_is_named() -> None:
    write("server]")
    with pytest.raises(InvalidInput, match=r"config='longrec\.toml': cannot be read"):
        load_settings()
