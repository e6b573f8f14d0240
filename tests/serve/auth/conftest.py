from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from recsys.client import RecsysClient
from recsys.serve import Home, Server
from recsys.serve.auth.tokens import add_token, new_token
from recsys.serve.caller import Scope
from tests.serve.conftest import QUICK
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore


@dataclass
class Keep:
    """A server with an access file, and what is behind it."""

    server: Server
    folder: Path
    stores: Mapping[str, FakeStore]
    target: str
    clients: list[RecsysClient]
    given: dict[str, str] = field(default_factory=dict)
    """A token of each tenant that the server knows from the start."""

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.json"

    def token(self, tenant: str, *scopes: Scope) -> str:
        """A token that a running server knows within a second, with `at_once` at once."""
        token, entry = new_token(tenant, scopes or tuple(Scope))
        add_token(self.tokens, entry)
        return token

    def client(self, token: str | None = None) -> RecsysClient:
        self.clients.append(RecsysClient(self.target, token=token, timeout_s=20))
        return self.clients[-1]


MakeKeep = Callable[..., Keep]


@pytest.fixture
def make_keep(tmp_path: Path) -> Iterator[MakeKeep]:
    """`make_keep({tenant: engine}, homes={tenant: more of its Home}, **config)`."""
    made: list[Keep] = []

    def make(
        engines: Mapping[str, FakeEngine], *, homes: Mapping[str, Mapping[str, Any]] | None = None, **config: Any
    ) -> Keep:
        folder = tmp_path / f"keep-{len(made)}"
        folder.mkdir()
        access = folder / "access.toml"
        tables = "".join(f"[tenants.{name}]\n" for name in engines)
        access.write_text(f'tokens = "tokens.json"\nroot = "data"\n{tables}')
        access.chmod(0o600)
        stores = {name: FakeStore() for name in engines}
        keep = Keep(server=None, folder=folder, stores=stores, target="", clients=[])  # type: ignore[arg-type]
        for name in engines:
            keep.given[name] = keep.token(name)
        keep.server = Server(
            replace(QUICK, access_path=access, **config),
            tenants={
                name: Home(shelf=FakeShelf(engine), store=stores[name], **(homes or {}).get(name, {}))
                for name, engine in engines.items()
            },
        )
        keep.target = f"127.0.0.1:{keep.server.port}"
        made.append(keep)
        keep.server.start()
        keep.server.load()
        return keep

    yield make
    for keep in made:
        for client in keep.clients:
            client.close()
        keep.server.stop()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed files are seen at once, not after a second."""
    monkeypatch.setattr("recsys.serve.auth.files.CHECK_S", 0.0)


def code_of(target: str, method: str, metadata: list[tuple[str, str]] | None = None, data: bytes = b"") -> Any:
    """The status of one call with these headers."""
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(method).future(data, timeout=20, metadata=metadata)
        return call.code()
