"""`recsys token`, and no secret where others could see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recsys.serve.auth.tokens import Tokens, read_tokens
from recsys.serve.caller import Scope
from tests.cli.conftest import Run


def test_a_token_is_made_shown_once_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    arguments = ("--file", file, "--tenant", "shop", "--scope", "rank", "--scope", "read")
    made = json.loads(run("token", "new", *arguments, "--days", "30", "--json", "-").out)
    caller = Tokens(read_tokens(file)).authenticate(made["token"])
    assert (caller.tenant, caller.scopes) == ("shop", {Scope.RANK, Scope.READ})
    second = run("token", "new", *arguments)
    assert second.out.startswith("lr_")
    listed = run("token", "list", "--file", file)
    assert made["id"] in listed.out
    assert "never" in listed.out
    assert made["token"].split("_", 2)[2] not in listed.out
    assert run("token", "revoke", made["id"], "--file", file).code == 0
    assert made["id"] not in run("token", "list", "--file", file).out
    assert run("token", "revoke", made["id"], "--file", file).code == 2


def test_a_wrong_scope_names_the_right_ones(run: Run, tmp_path: Path) -> None:
    result = run("token", "new", "--file", tmp_path / "t.json", "--tenant", "shop", "--scope", "all")
    assert result.code == 2
    assert "rank, read, write, admin, erase" in result.err
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("password", ["secret", "s@cret", "s:e/cret"])
def test_a_password_among_the_arguments_is_refused_and_not_repeated(run: Run, password: str) -> None:
    result = run("serve", "--store", f"postgresql://u:{password}@127.0.0.1/d")
    assert result.code == 2
    assert "RECSYS_PATHS__STORE" in result.err
    assert password not in result.err + result.out


def test_config_show_hides_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_PATHS__STORE", "postgresql://u:s@cret@127.0.0.1/d")
    result = run("config", "show", "--json", "-")
    assert "cret" not in result.out
    assert json.loads(result.out)["paths.store"]["value"] == "postgresql://u:***@127.0.0.1/d"


def test_beyond_loopback_the_flags_that_help_are_named(run: Run) -> None:
    result = run("serve", "--host", "0.0.0.0", "--tls-certificate", "c.pem", "--tls-key", "k.pem")
    assert result.code == 2
    assert "--access" in result.err
