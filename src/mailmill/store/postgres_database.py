"""PostgreSQL, shared by any number of processes.

Laws:

* Several transactions write at once, READ COMMITTED; a block of reading is one REPEATABLE READ snapshot. Who decides
  about rows locks them first (``database``).
* A connection that was cut, or whose statement was, is closed and never reused; the next use makes a new one.
* No plan is older than some seconds: one that was made while a table was small reads all of it when it is large.
* Signs of life have connections of their own (`doors`): a pool that slow transactions fill costs no lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mailmill.errors import MailmillError, StoreError
from mailmill.store import postgres_link, stopped_sessions
from mailmill.store.data_folder import LOCK_WAIT_SECONDS, FolderLock, lock_files, make_private_folder
from mailmill.store.database import Database, InsertWatch, WakeName, uncut
from mailmill.store.postgres_engine import SET_LOCAL, make_engine
from mailmill.store.postgres_errors import DRIVER_ERRORS, is_ending, opened, store_error
from mailmill.store.postgres_link import Link
from mailmill.store.postgres_schema import bring_to_head
from mailmill.store.sequencer import Sequencer
from mailmill.store.wake_channel import WakeChannel

# One for the leases, one for the worker's heartbeat; these may wait for locks, and one ends who holds them up.
_URGENT_CONNECTIONS = 3
_PLANS_KEPT_SECONDS = 10.0
# A step of the queue takes some milliseconds. With a plan from when its table was empty it takes a hundred times that.
_SLOW_SECONDS = 0.1
_DOUBTED_PLANS_KEPT_SECONDS = 1.0

_PLANS_SINCE = "plans since"

_log = structlog.get_logger()

_Result = TypeVar("_Result")


class PostgresDatabase(Database):
    """One process's pools of connections, and its channel for hints."""

    alone = False

    def __init__(
        self,
        writers: AsyncEngine,
        readers: AsyncEngine,
        urgent: AsyncEngine,
        link: Link,
        hints: Link,
        lock: FolderLock,
    ) -> None:
        super().__init__()
        self.channel = WakeChannel(hints, self.wake)
        self._writers = writers
        self._readers = readers
        self._urgent = urgent
        self._link = link
        self._folder_lock = lock
        self._inserts = InsertWatch(writers)
        self._sequencer = Sequencer(self)
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        data_dir: Path,
        readers: int,
        writers: int,
        listen_url: str | None,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> PostgresDatabase:
        """`Database.open` for ``postgresql+asyncpg://…``."""
        await asyncio.to_thread(make_private_folder, data_dir)
        lock = await lock_files([data_dir / "lock"], wait_seconds=lock_wait_seconds)
        engines: list[AsyncEngine] = []
        try:
            link = await opened(postgres_link.find(url))
            hints = link if listen_url is None else await opened(postgres_link.find(listen_url), "service.listen_url")
            if hints.pooled:
                _log.warning(
                    "a pooler stands before PostgreSQL, so other nodes' hints do not arrive: they are polled for",
                    hint="set service.listen_url to the PostgreSQL server itself",
                )
            engines += [
                make_engine(link, writers),
                make_engine(link, readers, reading=True),
                make_engine(link, _URGENT_CONNECTIONS),
            ]
            await opened(bring_to_head(link))
            database = cls(engines[0], engines[1], engines[2], link, hints, lock)
        except BaseException:
            for engine in engines:
                await engine.dispose()
            lock.release()
            raise
        database.channel.open()
        database._sequencer.open()
        database._watch = asyncio.create_task(database._end_stopped_sessions(), name="an end to stopped sessions")
        return database

    @asynccontextmanager
    async def write(self, *, wake: Collection[WakeName] = ()) -> AsyncIterator[AsyncConnection]:
        began = time.monotonic()
        async with self._connected(self._writers) as connection:
            yield connection
            try:
                await uncut(_within_driver(connection, connection.commit()))
            finally:
                # A commit that was cancelled or cut off may stand; a hint for nothing does no harm.
                self._tell({*self._inserts.take(connection)}, wake)
            seconds = time.monotonic() - began
            self.observe_write(seconds)
            _doubt_plans(connection, seconds)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        async with self._connected(self._readers) as connection:
            yield connection

    @asynccontextmanager
    async def write_urgent(self, *, wake: Collection[WakeName] = ()) -> AsyncIterator[AsyncConnection]:
        """See `doors.write_urgent`."""
        async with self._connected(self._urgent) as connection:
            yield connection
            try:
                await uncut(_within_driver(connection, connection.commit()))
            finally:
                self._tell(set(), wake)

    @asynccontextmanager
    async def read_unhurried(self) -> AsyncIterator[AsyncConnection]:
        """See `doors.read_unhurried`."""
        engine = make_engine(self._link.unhurried, 1, reading=True)
        try:
            async with self._connected(engine) as connection:
                await connection.execute(SET_LOCAL, {"name": "statement_timeout", "value": "0"})
                yield connection
        finally:
            await uncut(engine.dispose())

    async def close(self) -> None:
        # The last that is put on it goes first, and each whatever became of those before it.
        async with contextlib.AsyncExitStack() as steps:
            steps.callback(self._folder_lock.release)
            steps.push_async_callback(self._urgent.dispose)
            steps.push_async_callback(self._writers.dispose)
            steps.push_async_callback(self._readers.dispose)
            steps.push_async_callback(self.channel.close)
            steps.push_async_callback(self._sequencer.close)
            if self._watch is not None:
                self._watch.cancel()
                await asyncio.wait((self._watch,))

    async def _end_stopped_sessions(self) -> None:
        while True:
            await asyncio.sleep(stopped_sessions.LOOK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            try:
                async with self._connected(self._urgent) as connection:
                    if ended := await stopped_sessions.end_stopped(connection):
                        _log.warning("ended sessions of stopped processes", sessions=ended)
            except MailmillError:
                continue  # told by whoever needs the database
            except Exception as error:  # noqa: BLE001 - a boundary: the watch goes on
                _log.error("looking for stopped sessions failed in an unforeseen way", error=repr(error))

    def _tell(self, inserted: set[WakeName], asked: Collection[WakeName]) -> None:
        if "events" in inserted:
            # An event can be read once it has its number: whoever gives that asks for the hint.
            inserted.discard("events")
            self._sequencer.stir()
        if names := {*inserted, *asked}:
            self.wake.notify(names)
            self.channel.tell(names)

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        connection = _Connection(engine)
        with _translated():
            try:
                await _connecting(connection.start())
                await connection.begin()
                if self._link.pooled:
                    await connection.execute(_LOCAL_SETTINGS)
                else:
                    await _discard_old_plans(connection)
                yield connection
            finally:
                # Rolls back what is not committed.
                if connection.sync_connection is not None:
                    await uncut(_quietly_closed(connection))


# What a session of one's own is given at its start.
_LOCAL_SETTINGS = text(
    "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in postgres_link.SESSION.items())
)


class _Connection(AsyncConnection):
    """A connection that is given up where the server does not answer."""

    async def execute(self, statement: Any, parameters: Any = None, *, execution_options: Any = None) -> Any:
        return await _within_driver(self, super().execute(statement, parameters, execution_options=execution_options))

    async def exec_driver_sql(self, statement: str, parameters: Any = None, execution_options: Any = None) -> Any:
        return await _within_driver(self, super().exec_driver_sql(statement, parameters, execution_options))

    async def run_sync(self, fn: Any, *arg: Any, **kw: Any) -> Any:
        return await _within_driver(self, super().run_sync(fn, *arg, **kw))


async def _discard_old_plans(connection: AsyncConnection) -> None:
    """Have the statements that the connection keeps prepared planned again, for the tables as they are by now.

    The server does so by itself where it has analyzed a table, which may be minutes after a first sync has filled it.
    """
    assert connection.sync_connection is not None
    kept, now = connection.sync_connection.info, time.monotonic()
    if now - kept.setdefault(_PLANS_SINCE, now) > _PLANS_KEPT_SECONDS:
        kept[_PLANS_SINCE] = now
        await connection.exec_driver_sql("DISCARD PLANS")


def _doubt_plans(connection: AsyncConnection, took_seconds: float) -> None:
    """Have plans made anew soon where a transaction was slow: it may have been for a plan."""
    assert connection.sync_connection is not None
    if took_seconds >= _SLOW_SECONDS:
        kept = connection.sync_connection.info
        due = time.monotonic() - _PLANS_KEPT_SECONDS + _DOUBTED_PLANS_KEPT_SECONDS
        kept[_PLANS_SINCE] = min(kept.get(_PLANS_SINCE, due), due)


async def _within_driver(connection: AsyncConnection, work: Awaitable[_Result]) -> _Result:
    """``work`` on ``connection``. The driver raises TimeoutError and OSError as they are, which the caller's own
    timeouts could not be told from."""
    try:
        return await work
    except (TimeoutError, OSError) as error:
        with contextlib.suppress(Exception):
            await connection.invalidate(error)
        raise store_error(error) from error
    except DBAPIError as error:
        # Until the driver has seen its end, it would be given to whoever asks next.
        if is_ending(error):
            with contextlib.suppress(Exception):
                await connection.invalidate(error)
        raise


async def _connecting(work: Awaitable[_Result]) -> _Result:
    try:
        return await work
    except DRIVER_ERRORS as error:
        raise store_error(error) from error


async def _quietly_closed(connection: AsyncConnection) -> None:
    """Give the connection back. What a broken one says to its ROLLBACK is no news."""
    try:
        await connection.close()
    except (*DRIVER_ERRORS, DBAPIError):
        with contextlib.suppress(Exception):
            await connection.invalidate()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise store_error(error) from error
    except PoolTimeoutError as error:
        raise StoreError(
            "no connection to the database became free in time",
            hint="something holds them up: look into pg_stat_activity",
        ) from error
