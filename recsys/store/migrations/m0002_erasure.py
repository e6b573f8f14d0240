"""Tombstones of erased users; a key of the database's own, under which request ids and bodies are kept from now on.

Request ids of the last 24 hours stay valid: each becomes its digest.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

from recsys.store.sealed import SECRET_BYTES, sealed, sealed_bytes

revision = "0002"
down_revision = "0001"

_PAGE_ROWS = 10_000


def upgrade() -> None:
    op.add_column("longrec_state", sa.Column("secret", sa.LargeBinary, nullable=False, server_default=sa.text("''")))
    op.create_table(
        "longrec_erased",
        sa.Column("user_key", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False, index=True),
        sa.Column("time_s", sa.Double, nullable=False),
        sa.Column("num_events", sa.Integer, nullable=False),
    )
    secret = secrets.token_bytes(SECRET_BYTES)
    connection = op.get_bind()
    connection.execute(sa.text("UPDATE longrec_state SET format = 2, secret = :secret"), {"secret": secret})
    _seal_requests(connection, secret)


def _seal_requests(connection: sa.Connection, secret: bytes) -> None:
    """All at once or not at all, as the whole step; read whole before the first is changed."""
    rows = connection.execute(sa.text("SELECT request_id, digest FROM longrec_requests")).all()
    changes = [
        {"was": row.request_id, "name": sealed(secret, row.request_id), "body": sealed_bytes(secret, row.digest)}
        for row in rows
    ]
    change = sa.text("UPDATE longrec_requests SET request_id = :name, digest = :body WHERE request_id = :was")
    for start in range(0, len(changes), _PAGE_ROWS):
        connection.execute(change, changes[start : start + _PAGE_ROWS])
