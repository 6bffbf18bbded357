"""The embedded database: one SQLite file in one process.

Laws:

* One connection writes (``BEGIN IMMEDIATE``), and callers get it one after the other, in the order they asked. SQLite
  3.7.0 to 3.51.2 can corrupt a WAL that two connections write or checkpoint at once, so only this one checkpoints too
  and the readers are ``mode=ro``.
* A statement on the writer is never cut: a cancellation that arrives during one is raised when it is over, then the
  transaction is rolled back; a `transact` that waits in the thread is carried out whole. So the connection survives,
  and no thread still writes when the next caller begins.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from sqlalchemy import URL, event, make_url
from sqlalchemy import Connection as SyncConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from mailmill.errors import ConfigurationError, StorageFullError, StoreError
from mailmill.store import sqlite_driver
from mailmill.store.data_folder import (
    LOCK_WAIT_SECONDS,
    FolderLock,
    lock_files,
    make_private_file,
    make_private_folder,
)
from mailmill.store.database import Database, InsertWatch, WakeName, hint_of, uncut
from mailmill.store.migrate import migrate_sqlite

_Result = TypeVar("_Result")

_BUSY_TIMEOUT_SECONDS = 10.0
_BEGIN_WRITING = "BEGIN IMMEDIATE"
_FULL_ERRORS = frozenset({"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})
_DAMAGE_ERRORS = ("SQLITE_CORRUPT", "SQLITE_NOTADB")

_URL_HINT = "use sqlite+aiosqlite:///PATH"


class SqliteDatabase(Database):
    """One open file. The data folder is locked for as long as it is open."""

    alone = True

    def __init__(
        self, writer: AsyncEngine, readers: AsyncEngine, lock: FolderLock, threads: sqlite_driver.Threads
    ) -> None:
        super().__init__()
        self._threads = threads
        self._writer = writer
        self._readers = readers
        self._folder_lock = lock
        self._turn = asyncio.Lock()  # asyncio's lock is FIFO
        self._inserts = InsertWatch(writer)
        self._kept: _UncutConnection | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        data_dir: Path,
        readers: int,
        stays: bool = False,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> SqliteDatabase:
        """`Database.open` for ``sqlite+aiosqlite:///PATH``."""
        path, locks = await asyncio.to_thread(_find_place, url, data_dir)
        lock = await lock_files(locks, wait_seconds=lock_wait_seconds)
        threads = sqlite_driver.Threads()
        database = cls(*await asyncio.to_thread(_prepare, path, lock, readers, stays, threads), lock, threads)
        try:
            # The writer connects first: it turns WAL on, which a reader cannot.
            async with database.write():
                pass
        except BaseException:
            await database.close()
            raise
        return database

    @asynccontextmanager
    async def write(self, *, wake: Collection[WakeName] = ()) -> AsyncIterator[AsyncConnection]:
        began = time.monotonic()
        async with self._turn, self._transaction(began, wake) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, began: float, wake: Collection[WakeName]) -> AsyncIterator[AsyncConnection]:
        """What :meth:`write` gives, for who has the turn; waited for since ``began``."""
        with _translated():
            # Kept from one transaction to the next while all goes well.
            connection, self._kept = self._kept, None
            if connection is None:
                connection = _UncutConnection(self._writer, self._inserts.notice)
            try:
                if connection.sync_connection is None:
                    await uncut(connection.start())
                await connection.begin()
                yield connection
                try:
                    await uncut(connection.commit())
                finally:
                    # A cancelled commit may stand; a hint for nothing does no harm.
                    self.wake.notify({*self._inserts.take(connection), *wake})
                self._kept = connection
                self.observe_write(time.monotonic() - began)
            finally:
                # Rolls back what is not committed: a body that raised, or a COMMIT that failed (disk full, busy).
                if self._kept is None and connection.sync_connection is not None:
                    self._inserts.take(connection)
                    await uncut(connection.close())

    async def transact(self, step: Callable[[SyncConnection], _Result]) -> _Result:
        began = time.monotonic()
        touched: set[WakeName] = set()

        def notice(statement: str) -> None:
            name = hint_of(statement)
            if name is not None:
                touched.add(name)

        async with self._turn:
            if self._kept is None:
                async with self._transaction(began, ()) as connection:
                    return await connection.run_sync(step)
            # While it waits for its turn in the writer's thread others may take theirs behind it.
            waiting = self._kept.driver.transact(_BEGIN_WRITING, notice, step)
        with _translated():
            try:
                return await uncut(waiting)
            finally:
                # One that was cancelled stands too.
                if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                    self.wake.notify(touched)
                    self.observe_write(time.monotonic() - began)
                del waiting  # it holds its error, whose traceback holds this frame

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        with _translated():
            async with self._readers.connect() as connection:
                yield connection

    async def close(self) -> None:
        async with self._turn:
            await uncut(self._close())

    async def _close(self) -> None:
        await self._readers.dispose()
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.close()
        # The writer last: SQLite then folds the WAL into the database file.
        await self._writer.dispose()
        await sqlite_driver.ended(self._threads)
        self._folder_lock.release()


