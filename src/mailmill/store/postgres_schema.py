"""The schema of a database on PostgreSQL: which version it has, and bringing it to this one.

Law: one process at a time changes the schema or restores it (`postgres_dump`), under an advisory lock that ends with
its transaction.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from mailmill.store import migrate, postgres_link
from mailmill.store.postgres_engine import SET_LOCAL, make_engine
from mailmill.store.postgres_errors import opened
from mailmill.store.postgres_link import Link

_MIGRATION_WAIT = "60s"
_MIGRATION_TRIES = 5
_REST_SECONDS = 10
# SQLSTATE: a deadlock with a node that reads tables in another order, a table that did not become free in time.
_IN_THE_WAY = ("40P01", "55P03")


async def upgrade(url: str) -> None:
    """Bring the database at ``url`` to this version's schema. Raises StoreError and ConfigurationError."""
    await opened(bring_to_head(await opened(postgres_link.find(url))))


@dataclass(frozen=True, slots=True)
class Inspection:
    """What answers at a URL. ``revision`` is its schema's; None where it is empty."""

    server_version: str
    pooled: bool
    revision: str | None


async def inspect(url: str, key: str = "service.database_url") -> Inspection:
    """Look, and change nothing. Raises StoreError and ConfigurationError, which names ``key``."""

    async def look() -> Inspection:
        link = await postgres_link.find(url)
        connection = await link.connect()
        try:
            revision = None
            if await connection.fetchval("SELECT to_regclass('alembic_version')::text") is not None:
                revision = await connection.fetchval("SELECT version_num FROM alembic_version")
            return Inspection(await connection.fetchval("SHOW server_version"), link.pooled, revision)
        finally:
            await connection.close(timeout=postgres_link.CONNECT_SECONDS)

    return await opened(look(), key)


async def is_empty(url: str) -> bool:
    """Whether there is no schema at ``url`` and none to come: a transaction that changes it is waited for, also one
    whose client is dead. Raises as `inspect` does, and StoreError where that one does not end in time.
    """

    async def wait() -> None:
        link = await postgres_link.find(url)
        connection = await link.connect()
        try:
            # In one message: a pooler may lend another session for each.
            await connection.execute(
                f"BEGIN; SET LOCAL lock_timeout = '{_REST_SECONDS}s';"
                f" SELECT pg_advisory_xact_lock({migrate.SCHEMA_LOCK}); COMMIT"
            )
        finally:
            await connection.close(timeout=postgres_link.CONNECT_SECONDS)

    await opened(wait())
    return (await inspect(url)).revision is None


async def bring_to_head(link: Link) -> None:
    """`upgrade`, of the database behind ``link``; errors are the driver's."""
    engine = make_engine(link, 1)
    try:
        async with engine.connect() as connection:
            if await connection.run_sync(migrate.revision_of) == migrate.HEAD:
                return
    finally:
        await engine.dispose()
    tries = 1
    while True:
        try:
            # Alembic reads files, so it runs in a thread, in a loop where nothing else does.
            await asyncio.to_thread(asyncio.run, _migrate(link))
            break
        except DBAPIError as error:
            if tries == _MIGRATION_TRIES or getattr(error.orig, "sqlstate", None) not in _IN_THE_WAY:
                raise
        tries += 1
        await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - jitter


async def _migrate(link: Link) -> None:
    engine = make_engine(link.unhurried, 1)
    try:
        async with engine.begin() as connection:
            # Nodes that start at once wait for the first. A migration may take as long as it takes, but must not keep
            # running nodes waiting behind it for a table.
            for name, value in {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}.items():
                await connection.execute(SET_LOCAL, {"name": name, "value": value})
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": migrate.SCHEMA_LOCK})
            await connection.execute(SET_LOCAL, {"name": "lock_timeout", "value": _MIGRATION_WAIT})
            if await connection.run_sync(migrate.revision_of) != migrate.HEAD:
                await connection.run_sync(migrate.upgrade)
    finally:
        await engine.dispose()
