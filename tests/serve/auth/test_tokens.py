"""Static tokens: only their hash is kept, in a file for nobody else, and what is revoked is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recsys.errors import InvalidInput, NotFound, Unauthenticated
from recsys.serve.auth.tokens import Tokens, add_token, new_token, read_tokens, remove_token
from recsys.serve.caller import Scope


def test_a_token_opens_its_tenant_and_nothing_else_does() -> None:
    token, entry = new_token("shop", [Scope.RANK, Scope.READ])
    tokens = Tokens([entry])
    caller = tokens.authenticate(token)
    assert (caller.tenant, caller.scopes) == ("shop", {Scope.RANK, Scope.READ})
    assert caller.name == f"token {entry.id}"
    _, other = new_token("shop", [Scope.RANK])
    for wrong in ("", "lr_", "lr__", f"lr_{entry.id}", f"lr_{entry.id}_", token[:-1], f"{token}x", token.upper(), "é"):
        with pytest.raises(Unauthenticated):
            tokens.authenticate(wrong)
    with pytest.raises(Unauthenticated):
        Tokens([other]).authenticate(token)
    with pytest.raises(Unauthenticated):
        tokens.authenticate(f"lr_{entry.id}_{entry.sha256}")  # whoever steals the file has no token


def test_the_secret_is_long_and_not_kept() -> None:
    token, entry = new_token("shop", [Scope.RANK])
    secret = token.split("_", 2)[2]
    assert len(secret) >= 43  # 256 bits
    assert secret not in repr(entry)
    assert new_token("shop", [Scope.RANK])[0] != token


def test_expiry_counts_at_each_call() -> None:
    past, future = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    token, entry = new_token("shop", [Scope.RANK], past)
    with pytest.raises(Unauthenticated, match="expired"):
        Tokens([entry]).authenticate(token)
    token, entry = new_token("shop", [Scope.RANK], future)
    assert Tokens([entry]).authenticate(token).tenant == "shop"


def test_the_file_is_private_and_keeps_hashes(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    made = [new_token("shop", [Scope.RANK]), new_token("mall", [Scope.ADMIN], datetime.now(UTC) + timedelta(days=1))]
    for _, entry in made:
        add_token(file, entry)
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_tokens(file) == tuple(entry for _, entry in made)
    assert not any(token.split("_", 2)[2] in file.read_text() for token, _ in made)
    remove_token(file, made[0][1].id)
    assert read_tokens(file) == (made[1][1],)
    with pytest.raises(NotFound):
        remove_token(file, made[0][1].id)
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.json"]


@pytest.mark.parametrize("mode", [0o604, 0o606, 0o620, 0o660, 0o644, 0o777])
def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "tokens.json"
    add_token(file, new_token("shop", [Scope.RANK])[1])
    file.chmod(mode)
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_tokens(file)


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "00"},
        {"sha256": "zz" * 32},
        {"id": ""},
        {"id": "a_b"},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"expires": "tomorrow"},
        {"expires": "2030-01-01T00:00:00"},
        {"tenant": 3},
    ],
    ids=str,
)
def test_a_wrong_entry_is_named_and_its_value_not_shown(tmp_path: Path, change: dict[str, object]) -> None:
    entry = {"id": "k1", "sha256": "ab" * 32, "tenant": "shop", "scopes": ["rank"]} | change
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"tokens": [entry]}))
    file.chmod(0o600)
    with pytest.raises(InvalidInput) as caught:
        read_tokens(file)
    assert "tokens.0" in str(caught.value)
    assert "ab" * 32 not in str(caught.value)


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    _, entry = new_token("shop", [Scope.RANK])
    file = tmp_path / "tokens.json"
    add_token(file, entry)
    add_token(file, entry)
    with pytest.raises(InvalidInput, match="twice"):
        read_tokens(file)
