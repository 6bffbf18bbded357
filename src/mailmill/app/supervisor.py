"""The engines in one task tree, started in order and stopped in order.

::

    run_service
    ├── accounts      one task each (a scope of its own: an account's error never leaves it)
    ├── worker        processing
    ├── dispatcher    alerts
    ├── housekeeping  dead workers' rows, orphaned segments
    ├── loop watch    how late the loop is
    ├── memory        what a burst took, given back
    ├── sleep watch   whether the machine slept: then every account proves its link at once
    ├── verify        now and then: is the store what the server is?
    └── server        the API, given by the layer above

Stopping: at once and side by side the listeners close, watchers end (nothing new comes in), claiming ends and what runs
gets a grace; then the store closes. All of it within ten seconds, whatever hangs: a request, a processor, a thread.
What is cut loses nothing, because nothing counts before its commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from mailmill.alerts.dispatcher import Dispatcher
from mailmill.app import memory, wiring
from mailmill.app.access_token import ensure_token
from mailmill.app.changes import KEPT_SECONDS
from mailmill.app.daemon_threads import DaemonThreads
from mailmill.app.metrics import Metrics
from mailmill.app.safe_html import Sanitizer
from mailmill.app.verification import Verification
from mailmill.app.wiring import ConfiguredAccount
from mailmill.errors import MailmillError
from mailmill.imap.connection import ImapConnection
from mailmill.imap.host_budget import HostBudgets
from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.settings import Role, Settings
from mailmill.store import accounts as account_store
from mailmill.store import message_queries, queue, requests
from mailmill.store.accounts import AccountRow
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.keys import KeyRing, open_key_ring
from mailmill.store.messages import WorkPlan
from mailmill.sync.account_sync import AccountSync
from mailmill.sync.context import SyncContext, SyncLimits
from mailmill.sync.holdings import Holdings
from mailmill.sync.wake import watch_sleep

_log = structlog.get_logger("mailmill.app")

# What is running is given _GRACE_SECONDS, its outcome some more to be written; together they fit into _STOP_SECONDS,
# counted from when the stop begins, and that leaves the rest of the ten seconds to the store.
_GRACE_SECONDS = 4.0
_SWITCH_SECONDS = 0.0005
_COURTESY_SECONDS = 0.015
_STOP_SECONDS = 8.0
_CLOSE_SECONDS = 1.0
_ORPHAN_AGE_SECONDS = 24 * 3600.0
_HOUSEKEEPING_SECONDS = 3600.0
_LAG_PERIOD_SECONDS = 0.25
_WAKES_PER_SECOND = 200
_LONGEST_WAKE_SECONDS = 30.0


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
    sanitizer: Sanitizer
    token: str
    processors: list[Processor]
    accounts: dict[str, RunningAccount]
    hosts: HostBudgets
    worker: Worker
    node: str
    running: bool = False
    started_at: float = field(default_factory=time.time)
    verification: Verification = field(init=False)

    def __post_init__(self) -> None:
        self.verification = Verification(self)

    @property
    def syncing(self) -> bool:
        """Whether the accounts' own tasks keep them in sync in this process."""
        return self.running and self.has(Role.SYNC)

    def has(self, role: Role) -> bool:
        return role in self.settings.service.roles

    def make_dispatcher(self) -> Dispatcher:
        """Made when alerts are to be sent: only then do the destinations' secrets have to be there.

        Raises ConfigurationError where one is not.
        """
        destinations = wiring.destinations(self.settings)
        return Dispatcher(self.database, self.blobs, destinations, self.node, observe=self.metrics.observe)


