"""Two transactions on PostgreSQL at once, on purpose: one stays open, and it is seen, not timed, if the other waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store.database import Database

T = TypeVar("T")

# Locks of rows: a transaction waits for another's end. The sequencer's own locks are advisory ones.
_WAITING = text(
    "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
    " AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database()))"
)


async def somebody_waits(database: Database) -> bool:
    """Whether a transaction of this database waits for a row that another one has locked."""
    async with database.read() as connection:
        return bool(await connection.scalar(_WAITING))


def beside(database: Database, work: Callable[[AsyncConnection], Awaitable[T]]) -> asyncio.Task[T]:
    """Begin ``work(connection)`` in a transaction of its own, while the caller's stays open."""

    async def run() -> T:
        async with database.write() as connection:
            return await work(connection)

    return asyncio.create_task(run())


async def waits(database: Database, other: asyncio.Task[Any]) -> bool:
    """As soon as ``other`` is done or waits for a row: whether it waits."""
    async with asyncio.timeout(30):
        while not other.done():
            if await somebody_waits(database):
                return True
    return False
