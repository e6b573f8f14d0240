"""The access file: which credentials there are, which tenants, and how much each of them may ask for.

    tokens = "tokens.json"                    # static tokens, made by `recsys token new`
    root = "/var/lib/longrec"                 # a tenant lives in a folder of its name

    [jwt]
    jwks = "jwks.json"
    issuer = "https://id.example.com"
    audience = "longrec"

    [certificates."ranker.shop.example"]      # a name (SAN) in a client certificate
    tenant = "shop"
    scopes = ["rank"]

    [tenants.shop]
    store = "env:SHOP_STORE"                  # secrets come from the environment, or stand here: the file is private
    rates = { rank = 200, write = 50 }        # calls a second, by scope
    quotas = { events_per_day = 1_000_000, items = 100_000 }

Paths are relative to the file. It is read once, at the start; the files it names are read anew when they change.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from recsys.errors import InvalidInput, Violation, shorten
from recsys.serve.auth.files import read_private
from recsys.serve.auth.limits import QuotaConfig
from recsys.serve.caller import Scope

if TYPE_CHECKING:
    from recsys.serve.auth.webtokens import JwtConfig

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_FROM_ENVIRONMENT = "env:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a client certificate is good for."""

    tenant: str
    scopes: tuple[Scope, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantConfig:
    """A tenant's own store and snapshots, and its limits; no rate and no quota where none is named."""

    snapshots: Path
    store: str = field(repr=False)  # may hold a password
    rates: Mapping[Scope, float] = field(default_factory=dict)
    quotas: QuotaConfig = field(default_factory=QuotaConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """`usage` is the folder where what was used of quotas outlives a restart."""

    tenants: Mapping[str, TenantConfig]
    tokens: Path | None = None
    jwt: JwtConfig | None = None
    certificates: Mapping[str, Grant] = field(default_factory=dict)
    usage: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tenant:
    __pydantic_config__ = ConfigDict(extra="forbid")

    snapshots: Path | None = None
    store: str | None = None
    rates: dict[Scope, float] = field(default_factory=dict)
    quotas: QuotaConfig = field(default_factory=QuotaConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    __pydantic_config__ = ConfigDict(extra="forbid")

    tenants: dict[str, _Tenant]
    root: Path | None = None
    tokens: Path | None = None
    jwt: dict[str, Any] | None = None
    certificates: dict[str, Grant] = field(default_factory=dict)
    usage: Path | None = None


def load_access(path: Path) -> AccessConfig:
    """Reads and checks the access file. Raises InvalidInput, which names the key and never a store's value."""
    data = read_private(path, "access")
    try:
        given = _validated(_File, tomllib.loads(data.decode()), str(path))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput.of("access", str(path), f"is not TOML: {type(error).__name__}") from None
    folder = path.absolute().parent
    tenants = {name: _tenant(name, each, folder, given.root) for name, each in given.tenants.items()}
    _check_apart(tenants)
    config = AccessConfig(
        tenants=tenants,
        tokens=folder / given.tokens if given.tokens else None,
        jwt=_jwt(given.jwt, folder, str(path)) if given.jwt is not None else None,
        certificates=given.certificates,
        usage=folder / (given.usage or given.root / ".usage" if given.root else given.usage or ".usage"),
    )
    _check_credentials(config)
    return config


def _validated(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        # Without the input: it may be a secret at the wrong place.
        found = [(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors(include_input=False)]
        raise InvalidInput([Violation(key, shorten(where), reason) for key, reason in found]) from None


def _jwt(values: Mapping[str, Any], folder: Path, where: str) -> JwtConfig:
    from recsys.serve.auth.webtokens import JwtConfig

    unknown = values.keys() - JwtConfig.__dataclass_fields__.keys()
    if unknown:
        raise InvalidInput.of(f"jwt.{min(unknown)}", where, "unknown key")
    joined = {**values, "jwks": folder / str(values.get("jwks", ""))}
    config: JwtConfig = _validated(JwtConfig, joined, where)
    return config


def _tenant(name: str, given: _Tenant, folder: Path, root: Path | None) -> TenantConfig:
    if not _NAME.fullmatch(name):
        raise InvalidInput.of("tenants", name, "a name is up to 63 small letters, digits and -")
    home = folder / root / name if root else None
    if home is None and (given.snapshots is None or given.store is None):
        raise InvalidInput.of(f"tenants.{name}", name, "needs snapshots and store, or the file a root")
    for scope, rate in given.rates.items():
        if not 0 < rate < 1e9:
            raise InvalidInput.of(f"tenants.{name}.rates.{scope}", rate, "must be positive")
    return TenantConfig(
        snapshots=folder / given.snapshots if given.snapshots else _in(home, "snapshots"),
        store=_store(name, given.store, folder) if given.store else str(_in(home, "events.sqlite")),
        rates=given.rates,
        quotas=given.quotas,
    )


def _in(home: Path | None, name: str) -> Path:
    assert home is not None, "checked before"
    return home / name


def _store(name: str, given: str, folder: Path) -> str:
    if given.startswith(_FROM_ENVIRONMENT):
        variable = given.removeprefix(_FROM_ENVIRONMENT)
        given = os.environ.get(variable, "")
        if not given:
            raise InvalidInput.of(f"tenants.{name}.store", variable, "is not set in the environment")
    return given if "://" in given else str(folder / given)


def _check_apart(tenants: Mapping[str, TenantConfig]) -> None:
    """No two tenants share a place, by whatever name."""
    if not tenants:
        raise InvalidInput.of("tenants", {}, "at least one is needed")
    for (one, first), (two, second) in combinations(tenants.items(), 2):
        snapshots = first.snapshots.resolve(), second.snapshots.resolve()
        stores = _place(first.store), _place(second.store)
        if stores[0] == stores[1]:
            raise InvalidInput.of(f"tenants.{two}.store", two, f"is the store of {one}")
        if snapshots[0].is_relative_to(snapshots[1]) or snapshots[1].is_relative_to(snapshots[0]):
            raise InvalidInput.of(f"tenants.{two}.snapshots", str(snapshots[1]), f"holds, or lies in, those of {one}")


def _place(store: str) -> str:
    """What two names of one store have in common: a file, or a database on a host."""
    scheme, found, rest = store.partition("://")
    if not found or scheme.startswith("sqlite"):
        return str(Path(rest.removeprefix("/") if found else store).resolve())
    return rest.rpartition("@")[2].partition("?")[0].lower()


def _check_credentials(config: AccessConfig) -> None:
    if not (config.tokens or config.jwt or config.certificates):
        raise InvalidInput.of("tokens", None, "no credentials: name tokens, jwt or certificates")
    for name, grant in config.certificates.items():
        if grant.tenant not in config.tenants:
            raise InvalidInput.of(f"certificates.{name}.tenant", grant.tenant, "is no tenant of this file")
