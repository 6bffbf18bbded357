"""What a use case needs, opened together and closed together: the store, the keys, and the engines wired to them.

Nothing runs yet: ``supervisor`` does that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog

from mailmill.alerts.dispatcher import Dispatcher
from mailmill.app import wiring
from mailmill.app.access_token import ensure_token
from mailmill.app.account_tasks import RunningAccount, take_accounts
from mailmill.app.errands import Errands
from mailmill.app.metrics import Metrics
from mailmill.app.reprocessing import Reprocessing
from mailmill.app.safe_html import Sanitizer
from mailmill.app.verification import Verification
from mailmill.clock import boot_seconds
from mailmill.errors import StorageRefusedError, StorageUnavailableError
from mailmill.imap.host_budget import HostBudgets
from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.settings import Role, Settings
from mailmill.store import queue
from mailmill.store.blobs import BlobStore
from mailmill.store.data_folder import LOCK_WAIT_SECONDS
from mailmill.store.database import Database
from mailmill.store.keys import KeyRing, open_key_ring
from mailmill.store.leases import Node
from mailmill.store.store_clock import StoreClock

_log = structlog.get_logger("mailmill.app")

# Within the eight seconds that `supervisor` has for a stop: what came of it is written after it.
_GRACE_SECONDS = 4.0
_COURTESY_SECONDS = 0.015
_CLOSE_SECONDS = 1.0
_MOST_HOST_CHARACTERS = 50
_VERSION = version("mailmill")
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
    began_seconds: float = field(default_factory=boot_seconds)
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
        return Dispatcher(
            self.database, self.blobs, destinations, self.node, observe=self.metrics.observe, clock=self.clock
        )


@contextlib.asynccontextmanager
async def open_application(
    settings: Settings,
    *,
    for_command: bool = False,
    stays: bool = False,
    lock_wait_seconds: float = LOCK_WAIT_SECONDS,
) -> AsyncIterator[Application]:
    """Open the store and wire the engines; nothing runs yet.

    ``for_command``: it is no service. What the configuration says of accounts and of the place for raw mail is not
    brought to the store then, or a command that looks would decide for all nodes; what the command does may.
    ``stays``: it runs for long, ``lock_wait_seconds``: while the data folder is held by another (`Database.open`).

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
        lock_wait_seconds=lock_wait_seconds,
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
                # Whoever else held work is dead. The worker finds none of it left, so it is told and counted here.
                taken_back = await queue.reap(connection, dead_after_seconds=0, now=time.time(), told_at=time.time())
            if taken_back:
                _log.warning("took back what dead workers held", rows=taken_back)
                metrics.taken_back.inc(taken_back)
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


def _empty(folder: Path) -> None:
    """A fresh folder for spooled literals: what lies there is left over from a crash."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
