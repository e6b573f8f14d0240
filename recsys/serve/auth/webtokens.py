"""JSON Web Tokens of an identity provider, checked by PyJWT against keys in a file.

Accepted are signatures by a public key (RS256, ES256, EdDSA) that stands in a local JWKS file, by the algorithm of that
key and no other. Issuer, audience, expiry and not-before are required; tenant and scopes come from the claims.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recsys.errors import InvalidInput, MissingExtra, Unauthenticated
from recsys.serve.caller import Caller, Scope

try:
    import jwt
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
except ModuleNotFoundError as error:
    raise MissingExtra("PyJWT[crypto]", "serve") from error

_LEAST_RSA_BITS = 2048
_MAX_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtConfig:
    """Where tokens come from. `jwks` is a file of public keys, by `kid`; scopes are a list, or words with spaces."""

    jwks: Path
    issuer: str
    audience: str
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = ("RS256", "ES256", "EdDSA")
    tenant_claim: str = "tenant"
    scope_claim: str = "scope"
    leeway_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("issuer", "audience", "tenant_claim", "scope_claim"):
            if not getattr(self, name):
                raise InvalidInput.of(f"jwt.{name}", "", "is required")
        if not 0 <= self.leeway_s <= 300:
            raise InvalidInput.of("jwt.leeway_s", self.leeway_s, "must lie in 0 to 300")
        if not self.algorithms:
            raise InvalidInput.of("jwt.algorithms", self.algorithms, "at least one is needed")


@dataclass(slots=True)
class WebTokens:
    """The keys of one version of the JWKS file, and the tokens lately found good under them."""

    config: JwtConfig
    keys: Mapping[str, jwt.PyJWK]
    _kept: OrderedDict[bytes, tuple[float, Caller]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def authenticate(self, token: str) -> Caller:
        """Whose token it is; raises Unauthenticated. A signature is checked once, its times at each call."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            expires_s, caller = self._kept.get(digest, (0.0, None))
        if caller is None:
            expires_s, caller = self._check(token)
            self._keep(digest, expires_s, caller)
        if time.time() >= expires_s:
            raise Unauthenticated("the web token has expired")
        return caller

    def _check(self, token: str) -> tuple[float, Caller]:
        config = self.config
        try:
            key = self._key(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=config.issuer,
                audience=config.audience,
                leeway=config.leeway_s,
                options={"require": ["iss", "aud", "exp", "nbf"]},
            )
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:  # a stranger wrote what it parses
            raise Unauthenticated(f"the web token does not hold: {type(error).__name__}") from error
        return float(claims["exp"]) + config.leeway_s, self._caller(claims)

    def _key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        kid = header.get("kid")
        if kid is None and len(self.keys) == 1:
            (key,) = self.keys.values()
        else:
            found = self.keys.get(kid) if isinstance(kid, str) else None
            if found is None:
                raise Unauthenticated("the web token names no known key")
            key = found
        if header.get("alg") != key.algorithm_name:
            raise Unauthenticated("the web token names another algorithm than its key has")
        return key

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        tenant, given = claims.get(self.config.tenant_claim), claims.get(self.config.scope_claim)
        words = given.split() if isinstance(given, str) else given
        if not isinstance(tenant, str) or not isinstance(words, list):
            raise Unauthenticated("the web token lacks its tenant or its scopes")
        known = {str(scope) for scope in Scope}  # other scopes are other services' business
        scopes = frozenset(Scope(word) for word in words if isinstance(word, str) and word in known)
        return Caller(tenant=tenant, scopes=scopes, name="web token")

    def _keep(self, digest: bytes, expires_s: float, caller: Caller) -> None:
        with self._lock:
            self._kept[digest] = (expires_s, caller)
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)


def read_web_tokens(config: JwtConfig) -> WebTokens:
    """Raises InvalidInput where the JWKS file is none, or holds a key that must not verify anything."""
    try:
        found = json.loads(config.jwks.read_text("utf-8"))["keys"]
        entries = [(entry, jwt.PyJWK.from_dict(entry)) for entry in found]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise InvalidInput.of("jwt.jwks", str(config.jwks), f"cannot be read: {type(error).__name__}") from None
    keys: dict[str, jwt.PyJWK] = {}
    for index, (entry, key) in enumerate(entries):
        _check_key(config, entry, key, f"jwt.jwks: {config.jwks}: keys.{index}")
        if (key.key_id or "") in keys:
            raise InvalidInput.of("jwt.jwks", str(config.jwks), "a key id stands there twice")
        keys[key.key_id or ""] = key
    if not keys:
        raise InvalidInput.of("jwt.jwks", str(config.jwks), "holds no key")
    return WebTokens(config, keys)


def _check_key(config: JwtConfig, entry: Mapping[str, Any], key: jwt.PyJWK, where: str) -> None:
    if key.algorithm_name not in config.algorithms:
        raise InvalidInput.of(where, key.algorithm_name, f"only {', '.join(config.algorithms)} are accepted")
    if entry.get("use", "sig") != "sig":
        raise InvalidInput.of(where, entry["use"], "is no key for signatures")
    if "d" in entry:
        raise InvalidInput.of(where, "a private key", "only public keys belong here")
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _LEAST_RSA_BITS:
        raise InvalidInput.of(where, key.key.key_size, f"an RSA key of at least {_LEAST_RSA_BITS} bits is needed")
