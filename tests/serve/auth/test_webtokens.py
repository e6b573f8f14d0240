"""Web tokens: only public-key signatures by a known key, with all their claims, open anything."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from recsys.errors import InvalidInput, Unauthenticated
from recsys.serve.auth.webtokens import JwtConfig, WebTokens, read_web_tokens
from recsys.serve.caller import Scope

KEYS = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public_jwk(algorithm: str, key: Any, **rest: str) -> dict[str, Any]:
    known = jwt.get_algorithm_by_name(algorithm)
    return {**json.loads(known.to_jwk(key.public_key())), "alg": algorithm, **rest}


def write(folder: Path, *entries: Mapping[str, Any]) -> JwtConfig:
    path = folder / "jwks.json"
    path.write_text(json.dumps({"keys": entries}))
    return JwtConfig(jwks=path, issuer="https://id.example", audience="longrec", leeway_s=0.0)


def claims(**changes: Any) -> dict[str, Any]:
    now = time.time()
    good = {"iss": "https://id.example", "aud": "longrec", "exp": now + 600, "nbf": now - 600}
    found = {**good, "tenant": "shop", "scope": "rank read openid", **changes}
    return {name: value for name, value in found.items() if value is not None}


def sign(algorithm: str, body: Mapping[str, Any], kid: str | None = None) -> str:
    headers = {"kid": kid or algorithm}
    return jwt.encode(dict(body), KEYS[algorithm], algorithm=algorithm, headers=headers)


@pytest.fixture
def tokens(tmp_path: Path) -> WebTokens:
    return read_web_tokens(write(tmp_path, *(public_jwk(name, key, kid=name) for name, key in KEYS.items())))


@pytest.mark.parametrize("algorithm", KEYS)
def test_each_algorithm_opens_the_tenant_of_the_claims(tokens: WebTokens, algorithm: str) -> None:
    for _ in range(2):  # the second time from memory
        caller = tokens.authenticate(sign(algorithm, claims()))
        assert (caller.tenant, caller.scopes) == ("shop", {Scope.RANK, Scope.READ})


def test_scopes_may_be_a_list(tokens: WebTokens) -> None:
    caller = tokens.authenticate(sign("ES256", claims(scope=["erase", "x", 3], aud=["other", "longrec"])))
    assert caller.scopes == {Scope.ERASE}


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in ("iss", "aud", "exp", "nbf", "tenant", "scope")),
        {"iss": "https://id.example.org"},
        {"aud": "longrec2"},
        {"exp": 1.0},
        {"nbf": 4e9},
        {"tenant": 7},
        {"tenant": ["shop"]},
        {"scope": 7},
        {"exp": "soon"},
    ],
    ids=str,
)
def test_every_claim_is_needed_and_held_to(tokens: WebTokens, change: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        tokens.authenticate(sign("ES256", claims(**change)))


def test_a_token_kept_as_good_still_expires(tokens: WebTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    token = sign("EdDSA", claims())
    tokens.authenticate(token)
    later = time.time() + 601
    monkeypatch.setattr("recsys.serve.auth.webtokens.time.time", lambda: later)
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.authenticate(token)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(header: Mapping[str, Any], signature: bytes = b"") -> str:
    body = b64(json.dumps(claims()).encode())
    return f"{b64(json.dumps(header).encode())}.{body}.{b64(signature)}"


def test_forged_tokens_open_nothing(tokens: WebTokens) -> None:
    stranger = rsa.generate_private_key(65537, 2048)
    public = KEYS["RS256"].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    by_secret = unsigned({"alg": "HS256", "kid": "RS256"})
    signed = by_secret.rpartition(".")[0]
    mac = b64(hmac.new(pem, signed.encode(), hashlib.sha256).digest())
    head, body, signature = sign("ES256", claims()).split(".")
    other = b64(json.dumps(claims(tenant="mall")).encode())
    forged = {
        "no algorithm": unsigned({"alg": "none", "kid": "RS256"}),
        "public key as a secret": f"{signed}.{mac}",
        "a stranger's key": jwt.encode(claims(), stranger, algorithm="RS256", headers={"kid": "RS256"}),
        "another key's id": sign("ES256", claims(), kid="RS256"),
        "unknown key": sign("ES256", claims(), kid="nobody"),
        "no key id among three": jwt.encode(claims(), KEYS["ES256"], algorithm="ES256"),
        "its own key": jwt.encode(
            claims(), stranger, algorithm="RS256", headers={"jwk": public_jwk("RS256", stranger), "kid": "RS256"}
        ),
        "changed body": f"{head}.{other}.{signature}",
        "no signature": f"{head}.{body}.",
        "key id of another type": unsigned({"alg": "ES256", "kid": ["ES256"]}),
        "nonsense": "a.b.c",
        "empty": "",
        "not text": "\udc80",
    }
    for token in forged.values():
        with pytest.raises(Unauthenticated):
            tokens.authenticate(token)


def test_one_key_needs_no_id(tmp_path: Path) -> None:
    tokens = read_web_tokens(write(tmp_path, public_jwk("ES256", KEYS["ES256"])))
    assert tokens.authenticate(jwt.encode(claims(), KEYS["ES256"], algorithm="ES256")).tenant == "shop"


def test_keys_that_must_not_verify_are_refused(tmp_path: Path) -> None:
    small = rsa.generate_private_key(65537, 1024)
    private = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(KEYS["ES256"]))
    wrong: dict[str, dict[str, Any]] = {
        "a secret": {"kty": "oct", "k": b64(b"x" * 32), "alg": "HS256"},
        "small": public_jwk("RS256", small),
        "other algorithm": public_jwk("ES384", ec.generate_private_key(ec.SECP384R1())),
        "for encryption": public_jwk("RS256", KEYS["RS256"], use="enc"),
        "private": {**private, "alg": "ES256"},
        "of another kind": {**public_jwk("ES256", KEYS["ES256"]), "alg": "RS256"},
        "nothing": {},
    }
    for entry in wrong.values():
        config = write(tmp_path, entry)
        with pytest.raises(InvalidInput, match=r"jwt\.jwks"):
            read_web_tokens(config)
    with pytest.raises(InvalidInput, match="no key"):
        read_web_tokens(write(tmp_path))
    good = public_jwk("ES256", KEYS["ES256"], kid="a")
    with pytest.raises(InvalidInput, match="twice"):
        read_web_tokens(write(tmp_path, good, good))
