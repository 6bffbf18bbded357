"""The SQLite driver: aiosqlite, with one visit to its thread for each statement.

aiosqlite goes to the connection's thread and back for every step: make a cursor, execute, fetch, close. Each costs two
switches of threads and a wake-up of the loop, many times what SQLite itself takes for a small statement; a push is a
dozen of them. Here a statement, its rows and the end of its cursor are one visit. All rows are fetched, as SQLAlchemy's
own adapter does; there is no streaming. And where one step of the store is several statements, `Connection.visit` makes
all of them one visit.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeVar, cast

import aiosqlite
import sqlalchemy
from sqlalchemy.pool import StaticPool

from mailmill.store import driver_cursor

_Result = TypeVar("_Result")

# The threads of connections, as long as anybody knows them.
Threads = weakref.WeakSet[threading.Thread]

# Longer than a statement of ours that reads takes.
_ENDING_SECONDS = 5.0

_ROLLED_BACK = "the transaction was rolled back by an error before"


class Connection(aiosqlite.Connection):
    """One connection and its thread. Made by `connect`; SQLAlchemy's adapter drives it."""

    _visitor: sqlalchemy.Connection | None = None
    _executed: Callable[[str], None] | None = None
    _to_begin: str | None = None
    _begun = False

    def cursor(self) -> Cursor:  # type: ignore[override]  # made without a visit, so entered and never awaited
        return Cursor(self)

    def begin_by(self, statement: str) -> None:
        """Begin a transaction by ``statement`` when there is something to do in it, in the visit that does it."""
        self._to_begin = statement

    async def commit(self) -> None:
        """Nothing is to be done for a transaction in which nothing was done. One that fails is rolled back."""
        try:
            if self._to_begin is None:
                self._still_begun()
                await super().commit()
        except BaseException:
            await self.rollback()
            raise
        self._to_begin, self._begun = None, False

    async def rollback(self) -> None:
        """SQLAlchemy rolls back whatever it puts back into its pool; after a COMMIT there is nothing to do."""
        self._to_begin, self._begun = None, False
        if self.in_transaction:
            await super().rollback()

    async def open_to_visits(self) -> None:
        """Once, before `visit`, while no transaction runs: SQLAlchemy rolls back when it has looked at a new driver."""
        await self.run(partial(self._open_to_visits))

    async def visit(
        self, executed: Callable[[str], None], function: Callable[[sqlalchemy.Connection], _Result]
    ) -> _Result:
        """``function`` in the connection's thread, with SQLAlchemy's blocking connection over this very one.

        It is within whatever transaction this one is in, and neither begins nor ends any. ``executed`` is told, there,
        of each statement.
        """
        return cast("_Result", await self.run(partial(self._visit, executed, function)))

    def transact(
        self, begin: str, executed: Callable[[str], None], function: Callable[[sqlalchemy.Connection], _Result]
    ) -> asyncio.Future[_Result]:
        """A visit that is a whole transaction, begun by ``begin``; rolled back where ``function`` or the COMMIT raises.

        Its turn in the thread is taken before this returns, while no other transaction is open: what is asked of the
        connection from then on comes after it.
        """
        future = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, partial(self._transact, begin, executed, function)))
        return future

    def _open_to_visits(self) -> None:
        engine = sqlalchemy.create_engine(
            "sqlite+pysqlite://", creator=lambda: self._conn, poolclass=StaticPool, hide_parameters=True
        )

        def tell(statement: str) -> None:
            if self._executed is not None:
                self._executed(statement)

        @sqlalchemy.event.listens_for(engine, "after_cursor_execute")
        def listen(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            tell(statement)

        self._visitor = engine.connect()
        self._visitor.info[driver_cursor.LISTENER] = tell

    def _visit(self, executed: Callable[[str], None], function: Callable[[sqlalchemy.Connection], _Result]) -> _Result:
        self._begin()
        return self._on_visit(executed, function)

    def _transact(
        self, begin: str, executed: Callable[[str], None], function: Callable[[sqlalchemy.Connection], _Result]
    ) -> _Result:
        if self._conn.in_transaction:
            self._conn.rollback()  # one before could not be rolled back
        self._conn.execute(begin).close()
        try:
            result = self._on_visit(executed, function)
            if not self._conn.in_transaction:
                raise sqlite3.OperationalError(_ROLLED_BACK)
            self._conn.commit()
        except BaseException:
            with suppress(sqlite3.Error):
                self._conn.rollback()
            raise
        return result

    def _on_visit(
        self, executed: Callable[[str], None], function: Callable[[sqlalchemy.Connection], _Result]
    ) -> _Result:
        if self._visitor is None:
            raise RuntimeError("visited before it was open to visits")
        self._executed = executed
        try:
            return function(self._visitor)
        except StopIteration as error:
            # No future takes it, and who waits for it would for ever.
            raise RuntimeError("a step raised StopIteration") from error

    def _begin(self) -> None:
        if self._to_begin is not None:
            self._conn.execute(self._to_begin).close()
            self._to_begin, self._begun = None, True
        self._still_begun()

    def _still_begun(self) -> None:
        """SQLite ends a transaction by itself when the disk is full, say: what follows must not stand for itself."""
        if self._begun and not self._conn.in_transaction:
            raise sqlite3.OperationalError(_ROLLED_BACK)

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


def connect(threads: Threads, database: str, **options: Any) -> Connection:
    """As `aiosqlite.connect`: ``options`` are those of `sqlite3.connect`. To be awaited."""
    connection = Connection(partial(sqlite3.connect, database, **options), iter_chunk_size=64)
    # A process that is cut at its stop must not wait for it.
    connection._thread.daemon = True
    threads.add(connection._thread)
    return connection


async def ended(threads: Threads) -> None:
    """Wait until these have ended, of connections that are closed or given up, as long as is reasonable.

    One whose caller was cancelled is given up and still at its statement: it has the file open, and would tell of its
    end to a loop that may be closed by then.
    """
    began = time.monotonic()
    for thread in tuple(threads):
        if thread.is_alive():
            await asyncio.to_thread(thread.join, max(0.0, began + _ENDING_SECONDS - time.monotonic()))


def _one_visit(
    connection: Connection, method: Any, statement: str, parameters: Any
) -> tuple[list[Any], Any, int, int | None]:
    connection._begin()
    cursor = method(connection._conn, statement, parameters)
    try:
        # Also where there are no rows: it steps a statement like COMMIT or INSERT … RETURNING to its end.
        rows = cursor.fetchall()
        return rows, cursor.description, cursor.rowcount, cursor.lastrowid
    finally:
        cursor.close()
