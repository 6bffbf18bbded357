"""Bringing a database to the schema this version needs. Blocking; called in a thread, before anything else connects.

On SQLite each migration is one transaction, on PostgreSQL all that are missing are one, so a crash leaves the schema
as it was. Alembic is loaded only when there is something to do: a start on an up-to-date store costs one SELECT.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, event, inspect, text
from sqlalchemy.pool import NullPool

from mailmill.errors import StoreError

HEAD = "0006"
"""The newest revision in ``migrations/versions`` (a test compares)."""

OLDEST_CODE = "schema_oldest_code"
"""The row of ``setting`` that holds the `HEAD` of the oldest code that may run on the schema as it is."""

SCHEMA_LOCK = 0x6D61696C
"""PostgreSQL's advisory lock under which the schema is changed: any number that all versions agree on."""

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate_sqlite(path: Path, *, apart: bool = False) -> None:
    """Raises StoreError where the file is of a newer version; other failures as the driver raises them.

    ``apart``: in a child process, so that one that stays does not keep what Alembic takes (11 MB).
    """
    if _revision(path) == HEAD or (apart and _migrated_apart(path)):
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


def revision_of(connection: Connection) -> str | None:
    """The revision that the database is at; None where it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def serves_this_code(connection: Connection) -> bool:
    """Whether a newer version has brought the schema beyond ours, and says that ours may run on it: a node that is not
    upgraded yet, or goes back, has to start too. Each migration from 0004 on notes under `OLDEST_CODE` the oldest one.
    """
    revision = revision_of(connection)
    if revision is None or revision <= HEAD:
        return False
    wanted = text("SELECT value FROM setting WHERE name = :name")
    oldest: str | None = connection.scalar(wanted, {"name": OLDEST_CODE})
    return oldest is not None and oldest <= HEAD


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations that are missing over ``connection``, any dialect, up to ``revision``."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        # Not asked before: a question begins a transaction, and Alembic commits only those of its own.
        if serves_this_code(connection):
            return
        raise StoreError(
            f"the database cannot be brought to this version: {error}",
            hint="it was last written by a newer mailmill; upgrade, or restore the backup from before",
        ) from error


def _migrated_apart(path: Path) -> bool:
    """False where it failed: to do it here will tell why."""
    # -P: what lies in the working directory is none of our modules.
    child = [sys.executable, "-P", "-m", __name__, str(path)]
    nothing = subprocess.DEVNULL
    return subprocess.run(child, stdin=nothing, stdout=nothing, stderr=nothing, check=False).returncode == 0  # noqa: S603


def _revision(path: Path) -> str | None:
    with closing(sqlite3.connect(path)) as connection:
        table = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if table else None
    return row[0] if row else None


if __name__ == "__main__":
    migrate_sqlite(Path(sys.argv[1]))
