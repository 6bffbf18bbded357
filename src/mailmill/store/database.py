"""The database and its transactions: the door, the same for every make of database.

``write`` is one transaction, ``read`` one snapshot. What is behind the door: ``sqlite_database`` (one writer at a time,
one process) and ``postgres_database`` (several writers at once, in any number of processes).

Laws:

* Functions of the store never count on being the only writer: they lock the rows they decide about
  (`dialect.lock`), always in the one order that `row_locks` says.
* A cancellation during a COMMIT is raised when that is over, so then the transaction stands.
* Hints go out after the commit. The door watches what a transaction INSERTs into ``work``, ``event``, ``delivery`` and
  ``request``, so functions that write rows need not know. What is not an insert is told by ``write(wake=…)``: updates
  are left out on purpose, or a claim that found nothing would wake its own claimer for ever.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mailmill.store.data_folder import LOCK_WAIT_SECONDS
from mailmill.store.wakeups import WakeName, Wakeups

__all__ = ["Database", "InsertWatch", "WakeName", "hint_of", "uncut"]

_WAKING_TABLES: dict[str, WakeName] = {
    "work": "work", "event": "events", "delivery": "deliveries", "request": "requests"
}  # fmt: skip
_INSERT = "INSERT INTO "
_WITH = "WITH "

_Result = TypeVar("_Result")


class Database(ABC):
    """One open store. Made by `open`; `close` gives all connections and the data folder back.

    ``wake`` holds the hints of this store. ``alone``: no other process has this database open, so whatever is found
    unfinished was left by a process that is dead.
    """

    wake: Wakeups
    alone: bool

    observe_write: Callable[[float], None]
    """Told of each transaction that was committed how many seconds it took, the wait for its turn included."""

    def __init__(self) -> None:
        self.wake = Wakeups()
        self.observe_write = _unobserved

    @staticmethod
    async def open(
        url: str,
        *,
        data_dir: Path,
        readers: int = 4,
        writers: int = 8,
        listen_url: str | None = None,
        stays: bool = False,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> Database:
        """Lock ``data_dir``, connect, bring the schema to head.

        ``url`` is ``sqlite+aiosqlite:///PATH`` or ``postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE``. ``readers`` is
        how many may read at once, ``writers`` how many may write where several may. ``listen_url``: where a pooler
        stands before PostgreSQL, the server itself, for the one connection that listens. ``stays``: the process is a
        service, and what only a migration needs is not to stay in its memory. ``lock_wait_seconds``: how long a folder
        that another process holds is waited for.

        Raises StoreInUseError, StorageFullError, StoreError, and ConfigurationError for a URL that cannot be used.
        """
        # Neither driver is loaded where the other one serves.
        if url.startswith("postgresql"):
            from mailmill.store.postgres_database import PostgresDatabase

            return await PostgresDatabase.connect(
                url,
                data_dir=data_dir,
                readers=readers,
                writers=writers,
                listen_url=listen_url,
                lock_wait_seconds=lock_wait_seconds,
            )
        from mailmill.store.sqlite_database import SqliteDatabase

        return await SqliteDatabase.connect(
            url, data_dir=data_dir, readers=readers, stays=stays, lock_wait_seconds=lock_wait_seconds
        )

    @abstractmethod
    def write(self, *, wake: Collection[WakeName] = ()) -> AbstractAsyncContextManager[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back when it raises.

        ``wake`` names hints to give after the commit besides those the inserts ask for. Can be cancelled at any point;
        a cancellation during the commit itself is raised after it, so then the transaction stands. Driver errors leave
        as StorageFullError or StoreError; within the block they are SQLAlchemy's own, or of
        SQLite's own cursor (`driver_cursor`).
        """

    async def transact(self, step: Callable[[Connection], _Result]) -> _Result:
        """``step`` as a whole transaction: committed when it returns, rolled back when it raises. Errors of the driver
        leave as in `write`.

        On SQLite it is one visit to the writer's thread, in which ``step`` runs (so it must not touch the loop), and
        who writes next is already waiting there: for what is done many times a second. A cancellation may be raised
        when it is over, and then it stands.
        """
        async with self.write() as connection:
            return await connection.run_sync(step)

    @abstractmethod
    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One snapshot of what is committed, for reading only. Waits for a free reader."""

    @abstractmethod
    async def close(self) -> None:
        """Wait for the writes that run, close all connections, give the folder back. May be called twice."""


def _unobserved(_seconds: float) -> None:
    return


class InsertWatch:
    """Which hints the INSERTs of each connection's transaction ask for."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._touched: WeakKeyDictionary[Connection, set[WakeName]] = WeakKeyDictionary()
        event.listen(engine.sync_engine, "after_cursor_execute", self._listen)

    def take(self, connection: AsyncConnection) -> Collection[WakeName]:
        """What the transaction that ends on ``connection`` asks for; the next one begins with nothing."""
        sync_connection = connection.sync_connection
        return self._touched.pop(sync_connection, ()) if sync_connection is not None else ()

    def notice(self, connection: Connection, statement: str) -> None:
        """``statement`` was executed in the transaction of ``connection``."""
        name = hint_of(statement)
        if name is not None:
            self._touched.setdefault(connection, set()).add(name)

    def _listen(self, connection: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        self.notice(connection, statement)


def hint_of(statement: str) -> WakeName | None:
    """The hint that ``statement`` asks for, if any: who waits for what it inserts."""
    if statement.startswith(_WITH):
        # One that does several things: of what it inserts there is one table at most that anybody waits for.
        return next((name for table, name in _WAKING_TABLES.items() if f"{_INSERT}{table} " in statement), None)
    if not statement.startswith(_INSERT):
        return None
    return _WAKING_TABLES.get(statement[len(_INSERT) :].split(" ", 1)[0])


async def uncut(work: Coroutine[Any, Any, _Result] | asyncio.Future[_Result]) -> _Result:
    """Run ``work`` to its end; a cancellation that came meanwhile is raised after it, in place of its outcome."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # marked as seen
        raise cancelled
    try:
        return task.result()
    finally:
        del task  # it holds its error, whose traceback holds this frame: a statement half read would stay open