class _UncutConnection(AsyncConnection):
    """A connection whose statements finish before a cancellation is raised.

    SQLAlchemy takes a cancelled statement for a broken connection and reconnects, while the driver's thread may still
    be writing on the old one.
    """

    def __init__(self, engine: AsyncEngine, notice: Callable[[SyncConnection, str], None]) -> None:
        """``notice`` is told of the statements of `run_sync`, which no listener of ``engine`` sees."""
        super().__init__(engine)
        self._notice = notice

    async def execute(self, statement: Any, parameters: Any = None, *, execution_options: Any = None) -> Any:
        return await uncut(super().execute(statement, parameters, execution_options=execution_options))

    async def exec_driver_sql(self, statement: str, parameters: Any = None, execution_options: Any = None) -> Any:
        return await uncut(super().exec_driver_sql(statement, parameters, execution_options))

    async def run_sync(self, fn: Any, *arg: Any, **kw: Any) -> Any:
        """One visit to the writer's thread, however many statements ``fn`` executes on the connection it is given."""
        notice = partial(self._notice, self._proxied)
        return await uncut(self.driver.visit(notice, lambda visitor: fn(visitor, *arg, **kw)))

    @property
    def driver(self) -> sqlite_driver.Connection:
        return cast("sqlite_driver.Connection", self._proxied.connection.driver_connection)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise _store_error(error.orig or error) from error
    except sqlite3.Error as error:  # of the driver's own cursor
        raise _store_error(error) from error
    except PoolTimeoutError as error:
        raise StoreError("no reading connection to the database became free in time") from error


def _store_error(error: BaseException) -> StoreError:
    name = getattr(error, "sqlite_errorname", "")
    if name in _FULL_ERRORS:
        return StorageFullError(
            f"the database cannot grow: {error}",
            hint="free space on the disk of the data folder (or raise its quota); nothing was lost",
        )
    if name.startswith(_DAMAGE_ERRORS):
        return StoreError(
            f"the database is damaged: {error}",
            hint="stop the service, keep a copy of the file, and restore the latest backup",
        )
    if name.startswith("SQLITE_BUSY"):
        return StoreError(
            f"the database is locked by another program: {error}", hint="close the program that has the file open"
        )
    return StoreError(f"the database failed: {error}")


def sqlite_path(url: str) -> Path:
    """The file that ``url`` names. Raises ConfigurationError."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(
            "the database URL cannot be read", key="service.database_url", hint=_URL_HINT
        ) from error
    if parsed.drivername != "sqlite+aiosqlite" or not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise ConfigurationError(
            f"the database {parsed.drivername!r} is not supported like that", key="service.database_url", hint=_URL_HINT
        )
    return Path(parsed.database).expanduser().absolute()


def _find_place(url: str, data_dir: Path) -> tuple[Path, list[Path]]:
    """The database's file and what is to be locked for it, their folders made."""
    path = sqlite_path(url)
    make_private_folder(data_dir)
    locks = [data_dir / "lock"]
    if path.parent.resolve() != data_dir.resolve():
        # Two data folders may name one database file: it needs a lock of its own.
        if not path.parent.exists():
            make_private_folder(path.parent)
        locks.append(path.with_name(f"{path.name}.lock"))
    return path, locks


def _prepare(
    path: Path, lock: FolderLock, readers: int, stays: bool, threads: sqlite_driver.Threads
) -> tuple[AsyncEngine, AsyncEngine]:
    """All that blocks: files, migrations, engines (which do not connect yet). Gives up the lock where it fails: here,
    since a caller that is cancelled would do so while the migrations run.
    """
    try:
        make_private_file(path)
        with _translated():
            migrate_sqlite(path, apart=stays)
        writing = URL.create("sqlite+aiosqlite", database=str(path))
        # As a URI, so that characters such as "?" and "%" in the path stay part of it.
        reading = URL.create(
            "sqlite+aiosqlite", database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"}
        )
        return (
            _sqlite_engine(writing, threads, pool_size=1, begin=_BEGIN_WRITING, pragmas=_WRITER_PRAGMAS, visited=True),
            _sqlite_engine(reading, threads, pool_size=readers, begin="BEGIN", pragmas=_READER_PRAGMAS),
        )
    except sqlite3.Error as error:
        lock.release()
        raise _store_error(error) from error
    except BaseException:
        lock.release()
        raise


_WRITER_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA wal_autocheckpoint=4000",  # pages: 16 MiB
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-16000",  # KiB
    "PRAGMA temp_store=MEMORY",
)
_READER_PRAGMAS = ("PRAGMA cache_size=-4000", "PRAGMA temp_store=MEMORY")


def _sqlite_engine(
    url: URL,
    threads: sqlite_driver.Threads,
    *,
    pool_size: int,
    begin: str,
    pragmas: Sequence[str],
    visited: bool = False,
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # an error's text would hold mail
        # The driver must not begin or commit by itself: BEGIN is ours, below.
        connect_args={
            "isolation_level": None,
            "timeout": _BUSY_TIMEOUT_SECONDS,
            "async_creator_fn": partial(sqlite_driver.connect, threads),
        },
    )

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()
        if visited:
            connection.run_async(sqlite_driver.Connection.open_to_visits)

    @event.listens_for(engine.sync_engine, "begin")
    def begin_transaction(connection: SyncConnection) -> None:
        driver = cast("sqlite_driver.Connection", connection.connection.driver_connection)
        driver.begin_by(begin)

    return engine
