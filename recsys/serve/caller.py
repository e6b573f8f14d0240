"""Who calls: what a verified credential says. The only source of a tenant."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

DEFAULT_TENANT = "default"
"""The one tenant of a server without credentials."""


class Scope(StrEnum):
    """What a credential may be good for."""

    RANK = "rank"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    ERASE = "erase"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """`name` stands for the credential in logs: the public id of a token, the name in a certificate. Never a secret."""

    tenant: str
    scopes: AbstractSet[Scope]
    name: str = ""


NOBODY = Caller(tenant="", scopes=frozenset())
ANYBODY = Caller(tenant=DEFAULT_TENANT, scopes=frozenset(Scope), name="without credential")
"""Whoever calls a server without credentials."""

_current: ContextVar[Caller] = ContextVar("caller", default=NOBODY)


def caller() -> Caller:
    """Of the present call; NOBODY, who has no tenant, outside of one."""
    return _current.get()


def set_caller(who: Caller) -> None:
    """For the rest of this call: gRPC runs each call in a context of its own."""
    _current.set(who)
