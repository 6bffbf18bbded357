"""The engines in one task tree, started in order and stopped in order.

::

    run_service
    ├── accounts      one task each (a scope of its own: an account's error never leaves it)
    ├── worker        processing
    ├── dispatcher    alerts
    ├── housekeeping  dead workers' rows, orphaned segments
    ├── loop watch    how late the loop is
    └── server        the API, given by the layer above

Stopping: the listeners close, watchers end (nothing new comes in), claiming ends and what runs gets a grace, then the
store closes. All of it within ten seconds; what is cut loses nothing, because nothing counts before its commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from mailmill.alerts.dispatcher import Dispatcher
from mailmill.app import wiring
from mailmill.app.access_token import ensure_token
from mailmill.app.metrics import Metrics
from mailmill.app.wiring import ConfiguredAccount
from mailmill.errors import MailmillError
from mailmill.imap.connection import ImapConnection
from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker
from mailmill.settings import Role, Settings
from mailmill.store import accounts as account_store
from mailmill.store import message_queries, queue
from mailmill.store.accounts import AccountRow
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.keys import KeyRing, open_key_ring
from mailmill.store.messages import WorkPlan
from mailmill.sync.account_sync import AccountSync
from mailmill.sync.context import SyncContext, SyncLimits
from mailmill.sync.holdings import Holdings

_log = structlog.get_logger("mailmill.app")

_GRACE_SECONDS = 4.0
_STOP_SECONDS = 9.0
_ORPHAN_AGE_SECONDS = 24 * 3600.0
_HOUSEKEEPING_SECONDS = 3600.0
_LAG_PERIOD_SECONDS = 0.25


@dataclass(slots=True)
class RunningAccount:
    """An account: what was configured, its row, and the task that keeps it in sync."""

    configured: ConfiguredAccount
    row: AccountRow
    sync: AccountSync
    connect: Callable[[], Awaitable[ImapConnection]]


@dataclass(slots=True)
class Application:
    """Everything a use case needs. Made by `open_application`."""

    settings: Settings
    database: Database
    blobs: BlobStore
    keys: KeyRing
    metrics: Metrics
    token: str
    processors: list[Processor]
    accounts: dict[str, RunningAccount]
    worker: Worker
    dispatcher: Dispatcher
    node: str
    running: bool = False
    started_at: float = field(default_factory=time.time)

    @property
    def syncing(self) -> bool:
        """Whether the accounts' own tasks keep them in sync in this process."""
        return self.running and self.has(Role.SYNC)

    def has(self, role: Role) -> bool:
        return role in self.settings.service.roles


@contextlib.asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Open the store and wire the engines; nothing runs yet.

    Raises ConfigurationError, StoreInUseError, MasterKeyError, StoreError: one line each, nothing changed.
    """
    data_dir = settings.service.data_dir
    processors = wiring.processors(settings)
    destinations = wiring.destinations(settings)
    database = await Database.open(settings.service.database_url.get_secret_value(), data_dir=data_dir)
    try:
        explicit = settings.master_key.get_secret_value() if settings.master_key else None
        keys = await open_key_ring(database, data_dir=data_dir, explicit=explicit, key_file=settings.service.key_file)
        token = await asyncio.to_thread(ensure_token, data_dir)
        spool_dir = data_dir / "spool"
        await asyncio.to_thread(_empty, spool_dir)
        blobs = BlobStore(data_dir / "blobs")
        metrics = Metrics()
        trusted: dict[str, str | None] = {}
        node = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        application = Application(
            settings=settings,
            database=database,
            blobs=blobs,
            keys=keys,
            metrics=metrics,
            token=token,
            processors=processors,
            accounts={},
            worker=Worker(database, blobs, processors, node, authserv_id=trusted.get, observe=metrics.observe),
            dispatcher=Dispatcher(database, blobs, destinations, node, observe=metrics.observe),
            node=node,
        )
        await _take_accounts(application, spool_dir)
        trusted |= {name: account.configured.authserv_id for name, account in application.accounts.items()}
        async with database.write() as connection:
            # We hold the data folder: whoever else held work is dead.
            await queue.reap(connection, heartbeat_before=time.time(), now=time.time())
        yield application
    finally:
        await database.close()


async def run_service(
    settings: Settings,
    *,
    serve: Callable[[Application], AbstractAsyncContextManager[None]],
    stop: asyncio.Event | None = None,
) -> None:
    """The service until SIGTERM, SIGINT or ``stop``. ``serve`` opens the listeners and closes them again."""
    stopping = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        async with open_application(settings) as application, engines(application), serve(application):
            _log.info("running", node=application.node, accounts=len(application.accounts))
            await stopping.wait()
            _log.info("stopping")
        _log.info("stopped")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def engines(application: Application) -> AsyncIterator[None]:
    """All engines of this process's roles, running for the length of the block."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        watchers: list[asyncio.Task[None]] = []
        workers: list[asyncio.Task[None]] = []
        background = [
            group.create_task(_housekeeping(application), name="housekeeping"),
            group.create_task(_watch_loop(application.metrics), name="loop watch"),
        ]
        if application.has(Role.SYNC):
            watchers = [
                group.create_task(account.sync.run(), name=f"account {name}")
                for name, account in application.accounts.items()
            ]
        if application.has(Role.PROCESS):
            workers.append(group.create_task(application.worker.run(stop), name="worker"))
        if application.has(Role.ALERT):
            workers.append(group.create_task(application.dispatcher.run(stop), name="dispatcher"))
        application.running = True
        try:
            yield
        finally:
            application.running = False
            stop.set()
            for task in (*watchers, *background):
                task.cancel()
            _done, late = await asyncio.wait({*watchers, *workers, *background}, timeout=_STOP_SECONDS)
            for task in late:
                _log.warning("cut at shutdown", task=task.get_name())
                task.cancel()


