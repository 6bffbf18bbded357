"""The SQLite driver: aiosqlite, with one visit to its thread for each statement.

aiosqlite goes to the connection's thread and back for every step: make a cursor, execute, fetch, close. Each costs two
switches of threads and a wake-up of the loop, many times what SQLite itself takes for a small statement; a push is a
dozen of them. Here a statement, its rows and the end of its cursor are one visit. All rows are fetched, as SQLAlchemy's
own adapter does; there is no streaming.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Self

import aiosqlite


class Connection(aiosqlite.Connection):
    """One connection and its thread. Made by `connect`; SQLAlchemy's adapter drives it."""

    def cursor(self) -> Cursor:  # type: ignore[override]  # made without a visit, so entered and never awaited
        return Cursor(self)

    async def rollback(self) -> None:
        """SQLAlchemy rolls back whatever it puts back into its pool; after a COMMIT there is nothing to do."""
        if self.in_transaction:
            await super().rollback()

    async def run(self, function: partial[Any]) -> Any:
        """``function`` in the connection's thread."""
        return await self._execute(function)  # type: ignore[no-untyped-call]  # aiosqlite's way into its thread


class Cursor:
    """A DB-API cursor of asyncio (PEP 249), as far as SQLAlchemy asks for it. It holds rows and no statement."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.arraysize = 1
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        return await self._run(sqlite3.Connection.execute, statement, parameters)

    async def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> Self:
        return await self._run(sqlite3.Connection.executemany, statement, parameters)

    async def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    async def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        count = self.arraysize if size is None else size
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken

    async def fetchall(self) -> Sequence[Any]:
        taken, self._rows = self._rows, []
        return taken

    async def close(self) -> None:
        self._rows = []

    async def _run(self, method: Any, statement: str, parameters: Any) -> Self:
        done = await self._connection.run(partial(_one_visit, self._connection, method, statement, parameters))
        self._rows, self.description, self.rowcount, self.lastrowid = done
        return self


def connect(database: str, **options: Any) -> Connection:
    """As `aiosqlite.connect`: ``options`` are those of `sqlite3.connect`. To be awaited."""
    connection = Connection(partial(sqlite3.connect, database, **options), iter_chunk_size=64)
    # A process that is cut at its stop must not wait for it.
    connection._thread.daemon = True
    return connection


def _one_visit(
    connection: Connection, method: Any, statement: str, parameters: Any
) -> tuple[list[Any], Any, int, int | None]:
    cursor = method(connection._conn, statement, parameters)
    try:
        # Also where there are no rows: it steps a statement like COMMIT or INSERT … RETURNING to its end.
        rows = cursor.fetchall()
        return rows, cursor.description, cursor.rowcount, cursor.lastrowid
    finally:
        cursor.close()
