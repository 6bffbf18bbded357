"""Bringing a SQLite file to the schema this version needs. Blocking; called in a thread, before anything else connects.

Each migration is one transaction, so a crash leaves the schema as it was. Alembic is loaded only when there is
something to do: a start on an up-to-date store costs one SELECT.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.pool import NullPool

from mailmill.errors import StoreError

HEAD = "0003"
"""The newest revision in ``migrations/versions`` (a test compares)."""

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate_sqlite(path: Path) -> None:
    """Raises StoreError where the file is of a newer version; other failures as the driver raises them."""
    if _revision(path) == HEAD:
        return
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        hide_parameters=True,  # as in `database`
        connect_args={"isolation_level": None},
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # The driver would commit before DDL; with an explicit BEGIN a migration is all or nothing.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    try:
        with engine.connect() as connection:
            upgrade(connection)
    finally:
        engine.dispose()


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing over ``connection``, any dialect."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            f"the database cannot be brought to this version: {error}",
            hint="it was last written by a newer mailmill; upgrade, or restore the backup from before",
        ) from error


def _revision(path: Path) -> str | None:
    with closing(sqlite3.connect(path)) as connection:
        table = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if table else None
    return row[0] if row else None
