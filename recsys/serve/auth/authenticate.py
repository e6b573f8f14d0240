"""From a call to its caller: a bearer token, a client certificate, or both that agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import grpc

from recsys.errors import InvalidInput, Unauthenticated
from recsys.serve.auth.config import AccessConfig
from recsys.serve.auth.files import Watched
from recsys.serve.auth.tokens import PREFIX, Tokens, read_tokens
from recsys.serve.caller import Caller

if TYPE_CHECKING:
    from recsys.serve.auth.webtokens import WebTokens

_SAN = "x509_subject_alternative_name"


class Authenticator:
    """Checks credentials as the access file has them; its files are read anew when they change."""

    def __init__(self, config: AccessConfig) -> None:
        """Raises InvalidInput where a file cannot be read, is open to others, or names a tenant there is not."""
        self._tenants = frozenset(config.tenants)
        self._tokens = _watch_tokens(config)
        self._web_tokens = _watch_web_tokens(config)
        self._certificates = {
            name: Caller(tenant=grant.tenant, scopes=frozenset(grant.scopes), name=f"certificate {name}")
            for name, grant in config.certificates.items()
        }

    def authenticate(self, context: grpc.ServicerContext) -> Caller:
        """Raises Unauthenticated; why is for the log, the caller is told nothing of it."""
        token, certified = _bearer(context), self._certified(context)
        if token is None:
            if certified is None:
                raise Unauthenticated("no credential")
            return certified
        caller = self._of_token(token)
        if caller.tenant not in self._tenants:
            raise Unauthenticated(f"{caller.name} names no tenant of this server")
        if certified is not None and certified.tenant != caller.tenant:
            raise Unauthenticated(f"{caller.name} and {certified.name} are of different tenants")
        return caller

    def _of_token(self, token: str) -> Caller:
        if token.startswith(PREFIX) and self._tokens is not None:
            return self._tokens.value.authenticate(token)
        if self._web_tokens is not None:
            return self._web_tokens.value.authenticate(token)
        raise Unauthenticated("no such kind of token is accepted")

    def _certified(self, context: grpc.ServicerContext) -> Caller | None:
        if not self._certificates:
            return None
        properties: Mapping[str, Sequence[bytes]] = context.auth_context()  # type: ignore[assignment]  # as gRPC has it
        names = [name.decode("utf-8", "replace") for name in properties.get(_SAN, ())]
        found = {each.tenant: each for name in names if (each := self._certificates.get(name)) is not None}
        if len(found) > 1:
            raise Unauthenticated("the client certificate names several tenants")
        return next(iter(found.values()), None)


def _bearer(context: grpc.ServicerContext) -> str | None:
    given = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if not given:
        return None
    kind, _, token = str(given[0]).partition(" ")
    if len(given) > 1 or kind.lower() != "bearer" or not token:
        raise Unauthenticated("the authorization header is not one bearer token")
    return token


def _watch_tokens(config: AccessConfig) -> Watched[Tokens] | None:
    path = config.tokens
    if path is None:
        return None

    def parse() -> Tokens:
        entries = read_tokens(path)
        for each in entries:
            if each.tenant not in config.tenants:
                raise InvalidInput.of(f"tokens: {path}: {each.id}.tenant", each.tenant, "is no tenant of this server")
        return Tokens(entries)

    return Watched((path,), parse)


def _watch_web_tokens(config: AccessConfig) -> Watched[WebTokens] | None:
    given = config.jwt
    if given is None:
        return None
    from recsys.serve.auth.webtokens import read_web_tokens

    return Watched((given.jwks,), lambda: read_web_tokens(given))
