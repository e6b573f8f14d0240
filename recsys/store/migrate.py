"""Brings a database to today's tables, in one transaction: Alembic runs the steps of `migrations/` that it has not had.

A database made before there were migrations is stamped as what it is. One from a newer program is refused.
"""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

from recsys.errors import StoreError
from recsys.store.schema import FORMAT

VERSION_TABLE = "longrec_version"
_FOLDER = Path(__file__).parent / "migrations"
_HEAD = f"{FORMAT:04d}"

# Alembic's `op` stands for one migration of the process at a time.
_one_at_a_time = threading.Lock()


def migrate(connection: Connection, where: str) -> None:
    """Does all that is missing inside the transaction that `connection` is in.

    Raises StoreError where the database is newer than this program; `where` names it.
    """
    found = _version(connection)
    if found is not None and found > FORMAT:
        raise StoreError(f"the event store at {where} has format {found}; this version reads up to {FORMAT}")
    if found != FORMAT:
        with _one_at_a_time:
            _upgrade(connection, "base" if found is None else f"{found:04d}")


def _version(connection: Connection) -> int | None:
    """The number of the last step that it had; None for an empty database."""
    state = table("longrec_state", column("format"))
    if not inspect(connection).has_table(state.name):
        return None
    return connection.scalar(select(state.c.format))


def _upgrade(connection: Connection, found: str) -> None:
    # Here, for a database that is current needs none of it at start.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("version_locations", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    script = ScriptDirectory.from_config(config)
    with EnvironmentContext(
        config, script, fn=lambda _, context: script._upgrade_revs(_HEAD, found), destination_rev=_HEAD
    ) as environment:
        environment.configure(connection=connection, version_table=VERSION_TABLE)
        context = environment.get_context()
        if found != "base" and not context.get_current_heads():
            context.stamp(script, found)
        environment.run_migrations()
