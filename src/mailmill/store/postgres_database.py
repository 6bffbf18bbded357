"""PostgreSQL, shared by any number of processes.

Laws:

* Several transactions write at once, READ COMMITTED; a block of reading is one REPEATABLE READ snapshot. Who decides
  about rows locks them first (``database``).
* A connection that was cut, or whose statement was, is closed and never reused; the next use makes a new one.
* One process at a time changes the schema, under an advisory lock that ends with its transaction.
* No plan is older than some seconds: one that was made while a table was small reads all of it when it is large.
* Signs of life have connections of their own (`doors`): a pool that slow transactions fill costs no lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import structlog
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mailmill.errors import MailmillError, StoreError
from mailmill.store import migrate, postgres_link, stopped_sessions
from mailmill.store.data_folder import FolderLock, make_private_folder
from mailmill.store.database import Database, InsertWatch, WakeName, uncut
from mailmill.store.postgres_errors import DRIVER_ERRORS, opening_error, store_error
from mailmill.store.postgres_link import Link
from mailmill.store.sequencer import Sequencer
from mailmill.store.wake_channel import WakeChannel

_POOL_WAIT_SECONDS = 30.0
# One for the leases, one for the worker's heartbeat; these may wait for locks, and one ends who holds them up.
_URGENT_CONNECTIONS = 3
_PLANS_KEPT_SECONDS = 10.0
_MIGRATION_LOCK = 0x6D61696C  # any number that all versions agree on
_MIGRATION_WAIT = "60s"
_MIGRATION_TRIES = 5
# SQLSTATE: a deadlock with a node that reads tables in another order, a table that did not become free in time.
_IN_THE_WAY = ("40P01", "55P03")
_KEEPALIVE_SECONDS = 30

_PLANS_SINCE = "plans since"
_SET_LOCAL = text("SELECT set_config(:name, :value, true)")

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
        cls, url: str, *, data_dir: Path, readers: int, writers: int, listen_url: str | None
    ) -> PostgresDatabase:
        """`Database.open` for ``postgresql+asyncpg://…``."""
        lock = await asyncio.to_thread(_lock_folder, data_dir)
        engines: list[AsyncEngine] = []
        try:
            link = await _opened(postgres_link.find(url))
            hints = link if listen_url is None else await _opened(postgres_link.find(listen_url), "service.listen_url")
            if hints.pooled:
                _log.warning(
                    "a pooler stands before PostgreSQL, so other nodes' hints do not arrive: they are polled for",
                    hint="set service.listen_url to the PostgreSQL server itself",
                )
            engines += [
                _engine(link, writers),
                _engine(link, readers, reading=True),
                _engine(link, _URGENT_CONNECTIONS),
            ]
            await _opened(_bring_to_head(link))
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
            self.observe_write(time.monotonic() - began)

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
        engine = _engine(self._link.unhurried, 1, reading=True)
        try:
            async with self._connected(engine) as connection:
                await connection.execute(_SET_LOCAL, {"name": "statement_timeout", "value": "0"})
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


async def _within_driver(connection: AsyncConnection, work: Awaitable[_Result]) -> _Result:
    """``work`` on ``connection``. The driver raises TimeoutError and OSError as they are, which the caller's own
    timeouts could not be told from."""
    try:
        return await work
    except (TimeoutError, OSError) as error:
        with contextlib.suppress(Exception):
            await connection.invalidate(error)
        raise store_error(error) from error


async def _connecting(work: Awaitable[_Result]) -> _Result:
    try:
        return await work
    except DRIVER_ERRORS as error:
        raise store_error(error) from error


async def _opened(work: Awaitable[_Result], key: str = "service.database_url") -> _Result:
    try:
        return await work
    except MailmillError:
        raise
    except (*DRIVER_ERRORS, DBAPIError, ValueError, TypeError) as error:
        raise opening_error(error, key) from error


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


def _engine(link: Link, size: int, *, reading: bool = False) -> AsyncEngine:
    engine = create_async_engine(
        "postgresql+asyncpg://",
        pool_size=size,
        max_overflow=0,
        pool_timeout=_POOL_WAIT_SECONDS,
        pool_use_lifo=True,  # what a burst needed can be closed by the server afterwards
        hide_parameters=True,  # an error's text would hold mail
        isolation_level="REPEATABLE READ" if reading else "READ COMMITTED",
        connect_args={"async_creator_fn": link.connect, **link.statements},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.readonly = reading
        _keep_alive(connection.driver_connection)

    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(connection: Any, _record: object, _proxy: object) -> None:
        # The driver sees the end of a connection as it happens, so this costs no round trip.
        if connection.driver_connection.is_closed():
            raise DisconnectionError("the server has closed this connection")

    return engine


def _keep_alive(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Have the system find out about a peer that is gone without a word."""
    link = connection._transport.get_extra_info("socket")
    if link is not None and link.family in (socket.AF_INET, socket.AF_INET6):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_SECONDS // 3)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _lock_folder(data_dir: Path) -> FolderLock:
    make_private_folder(data_dir)
    return FolderLock([data_dir / "lock"])


async def upgrade(url: str) -> None:
    """Bring the database at ``url`` to this version's schema. Raises StoreError and ConfigurationError."""
    await _opened(_bring_to_head(await _opened(postgres_link.find(url))))


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

    return await _opened(look(), key)


async def _bring_to_head(link: Link) -> None:
    engine = _engine(link, 1)
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
    engine = _engine(link.unhurried, 1)
    try:
        async with engine.begin() as connection:
            # Nodes that start at once wait for the first. A migration may take as long as it takes, but must not keep
            # running nodes waiting behind it for a table.
            for name, value in {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}.items():
                await connection.execute(_SET_LOCAL, {"name": name, "value": value})
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            await connection.execute(_SET_LOCAL, {"name": "lock_timeout", "value": _MIGRATION_WAIT})
            if await connection.run_sync(migrate.revision_of) != migrate.HEAD:
                await connection.run_sync(migrate.upgrade)
    finally:
        await engine.dispose()
