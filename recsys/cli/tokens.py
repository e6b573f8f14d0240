"""`recsys token`: static tokens for callers of a server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from recsys.cli.output import Output, table
from recsys.errors import InvalidInput
from recsys.serve.auth.tokens import add_token, new_token, read_tokens, remove_token
from recsys.serve.caller import Scope


def new(output: Output, *, file: Path, tenant: str, scopes: Sequence[str], days: float | None) -> None:
    """Makes a token, keeps its hash in `file`, and shows it, once."""
    expires = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    token, entry = new_token(tenant, [_scope(each) for each in dict.fromkeys(scopes)], expires)
    add_token(file, entry)
    output.lines(token)
    output.show(f"token {entry.id} of {tenant}, until {entry.expires or 'it is revoked'}; it is not shown again")
    output.result({"token": token, "id": entry.id, "tenant": tenant, "scopes": entry.scopes, "expires": entry.expires})


def show(output: Output, *, file: Path) -> None:
    """Lists what is known of tokens; the tokens themselves nobody knows but who uses them."""
    entries = read_tokens(file)
    rows = [(each.id, each.tenant, " ".join(each.scopes), each.expires or "never") for each in entries]
    output.show(table(("id", "tenant", "scopes", "expires"), rows))
    output.result(
        [{"id": e.id, "tenant": e.tenant, "scopes": e.scopes, "expires": e.expires} for e in entries],
    )


def revoke(output: Output, *, file: Path, token_id: str) -> None:
    """Takes a token out of `file`; a server that reads it refuses the token within a second."""
    remove_token(file, token_id)
    output.show(f"token {token_id} is revoked")
    output.result({"id": token_id})


def _scope(name: str) -> Scope:
    try:
        return Scope(name)
    except ValueError:
        raise InvalidInput.of("--scope", name, f"must be one of {', '.join(Scope)}") from None
