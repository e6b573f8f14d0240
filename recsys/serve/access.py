"""Who may call what: a table of every method, and the interceptor that holds callers to it. Deny by default."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import grpc
import structlog

from recsys.errors import Forbidden, InvalidInput, Unauthenticated
from recsys.serve.auth.limits import Rates
from recsys.serve.caller import ANYBODY, Caller, Scope, set_caller
from recsys.serve.handlers import Behaviour, Continuation, Handler, Wrapped, wrap

_log = structlog.get_logger("recsys.serve")

SCOPES: Mapping[str, Scope] = {
    "/recsys.v1.RankingService/RankItems": Scope.RANK,
    "/recsys.v1.RankingService/RecommendItems": Scope.RANK,
    "/recsys.v1.RankingService/ExplainRanking": Scope.READ,
    "/recsys.v1.RankingService/EncodeTexts": Scope.RANK,
    "/recsys.v1.IngestService/WriteEvents": Scope.WRITE,
    "/recsys.v1.IngestService/StreamEvents": Scope.WRITE,
    "/recsys.v1.IngestService/WriteItems": Scope.WRITE,
    "/recsys.v1.MemoryService/ListMemories": Scope.READ,
    "/recsys.v1.MemoryService/ExportUser": Scope.READ,
    "/recsys.v1.MemoryService/DeleteUser": Scope.ERASE,
    "/recsys.v1.AdminService/GetServingState": Scope.READ,
    "/recsys.v1.AdminService/ListSnapshots": Scope.ADMIN,
    "/recsys.v1.AdminService/ActivateSnapshot": Scope.ADMIN,
    "/recsys.v1.AdminService/RollbackSnapshot": Scope.ADMIN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Scope.READ,
}
"""What a credential must be good for. RANK answers with items, READ with what is known of a user."""

OPEN = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List"})
"""Anybody may ask whether the server is well: probes have no credentials, and the answer tells nothing else."""

_LOGGED_PER_S = 10


class Authenticate(Protocol):
    """From a call to its caller; raises Unauthenticated."""

    def authenticate(self, context: grpc.ServicerContext) -> Caller: ...


def check_complete(methods: Iterable[str]) -> None:
    """Raises InvalidInput for a method that the table does not name: nobody decided who may call it."""
    for method in methods:
        if method not in SCOPES and method not in OPEN:
            raise InvalidInput.of("method", method, "has no scope: name it in recsys/serve/access.py")


class AccessInterceptor(grpc.ServerInterceptor):
    """Verifies the credential, holds it against the table, and counts the call against its tenant's rates.

    All that before the message is read. Without an authenticator everybody is the default tenant.
    """

    def __init__(self, authenticator: Authenticate | None, rates: Mapping[str, Rates]) -> None:
        self._authenticator = authenticator
        self._rates = rates
        self._denials = _Seldom(_LOGGED_PER_S)
        self._wrapped = Wrapped(lambda method, handler: wrap(handler, self._checked(method)))

    def intercept_service(self, continuation: Continuation, call: grpc.HandlerCallDetails) -> Handler | None:
        handler = continuation(call)
        if handler is None or call.method in OPEN:
            return handler
        return self._wrapped.of(call.method, handler)

    def _checked(self, method: str) -> Any:
        scope = SCOPES.get(method)

        def checked(request: Any, context: grpc.ServicerContext, behaviour: Behaviour) -> Any:
            who = self._caller(context, method)
            if scope is None or scope not in who.scopes:
                self._denied(method, context, f"{who.name} lacks the scope", who.tenant)
                raise Forbidden(f"the credential does not cover {method}")
            self._rates[who.tenant].take(scope)
            set_caller(who)
            return behaviour(request, context)

        return checked

    def _caller(self, context: grpc.ServicerContext, method: str) -> Caller:
        if self._authenticator is None:
            return ANYBODY
        try:
            return self._authenticator.authenticate(context)
        except Unauthenticated as error:
            self._denied(method, context, str(error), "")
            raise Unauthenticated("a valid credential is needed") from None

    def _denied(self, method: str, context: grpc.ServicerContext, reason: str, tenant: str) -> None:
        untold = self._denials.due()
        if untold is not None:
            _log.warning("denied", method=method, peer=context.peer(), reason=reason, tenant=tenant, untold=untold)


class _Seldom:
    """Lets so many a second through, and counts the others: nobody fills a disk by being refused."""

    def __init__(self, most_per_s: int) -> None:
        self._most = most_per_s
        self._second = 0
        self._said = 0
        self._untold = 0

    def due(self) -> int | None:
        """How many were not told before this one; None where this one is not to be told."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._said = second, 0
        if self._said >= self._most:
            self._untold += 1
            return None
        self._said += 1
        untold, self._untold = self._untold, 0
        return untold