async def _take_accounts(application: Application, spool_dir: Path) -> None:
    """Bring the account rows to what is configured; those no longer configured are paused, nothing is purged."""
    settings, database = application.settings, application.database
    now = time.time()
    configured = await wiring.configured_accounts(settings)
    async with database.write() as connection:
        rows = {
            account.name: await account_store.ensure_account(
                connection,
                name=account.name,
                email=account.email,
                backlog=account.settings.backlog,
                credential_mark=application.keys.mark(account.mark_text()),
                now=now,
            )
            for account in configured
        }
        await account_store.pause_missing(connection, {account.name for account in configured}, now)
    slots = asyncio.Semaphore(settings.service.sync_concurrency)
    names = tuple((processor.name, processor.version) for processor in application.processors)
    for account in configured:
        row = rows[account.name]
        context = SyncContext(
            database=database,
            blobs=application.blobs,
            account=account.name,
            account_id=row.id,
            work=WorkPlan(processors=names, backlog=account.settings.backlog),
            holdings=Holdings(database),
            limits=SyncLimits(max_message_bytes=settings.service.max_message_bytes),
            on_stored=_observer(application.metrics),
        )
        connect = wiring.connector(account, spool_dir)
        sync = AccountSync(
            context,
            account.sync,
            connect=connect,
            provider=account.provider,
            state=row.state,
            reason=row.state_reason,
            initialized=row.initialized_at is not None,
            slots=slots,
        )
        application.accounts[account.name] = RunningAccount(account, row, sync, connect)


def _observer(metrics: Metrics) -> Callable[[int, float | None], None]:
    def stored(messages: int, arrived_at: float | None) -> None:
        metrics.stored.inc(messages)
        if arrived_at is not None:
            metrics.observe("arrival_to_stored", time.time() - arrived_at)

    return stored


async def _housekeeping(application: Application) -> None:
    """Now and then: segments that no transaction names, left by a crash between the file and its commit."""
    while True:
        try:
            async with application.database.read() as connection:
                referenced = await message_queries.referenced_segments(connection)
            removed = await application.blobs.collect_orphans(referenced, older_than_seconds=_ORPHAN_AGE_SECONDS)
            if removed:
                _log.info("removed orphaned segments", segments=removed)
        except MailmillError as error:  # it comes again in an hour
            _log.warning("housekeeping failed", error=str(error))
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)


async def _watch_loop(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(_LAG_PERIOD_SECONDS)
        metrics.observe("loop_lag", loop.time() - before - _LAG_PERIOD_SECONDS)


def _empty(folder: Path) -> None:
    """A fresh folder for spooled literals: what lies there is left over from a crash."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
