"""TLS and mTLS by real handshakes; certificates change while the server runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme

from recsys.client import RecsysClient, TlsConfig
from recsys.errors import Forbidden, InvalidInput, Unauthenticated, Unavailable
from recsys.serve import Home, Server, ServerConfig
from recsys.serve.auth.tokens import add_token, new_token
from recsys.serve.caller import Scope
from recsys.serve.tls import TlsFiles
from recsys.types import User
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore


def put(folder: Path, name: str, certificate: trustme.LeafCert) -> tuple[Path, Path]:
    """(certificate chain, key), replaced at once as a renewing tool does it."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    new = folder / "new"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(new), append=blob is not certificate.cert_chain_pems[0])
    new.replace(chain)
    new.touch(0o600)
    certificate.private_key_pem.write_to_path(str(new))
    new.replace(key)
    return chain, key


def ca_file(folder: Path, name: str, authority: trustme.CA) -> Path:
    authority.cert_pem.write_to_path(str(folder / name))
    return folder / name


def client(server: Server, tls: TlsConfig | None, token: str | None = None) -> RecsysClient:
    return RecsysClient(f"localhost:{server.port}", tls=tls, token=token, timeout_s=20)


def items(server: Server, tls: TlsConfig | None, token: str | None = None) -> int:
    with client(server, tls, token) as asked:
        return asked.serving_state().num_items


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.serve.auth.files.CHECK_S", 0.0)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def serving(config: ServerConfig) -> Server:
    return Server(config, shelf=FakeShelf(FakeEngine()), store=FakeStore())


def test_a_renewed_certificate_serves_without_a_restart(tmp_path: Path, authority: trustme.CA, at_once: None) -> None:
    chain, key = put(tmp_path, "server", authority.issue_cert("localhost"))
    config = ServerConfig(host="localhost", port=0, tls_certificate_path=chain, tls_key_path=key, lame_duck_s=0.0)
    old = TlsConfig(ca_path=ca_file(tmp_path, "old.pem", authority))
    newer = trustme.CA()
    new = TlsConfig(ca_path=ca_file(tmp_path, "new.pem", newer))
    with serving(config) as server:
        assert items(server, old) == 40
        with pytest.raises(Unavailable):
            items(server, new)
        with client(server, old) as kept:
            assert kept.serving_state().num_items == 40
            put(tmp_path, "server", newer.issue_cert("localhost"))
            assert items(server, new) == 40
            with pytest.raises(Unavailable):
                items(server, old)
            assert kept.serving_state().num_items == 40  # a connection outlives the change
        # Half a renewal, a damaged file, a key that others can read: the last sound pair goes on.
        shutil.copy(chain, tmp_path / "sound.pem")
        other = newer.issue_cert("localhost")
        other.private_key_pem.write_to_path(str(key))
        assert items(server, new) == 40
        chain.write_text("no certificate")
        assert items(server, new) == 40
        put(tmp_path, "server", newer.issue_cert("localhost"))
        key.chmod(0o644)
        assert items(server, new) == 40


@pytest.fixture
def mutual(tmp_path: Path, authority: trustme.CA, at_once: None) -> Iterator[tuple[Server, Path]]:
    chain, key = put(tmp_path, "server", authority.issue_cert("localhost"))
    access = tmp_path / "access.toml"
    access.write_text(
        'tokens = "tokens.json"\nroot = "data"\n[tenants.shop]\n[tenants.mall]\n'
        '[certificates."ranker.shop.example"]\ntenant = "shop"\nscopes = ["rank", "read"]\n'
        '[certificates."ranker.mall.example"]\ntenant = "mall"\nscopes = ["read"]\n'
    )
    access.chmod(0o600)
    add_token(tmp_path / "tokens.json", new_token("shop", [Scope.READ])[1])
    config = ServerConfig(
        host="localhost",
        port=0,
        lame_duck_s=0.0,
        tls_certificate_path=chain,
        tls_key_path=key,
        tls_client_ca_path=ca_file(tmp_path, "clients.pem", authority),
        access_path=access,
    )
    engines = {"shop": FakeEngine(), "mall": FakeEngine(catalogue={})}
    homes = {name: Home(shelf=FakeShelf(engine), store=FakeStore()) for name, engine in engines.items()}
    with Server(config, tenants=homes) as server:
        yield server, tmp_path


def identity(folder: Path, authority: trustme.CA, *names: str) -> TlsConfig:
    name = names[0] if names else "nobody"
    chain, key = put(folder, name, authority.issue_cert(*(names or ("nobody.example",))))
    return TlsConfig(ca_path=folder / "clients.pem", certificate_path=chain, key_path=key)


def test_a_client_certificate_names_its_tenant_and_scopes(mutual: tuple[Server, Path], authority: trustme.CA) -> None:
    server, folder = mutual
    shop = identity(folder, authority, "ranker.shop.example")
    assert items(server, shop) == 40
    assert items(server, identity(folder, authority, "ranker.mall.example")) == 0
    with client(server, shop) as asked, pytest.raises(Forbidden):
        asked.list_snapshots()
    with client(server, identity(folder, authority, "ranker.mall.example")) as asked, pytest.raises(Forbidden):
        asked.rank_items(User(), ["item-1"])