@contextlib.asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Open the store and wire the engines; nothing runs yet.

    Raises ConfigurationError, StoreInUseError, MasterKeyError, StoreError: one line each, nothing changed.
    """
    data_dir = settings.service.data_dir
    processors = wiring.processors(settings)
    database = await Database.open(settings.service.database_url.get_secret_value(), data_dir=data_dir)
    blobs: BlobStore | None = None
    sanitizer = Sanitizer()
    dropped = 0
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
            sanitizer=sanitizer,
            token=token,
            processors=processors,
            accounts={},
            hosts=wiring.host_budgets(settings),
            worker=Worker(
                database,
                blobs,
                processors,
                node,
                settings=WorkerSettings(grace_seconds=_GRACE_SECONDS, courtesy_seconds=_COURTESY_SECONDS),
                authserv_id=trusted.get,
                observe=metrics.observe,
            ),
            node=node,
        )
        await _take_accounts(application, spool_dir)
        trusted |= {name: account.configured.authserv_id for name, account in application.accounts.items()}
        async with database.write() as connection:
            # We hold the data folder: whoever else held work is dead.
            await queue.reap(connection, heartbeat_before=time.time(), now=time.time())
            if application.has(Role.PROCESS):
                names = {processor.name for processor in processors}
                dropped = await queue.drop_unconfigured(connection, names, time.time())
        if dropped:
            _log.warning("dropped work for processors that are not configured any more", rows=dropped)
        yield application
    finally:
        sanitizer.close()
        if blobs is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await blobs.close()
        await database.close()


async def run_service(
    settings: Settings,
    *,
    serve: Callable[[Application], AbstractAsyncContextManager[None]],
    stop: asyncio.Event | None = None,
) -> None:
    """The service until SIGTERM, SIGINT or ``stop``. ``serve`` opens the listeners and closes them again."""
    memory.limit_arenas()
    memory.settle()
    # Processors run in threads. What the loop does (a push, a webhook) must not wait 5 ms for each turn of the lock.
    sys.setswitchinterval(_SWITCH_SECONDS)
    stopping = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(DaemonThreads())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        async with (
            open_application(settings) as application,
            engines(application) as begin_stop,
            serve(application),
        ):
            _log.info("running", node=application.node, accounts=len(application.accounts))
            await stopping.wait()
            _log.info("stopping")
            begin_stop()
        _log.info("stopped")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def engines(application: Application) -> AsyncIterator[Callable[[], None]]:
    """All engines of this process's roles, running for the length of the block.

    Gives a function that begins their stop already within the block; its end waits for it. Raises ConfigurationError,
    before anything runs, where a destination's secret cannot be had.
    """
    dispatcher = application.make_dispatcher() if application.has(Role.ALERT) else None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def woke(slept_seconds: float) -> None:
        _wake(application, slept_seconds, loop.call_later)

    async with asyncio.TaskGroup() as group:
        watchers: list[asyncio.Task[None]] = []
        workers: list[asyncio.Task[None]] = []
        background = [
            group.create_task(_housekeeping(application), name="housekeeping"),
            group.create_task(_watch_loop(application.metrics), name="loop watch"),
            group.create_task(memory.keep_trimmed(), name="memory"),
            group.create_task(watch_sleep(woke), name="sleep watch"),
        ]
        verify_seconds = application.settings.service.verify_interval_seconds
        if application.has(Role.SYNC) and verify_seconds:
            background.append(group.create_task(application.verification.run(verify_seconds), name="verify"))
        if application.has(Role.SYNC):
            watchers = [
                group.create_task(account.sync.run(), name=f"account {name}")
                for name, account in application.accounts.items()
            ]
        if application.has(Role.PROCESS):
            workers.append(group.create_task(application.worker.run(stop), name="worker"))
        if dispatcher is not None:
            workers.append(group.create_task(dispatcher.run(stop), name="dispatcher"))
        application.running = True
        cut_at = 0.0

        def begin_stop() -> None:
            nonlocal cut_at
            if not stop.is_set():
                cut_at = loop.time() + _STOP_SECONDS
                stop.set()
                for task in (*watchers, *background):
                    task.cancel()

        try:
            yield begin_stop
        finally:
            application.running = False
            begin_stop()
            left = max(0.0, cut_at - loop.time())
            _done, late = await asyncio.wait({*watchers, *workers, *background}, timeout=left)
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
                credential_mark=None if account.problem else application.keys.mark(account.mark_text()),
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
        connect = wiring.connector(account, spool_dir, application.hosts)
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
        application.hosts.of(account.endpoint.host).call_back(account.name, sync.called_back)
        application.accounts[account.name] = RunningAccount(account, row, sync, connect)


def _observer(metrics: Metrics) -> Callable[[int, float | None], None]:
    def stored(messages: int, arrived_at: float | None) -> None:
        metrics.stored.inc(messages)
        if arrived_at is not None:
            metrics.observe("arrival_to_stored", time.time() - arrived_at)

    return stored


async def _housekeeping(application: Application) -> None:
    """Now and then: segments that no transaction names, left by a crash between the file and its commit; requests that
    were finished long ago.
    """
    while True:
        try:
            async with application.database.read() as connection:
                referenced = await message_queries.referenced_segments(connection)
            removed = await application.blobs.collect_orphans(referenced, older_than_seconds=_ORPHAN_AGE_SECONDS)
            if removed:
                _log.info("removed orphaned segments", segments=removed)
            async with application.database.write() as connection:
                await requests.prune(connection, time.time() - KEPT_SECONDS)
        except MailmillError as error:  # it comes again in an hour
            _log.warning("housekeeping failed", error=str(error), hint=error.hint)
        except Exception as error:  # noqa: BLE001 - the boundary: nothing here is worth the service's life
            # Rendered here: a logger's own rendering of an exception may fail, and would end this task.
            _log.error("housekeeping failed", error=str(error), exception="".join(traceback.format_exception(error)))
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)


def _wake(
    application: Application, slept_seconds: float, call_later: Callable[[float, Callable[[], None]], object]
) -> None:
    """After a sleep most links are dead without knowing. Spread: the machine and its network have enough to do."""
    accounts = list(application.accounts.values())
    _log.info("the machine slept", seconds=round(slept_seconds), accounts=len(accounts))
    if not application.syncing:
        return
    spread_seconds = min(_LONGEST_WAKE_SECONDS, len(accounts) / _WAKES_PER_SECOND)
    for number, account in enumerate(accounts):
        call_later(spread_seconds * number / len(accounts), account.sync.woke)


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
