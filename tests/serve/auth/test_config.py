"""The access file: private, complete, and each tenant in a place of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.errors import InvalidInput
from recsys.serve.auth import Authenticator, load_access
from recsys.serve.caller import Scope

TOKENS = 'tokens = "tokens.json"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "access.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_root_gives_each_tenant_a_folder(tmp_path: Path) -> None:
    config = load_access(write(tmp_path, f'{TOKENS}root = "data"\n[tenants.shop]\n[tenants.mall]\n'))
    assert config.tenants["shop"].snapshots == tmp_path / "data" / "shop" / "snapshots"
    assert config.tenants["mall"].store == str(tmp_path / "data" / "mall" / "events.sqlite")
    assert config.tokens == tmp_path / "tokens.json"
    assert config.usage == tmp_path / "data" / ".usage"


def test_everything_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_STORE", "postgresql://u:secret@db/shop")
    (tmp_path / "jwks.json").write_text("{}")
    text = f"""{TOKENS}
[jwt]
jwks = "jwks.json"
issuer = "https://id.example"
audience = "longrec"
algorithms = ["ES256"]

[certificates."a.example"]
tenant = "shop"
scopes = ["rank"]

[tenants.shop]
snapshots = "s"
store = "env:SHOP_STORE"
rates = {{ rank = 2.5 }}
quotas = {{ events_per_day = 10, items = 20 }}
"""
    config = load_access(write(tmp_path, text))
    shop = config.tenants["shop"]
    assert shop.store == "postgresql://u:secret@db/shop"
    assert "secret" not in repr(config)
    assert (shop.rates, shop.quotas.items) == ({Scope.RANK: 2.5}, 20)
    assert config.jwt is not None
    assert config.jwt.algorithms == ("ES256",)
    (tmp_path / "tokens.json").touch(0o600)
    (tmp_path / "tokens.json").write_text('{"tokens": []}')
    with pytest.raises(InvalidInput, match="jwks"):
        Authenticator(config)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[tenants.shop]\nsnapshots = 's'\nstore = 'e'\n", "tokens"),
        (f"{TOKENS}root = 'd'\ntenants = {{}}\n", "tenants"),
        (f"{TOKENS}root = 'd'\n[tenants.Shop]\n", "tenants"),
        (f"{TOKENS}root = 'd'\n[tenants.'../up']\n", "tenants"),
        (f"{TOKENS}root = 'd'\n[tenants.'.usage']\n", "tenants"),
        (f"{TOKENS}[tenants.shop]\nstore = 'x'\n", "tenants.shop"),
        (f"{TOKENS}root = 'd'\nroots = 'e'\n[tenants.shop]\n", "roots"),
        (f"{TOKENS}root = 'd'\n[tenants.shop]\nquota = 3\n", "tenants.shop.quota"),
        (f"{TOKENS}root = 'd'\n[tenants.shop.rates]\nrank = 0\n", "tenants.shop.rates.rank"),
        (f"{TOKENS}root = 'd'\n[tenants.shop.rates]\nall = 1\n", "tenants.shop.rates"),
        (f"{TOKENS}root = 'd'\n[tenants.shop.quotas]\nitems = -1\n", "quotas.items"),
        (f"{TOKENS}root = 'd'\n[tenants.shop]\nstore = 'env:NOT_SET_ANYWHERE'\n", "tenants.shop.store"),
        (
            f"{TOKENS}root = 'd'\n[tenants.shop]\n[certificates.a]\ntenant = 'mall'\nscopes = ['rank']\n",
            "certificates.a",
        ),
        (f"{TOKENS}root = 'd'\n[tenants.shop]\n[jwt]\njwks = 'j'\n", "issuer"),
        (f"{TOKENS}root = 'd'\n[tenants.shop]\n[jwt]\nsecret = 'j'\n", "jwt.secret"),
        (
            f"{TOKENS}root = 'd'\n[tenants.shop]\n[jwt]\njwks='j'\nissuer='i'\naudience='a'\nalgorithms=['HS256']\n",
            "algorithms",
        ),
        ("no toml", "access"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_access(write(tmp_path, text))
    assert any(field in each.field for each in caught.value.violations), caught.value


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("store = 'a'\nsnapshots = 's'", "store = 'a'\nsnapshots = 't'"),
        ("store = 'a'\nsnapshots = 's'", "store = './x/../a'\nsnapshots = 't'"),
        ("store = 'sqlite:////tmp/a'\nsnapshots = 's'", "store = '/tmp/a'\nsnapshots = 't'"),
        (
            "store = 'postgresql://u:p@db/x'\nsnapshots = 's'",
            "store = 'postgresql+psycopg://v:q@DB/x?a=b'\nsnapshots = 't'",
        ),
        ("store = 'a'\nsnapshots = 's'", "store = 'b'\nsnapshots = 's'"),
        ("store = 'a'\nsnapshots = 's'", "store = 'b'\nsnapshots = 's/in/it'"),
        ("store = 'a'\nsnapshots = 's/in'", "store = 'b'\nsnapshots = './s'"),
    ],
)
def test_two_tenants_never_share_a_place(tmp_path: Path, one: str, two: str) -> None:
    with pytest.raises(InvalidInput, match=r"tenants\.two"):
        load_access(write(tmp_path, f"{TOKENS}[tenants.one]\n{one}\n[tenants.two]\n{two}\n"))


def test_a_link_to_anothers_folder_is_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "t").symlink_to(tmp_path / "s")
    text = "[tenants.one]\nstore='a'\nsnapshots='s'\n[tenants.two]\nstore='b'\nsnapshots='t'\n"
    with pytest.raises(InvalidInput, match=r"tenants\.two\.snapshots"):
        load_access(write(tmp_path, f"{TOKENS}{text}"))


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = write(tmp_path, f'{TOKENS}root = "d"\n[tenants.shop]\n')
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        load_access(path)


def test_a_wrong_value_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_access(
            write(tmp_path, f"{TOKENS}[tenants.shop]\nsnapshots = 's'\nstore = ['postgresql://u:secret@h/d']\n")
        )
    assert "secret" not in str(caught.value)