def test_other_certificates_open_nothing(mutual: tuple[Server, Path], authority: trustme.CA) -> None:
    server, folder = mutual
    with pytest.raises(Unavailable):  # none at all: no handshake
        items(server, TlsConfig(ca_path=folder / "clients.pem"))
    with pytest.raises(Unavailable):  # of another authority
        items(server, identity(folder, trustme.CA(), "ranker.shop.example"))
    with pytest.raises(Unauthenticated):
        items(server, identity(folder, authority))
    with pytest.raises(Unauthenticated):
        items(server, identity(folder, authority, "ranker.shop.example", "ranker.mall.example"))


def test_token_and_certificate_must_agree(mutual: tuple[Server, Path], authority: trustme.CA) -> None:
    server, folder = mutual
    tokens = {}
    for tenant in ("shop", "mall"):
        tokens[tenant], entry = new_token(tenant, [Scope.READ, Scope.ADMIN])
        add_token(folder / "tokens.json", entry)
    nobody, shop = identity(folder, authority), identity(folder, authority, "ranker.shop.example")
    assert items(server, nobody, tokens["mall"]) == 0
    with client(server, shop, tokens["shop"]) as asked:
        assert len(asked.list_snapshots().snapshots) == 1
    with pytest.raises(Unauthenticated):
        items(server, shop, tokens["mall"])
    with pytest.raises(Unauthenticated):  # a wrong token is not saved by a right certificate
        items(server, shop, "lr_x_y")


def test_unusable_files_are_named_before_anything_listens(tmp_path: Path, authority: trustme.CA) -> None:
    chain, key = put(tmp_path, "server", authority.issue_cert("localhost"))
    other = put(tmp_path, "other", authority.issue_cert("localhost"))[1]
    TlsFiles(certificate=chain, key=key, client_ca=chain).configuration()
    empty = tmp_path / "empty.pem"
    empty.touch(0o600)
    for files, field in [
        (TlsFiles(certificate=chain, key=other), "tls_key_path"),
        (TlsFiles(certificate=chain, key=empty), "tls_key_path"),
        (TlsFiles(certificate=empty, key=key), "tls_key_path"),
        (TlsFiles(certificate=tmp_path / "none", key=key), "tls_certificate_path"),
        (TlsFiles(certificate=chain, key=tmp_path / "none"), "tls_key_path"),
        (TlsFiles(certificate=chain, key=key, client_ca=empty), "tls_client_ca_path"),
    ]:
        with pytest.raises(InvalidInput, match=field):
            files.configuration()
    key.chmod(0o640 | 0o004)
    with pytest.raises(InvalidInput, match="chmod 600"):
        serving(ServerConfig(port=0, tls_certificate_path=chain, tls_key_path=key))


def test_beyond_loopback_a_credential_is_demanded(tmp_path: Path) -> None:
    pair = {"tls_certificate_path": tmp_path / "c", "tls_key_path": tmp_path / "k"}
    with pytest.raises(InvalidInput, match="access_path"):
        ServerConfig(host="0.0.0.0", **pair)
    with pytest.raises(InvalidInput, match="host"):
        ServerConfig(host="0.0.0.0", access_path=tmp_path / "a")
    ServerConfig(host="0.0.0.0", access_path=tmp_path / "a", **pair)
    ServerConfig(host="0.0.0.0", insecure=True)
    with pytest.raises(InvalidInput, match="tls_client_ca_path"):
        ServerConfig(tls_client_ca_path=tmp_path / "ca")


@pytest.mark.parametrize("target", ["example.org:1", "dns:///10.0.0.1:1", "[2001:db8::1]:1", "10.0.0.1:1"])
def test_a_client_sends_no_token_in_plain_text_to_others(target: str) -> None:
    with pytest.raises(InvalidInput, match="plain text"):
        RecsysClient(target, token="lr_a_b")
    RecsysClient(target, token="lr_a_b", tls=TlsConfig()).close()
    RecsysClient(target).close()


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.1:1", "[::1]:1", "dns:///localhost:1", "unix:/tmp/x"])
def test_on_this_machine_it_does(target: str) -> None:
    RecsysClient(target, token="lr_a_b").close()


@pytest.mark.parametrize("token", ["a b", "a\nb", "é", "a\x00"])
def test_a_token_that_no_header_carries_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(InvalidInput, match="printable") as caught:
        RecsysClient("localhost:1", token=token)
    assert token not in str(caught.value)


def test_the_environment_gives_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.client.channel import credentials_from_environment, metadata

    assert credentials_from_environment().tls is None
    file = tmp_path / "token"
    file.write_text("lr_one_x\n")
    monkeypatch.setenv("RECSYS_TOKEN_FILE", str(file))
    found = credentials_from_environment()
    assert metadata(found.token) == [("authorization", "Bearer lr_one_x")]
    file.write_text("lr_two_x\n")
    assert metadata(found.token) == [("authorization", "Bearer lr_two_x")]
    monkeypatch.setenv("RECSYS_TOKEN", "lr_three_x")
    monkeypatch.setenv("RECSYS_CA", str(tmp_path / "ca.pem"))
    found = credentials_from_environment()
    assert found.token == "lr_three_x"
    assert found.tls == TlsConfig(ca_path=tmp_path / "ca.pem")


def test_plain_text_does_not_reach_a_tls_port(tmp_path: Path, authority: trustme.CA) -> None:
    chain, key = put(tmp_path, "server", authority.issue_cert("localhost"))
    config = ServerConfig(host="localhost", port=0, tls_certificate_path=chain, tls_key_path=key, lame_duck_s=0.0)
    with serving(config) as server, grpc.insecure_channel(f"localhost:{server.port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/recsys.v1.AdminService/GetServingState")(b"", timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
