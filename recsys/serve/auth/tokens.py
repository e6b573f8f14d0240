"""Static bearer tokens: 256 random bits for the caller, their SHA-256 for the server.

A token reads `lr_ID_SECRET`. The id is public and finds the entry; the secret is compared by its hash, in constant
time. A fast hash is enough: nobody guesses 256 random bits, whatever the hash costs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from recsys.errors import InvalidInput, NotFound, Unauthenticated
from recsys.serve.auth.files import read_private
from recsys.serve.caller import Caller, Scope

PREFIX = "lr_"
_NOTHING = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntry:
    """What the server keeps of a token. `expires` is UTC, ISO 8601; empty: never."""

    id: str
    sha256: str
    tenant: str
    scopes: tuple[Scope, ...]
    expires: str = ""

    @property
    def expires_s(self) -> float:
        """Seconds since the epoch."""
        return datetime.fromisoformat(self.expires).timestamp() if self.expires else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    tokens: tuple[TokenEntry, ...] = ()


_ADAPTER = TypeAdapter(_File)


class Tokens:
    """Entries by id."""

    def __init__(self, entries: Sequence[TokenEntry]) -> None:
        self._entries = {each.id: (bytes.fromhex(each.sha256), each.expires_s, _caller(each)) for each in entries}

    def authenticate(self, token: str) -> Caller:
        """Whose token it is; raises Unauthenticated."""
        token_id, _, secret = token.removeprefix(PREFIX).partition("_")
        known, expires_s, caller = self._entries.get(token_id, (_NOTHING, 0.0, None))
        # Compared in any case: an unknown id takes as long as a wrong secret.
        same = hmac.compare_digest(_digest(secret), known)
        if caller is None or not same:
            raise Unauthenticated("no such token")
        if time.time() >= expires_s:
            raise Unauthenticated(f"token {token_id} has expired")
        return caller


def new_token(tenant: str, scopes: Sequence[Scope], expires: datetime | None = None) -> tuple[str, TokenEntry]:
    """(the token, to be shown once; what is kept of it)."""
    token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    entry = TokenEntry(
        id=token_id,
        sha256=_digest(secret).hex(),
        tenant=tenant,
        scopes=tuple(scopes),
        expires=expires.astimezone(UTC).isoformat(timespec="seconds") if expires else "",
    )
    return f"{PREFIX}{token_id}_{secret}", entry


def read_tokens(path: Path) -> tuple[TokenEntry, ...]:
    """The entries of a file that only its owner reads. Raises InvalidInput, which names the entry."""
    data = read_private(path, "tokens")
    try:
        entries = _ADAPTER.validate_json(data).tokens
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise InvalidInput.of("tokens", str(path), f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for index, each in enumerate(entries):
        _check(each, f"{path}: tokens.{index}")
    if len({each.id for each in entries}) < len(entries):
        raise InvalidInput.of("tokens", str(path), "an id stands there twice")
    return entries


def add_token(path: Path, entry: TokenEntry) -> None:
    """Adds an entry to the file, which is made where there is none."""
    known = read_tokens(path) if path.exists() else ()
    _check(entry, str(path))
    _write(path, (*known, entry))


def remove_token(path: Path, token_id: str) -> None:
    """Takes an entry out: a server that reads the file refuses its token within a second. Raises NotFound."""
    known = read_tokens(path)
    kept = tuple(each for each in known if each.id != token_id)
    if len(kept) == len(known):
        raise NotFound(f"there is no token {token_id!r} in {path}")
    _write(path, kept)


def _check(entry: TokenEntry, where: str) -> None:
    try:
        sound = len(bytes.fromhex(entry.sha256)) == 32 and entry.expires_s > 0
    except ValueError:
        sound = False
    if not sound or not entry.id or "_" in entry.id:
        raise InvalidInput.of(
            where, entry.id, "needs an id without _, a SHA-256 in hex, and a time in ISO 8601 or none"
        )
    if entry.expires and datetime.fromisoformat(entry.expires).tzinfo is None:
        raise InvalidInput.of(where, entry.expires, "needs its time zone, such as +00:00")
    if not entry.scopes:
        raise InvalidInput.of(where, entry.id, "a token without scopes is good for nothing")


def _caller(entry: TokenEntry) -> Caller:
    return Caller(tenant=entry.tenant, scopes=frozenset(entry.scopes), name=f"token {entry.id}")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _write(path: Path, entries: Sequence[TokenEntry]) -> None:
    body: Mapping[str, object] = {"tokens": [asdict(each) for each in entries]}
    # A new file of mode 0600 takes the place of the old one: no reader meets half of it.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(json.dumps(body, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
