"""The engines in one task tree, started in order and stopped in order.

::

    run_service
    ├── accounts      one task each (a scope of its own: an account's error never leaves it)
    ├── ownership     on PostgreSQL: which accounts are this node's; it starts and ends their tasks
    ├── worker        processing
    ├── dispatcher    alerts
    ├── housekeeping  retention, accounts being deleted, raw mail that nobody needs
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
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog

from mailmill.alerts.dispatcher import Dispatcher
from mailmill.app import memory, wiring
from mailmill.app.access_token import ensure_token
from mailmill.app.account_tasks import AccountTasks, RunningAccount, pause_missing, take_accounts
from mailmill.app.daemon_threads import DaemonThreads
from mailmill.app.errands import Errands
from mailmill.app.housekeeping import keep_house
from mailmill.app.metrics import Metrics
from mailmill.app.ownership import Ownership, OwnershipSettings
from mailmill.app.reprocessing import Reprocessing
from mailmill.app.safe_html import Sanitizer
from mailmill.app.verification import Verification
from mailmill.errors import StorageRefusedError, StorageUnavailableError
from mailmill.imap.host_budget import HostBudgets
from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.settings import Role, Settings
from mailmill.store import queue
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.keys import KeyRing, open_key_ring
from mailmill.store.leases import Node
from mailmill.store.store_clock import StoreClock
from mailmill.sync.wake import watch_sleep

_log = structlog.get_logger("mailmill.app")

# What is running is given _GRACE_SECONDS, its outcome some more to be written; together they fit into _STOP_SECONDS,
# counted from when the stop begins, and that leaves the rest of the ten seconds to the store.
_GRACE_SECONDS = 4.0
_SWITCH_SECONDS = 0.0005
_COURTESY_SECONDS = 0.015
_STOP_SECONDS = 8.0
_CLOSE_SECONDS = 1.0
_LAG_PERIOD_SECONDS = 0.25
_WAKES_PER_SECOND = 200
_MOST_HOST_CHARACTERS = 50
_VERSION = version("mailmill")
_LONGEST_WAKE_SECONDS = 30.0
_DROPPED_AT_ONCE = 1000


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
    clock: StoreClock
    running: bool = False
    started_at: float = field(default_factory=time.time)
    verification: Verification = field(init=False)
    reprocessing: Reprocessing = field(init=False)
    errands: Errands = field(init=False)

    def __post_init__(self) -> None:
        self.verification = Verification(self)
        self.reprocessing = Reprocessing(self)
        self.errands = Errands(self)

    @property
    def fleet_node(self) -> Node:
        """This process as the other nodes see it."""
        roles = tuple(str(role) for role in self.settings.service.roles)
        return Node(self.node, socket.gethostname(), roles, _VERSION)

    @property
    def has_other_nodes(self) -> bool:
        """Whether this is a service that others share the accounts with: what it does not keep, one of them does."""
        return self.running and not self.database.alone

    def has(self, role: Role) -> bool:
        return role in self.settings.service.roles

    def make_dispatcher(self) -> Dispatcher:
        """Made when alerts are to be sent: only then do the destinations' secrets have to be there.

        Raises ConfigurationError where one is not.
        """
        destinations = wiring.destinations(self.settings)
        return Dispatcher(self.database, self.blobs, destinations, self.node, observe=self.metrics.observe)


@contextlib.asynccontextmanager
async def open_application(
    settings: Settings, *, for_command: bool = False, stays: bool = False
) -> AsyncIterator[Application]:
    """Open the store and wire the engines; nothing runs yet.

    ``for_command``: it is no service. What the configuration says of accounts and of the place for raw mail is not
    brought to the store then, or a command that looks would decide for all nodes; what the command does may.
    ``stays``: it runs for long (`Database.open`).

    Raises ConfigurationError, StoreInUseError, MasterKeyError, StoreError: one line each, nothing changed.
    """
    data_dir = settings.service.data_dir
    # In a thread: it imports the user's modules and reads and compiles the user's rules.
    processors = await asyncio.to_thread(wiring.processors, settings)
    listen_url = settings.service.listen_url
    database = await Database.open(
        settings.service.database_url.get_secret_value(),
        data_dir=data_dir,
        writers=settings.service.database_connections,
        listen_url=listen_url.get_secret_value() if listen_url is not None else None,
        stays=stays,
    )
    blobs: BlobStore | None = None
    sanitizer = Sanitizer()
    dropped = 0
    try:
        clock = StoreClock(database)
        await clock.look()
        explicit = settings.master_key.get_secret_value() if settings.master_key else None
        keys = await open_key_ring(database, data_dir=data_dir, explicit=explicit, key_file=settings.service.key_file)
        token = await asyncio.to_thread(ensure_token, data_dir)
        spool_dir = data_dir / "spool"
        await asyncio.to_thread(_empty, spool_dir)
        metrics = Metrics()
        database.observe_write = partial(metrics.observe, "database_write")
        blobs = wiring.blob_store(settings, database, observe=metrics.observe)
        if not for_command:
            await _prove(blobs)
        if not for_command and not (database.alone or settings.service.blob_url):
            _log.warning(
                "other nodes cannot read the mail that this one stores: it lies in a folder of this machine",
                folder=blobs.shown,
                hint="set service.blob_url to an object store, or to file:///FOLDER of a mount that all nodes share",
            )
        trusted: dict[str, str | None] = {}
        node = f"{socket.gethostname()[:_MOST_HOST_CHARACTERS]}:{os.getpid()}:{secrets.token_hex(4)}"
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
                settings=WorkerSettings(
                    alone=database.alone, grace_seconds=_GRACE_SECONDS, courtesy_seconds=_COURTESY_SECONDS
                ),
                authserv_id=trusted.get,
                observe=metrics.observe,
                clock=clock,
            ),
            node=node,
            clock=clock,
        )
        keeps = application.has(Role.SYNC) and not for_command
        application.accounts |= await take_accounts(application, spool_dir, keeps=keeps)
        trusted |= {name: account.configured.authserv_id for name, account in application.accounts.items()}
        if database.alone:
            async with database.write() as connection:
                # Whoever else held work is dead.
                await queue.reap(connection, dead_after_seconds=0, now=time.time(), told_at=time.time())
            # Where there are other nodes they may have processors that are not configured here, and a command may be
            # given another configuration than the service.
            if application.has(Role.PROCESS) and not for_command:
                dropped = await _drop_unconfigured(database, clock, {processor.name for processor in processors})
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


async def _drop_unconfigured(database: Database, clock: StoreClock, names: Collection[str]) -> int:
    """In pieces, so that nobody waits long to write. Returns how many rows went."""
    dropped, piece = 0, _DROPPED_AT_ONCE
    while piece == _DROPPED_AT_ONCE:
        async with database.write() as connection:
            piece = await queue.drop_unconfigured(connection, names, clock(), limit=_DROPPED_AT_ONCE)
        dropped += piece
    return dropped


async def _prove(blobs: BlobStore) -> None:
    """Raises StoreError where the raw messages cannot be kept there. A store that is merely away may come back: mail
    waits for it on its server, and so do all who read.
    """
    try:
        await blobs.prove()
    except StorageRefusedError:
        raise
    except StorageUnavailableError as error:
        _log.warning("started while raw messages cannot be had", error=error.message, hint=error.hint)


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
            open_application(settings, stays=True) as application,
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
    if application.has(Role.SYNC):
        await pause_missing(application)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def woke(slept_seconds: float) -> None:
        _wake(application, slept_seconds, loop.call_later)

    async with asyncio.TaskGroup() as group:
        workers: list[asyncio.Task[None]] = []
        accounts = AccountTasks(group, application.database, application.accounts.values())
        background = [
            group.create_task(keep_house(application), name="housekeeping"),
            group.create_task(_watch_loop(application.metrics), name="loop watch"),
            group.create_task(memory.keep_trimmed(), name="memory"),
            group.create_task(application.reprocessing.run(), name="reprocessing"),
            group.create_task(watch_sleep(woke), name="sleep watch"),
        ]
        verify_seconds = application.settings.service.verify_interval_seconds
        if application.has(Role.SYNC) and verify_seconds:
            background.append(group.create_task(application.verification.run(verify_seconds), name="verify"))
        if not application.database.alone:
            lease_seconds = application.settings.service.lease_seconds
            ownership = Ownership(
                application.database, application.fleet_node, accounts, OwnershipSettings(lease_seconds=lease_seconds)
            )
            workers.append(group.create_task(ownership.run(stop), name="ownership"))
            background.append(group.create_task(application.errands.run(), name="errands"))
            background.append(group.create_task(application.clock.keep(), name="store clock"))
        elif application.has(Role.SYNC):
            accounts.start_all()
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
                accounts.cancel()
                for task in background:
                    task.cancel()

        try:
            yield begin_stop
        finally:
            application.running = False
            begin_stop()
            left = max(0.0, cut_at - loop.time())
            _done, late = await asyncio.wait({*accounts.running, *workers, *background}, timeout=left)
            for task in late:
                _log.warning("cut at shutdown", task=task.get_name())
                task.cancel()


def _wake(
    application: Application, slept_seconds: float, call_later: Callable[[float, Callable[[], None]], object]
) -> None:
    """After a sleep most links are dead without knowing. Spread: the machine and its network have enough to do."""
    accounts = [account for account in application.accounts.values() if account.kept]
    _log.info("the machine slept", seconds=round(slept_seconds), accounts=len(accounts))
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
