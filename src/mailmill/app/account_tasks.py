"""The accounts of this process: what was configured, what is stored, and the task that keeps each in sync.

Where there is one process, every account has its task for as long as the service runs. Where several nodes share one
PostgreSQL, an account has one while this node owns its shard, and each time a new one, made from its row as it is by
then: what was remembered of the store may have been changed by another node since.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select

from mailmill.app import wiring
from mailmill.app.metrics import Metrics
from mailmill.app.wiring import ConfiguredAccount
from mailmill.imap.connection import ImapConnection
from mailmill.settings import Role
from mailmill.store import accounts as account_store
from mailmill.store import dialect, retention
from mailmill.store.accounts import AccountRow
from mailmill.store.database import Database
from mailmill.store.messages import WorkPlan
from mailmill.store.owned_database import Lease, OwnedDatabase
from mailmill.sync.account_sync import AccountSync
from mailmill.sync.context import SyncContext, SyncLimits
from mailmill.sync.holdings import Holdings

if TYPE_CHECKING:
    from mailmill.app.supervisor import Application

_STOP_SECONDS = 2.5

_log = structlog.get_logger("mailmill.app")


@dataclass(slots=True)
class RunningAccount:
    """An account: what was configured, its row, and what keeps it in sync.

    ``database`` is the door that ``sync`` writes through; ``task`` runs it, where this process does. ``make`` makes
    another one for a row and a door.
    """

    configured: ConfiguredAccount
    row: AccountRow
    database: Database
    sync: AccountSync
    connect: Callable[[], Awaitable[ImapConnection]]
    make: Callable[[AccountRow, Database], AccountSync]
    task: asyncio.Task[None] | None = None

    @property
    def kept(self) -> bool:
        """Whether this process keeps it in sync now."""
        return self.task is not None

    def renew(self, row: AccountRow, database: Database) -> None:
        """Begin anew from the row as it is now. Not while its task runs."""
        self.row, self.database = row, database
        self.sync = self.make(row, database)


async def take_accounts(application: Application, spool_dir: Path) -> dict[str, RunningAccount]:
    """Bring the account rows to what is configured. Those no longer configured are left alone: see `pause_missing`.

    What other nodes keep in sync goes on meanwhile: a row changes only where the configuration does.
    """
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
            for account in sorted(configured, key=lambda each: each.name)  # nodes that start at once lock in step
        }
        if application.has(Role.SYNC):
            kept = {rows[account.name].id: wiring.kept(settings, account.settings) for account in configured}
            await retention.set_retention(connection, kept)
    slots = asyncio.Semaphore(settings.service.sync_concurrency)
    accounts = {}
    for account in configured:
        connect = wiring.connector(account, spool_dir, application.hosts)
        make = partial(_make_sync, application, account, connect, slots)
        row = rows[account.name]
        door = database if database.alone else OwnedDatabase(database, None)
        accounts[account.name] = RunningAccount(account, row, door, make(row, door), connect, make)
    return accounts


async def pause_missing(application: Application) -> None:
    """Pause the accounts that are no longer configured; nothing is purged.

    For the service alone. A command may run where the database is known and the accounts are not, and would stop the
    accounts of a whole fleet.
    """
    async with application.database.write() as connection:
        # By the database's clock, as the start of a node is: which of the two was first decides in `Removals`.
        now: float = (await connection.execute(select(dialect.now(connection)))).scalar_one()
        await account_store.pause_missing(connection, set(application.accounts), now)


def _make_sync(
    application: Application,
    account: ConfiguredAccount,
    connect: Callable[[], Awaitable[ImapConnection]],
    slots: asyncio.Semaphore,
    row: AccountRow,
    database: Database,
) -> AccountSync:
    names = tuple((processor.name, processor.version) for processor in application.processors)
    context = SyncContext(
        database=database,
        blobs=application.blobs,
        account=account.name,
        account_id=row.id,
        work=WorkPlan(processors=names, backlog=account.settings.backlog),
        holdings=Holdings(database),
        limits=SyncLimits(max_message_bytes=application.settings.service.max_message_bytes),
        on_stored=_observer(application.metrics),
    )
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
    return sync


def _observer(metrics: Metrics) -> Callable[[int, float | None], None]:
    def stored(messages: int, arrived_at: float | None) -> None:
        metrics.stored.inc(messages)
        if arrived_at is not None:
            metrics.observe("arrival_to_stored", time.time() - arrived_at)

    return stored


class AccountTasks:
    """The tasks of ``accounts``, in ``group``: all of them, or by shard as `Ownership` says."""

    def __init__(self, group: asyncio.TaskGroup, database: Database, accounts: Collection[RunningAccount]) -> None:
        self._group = group
        self._database = database
        self._accounts = accounts
        self._ending: dict[asyncio.Task[None], int] = {}  # with their shards

    @property
    def running(self) -> set[asyncio.Task[None]]:
        """All tasks that have not ended, those that were told to included."""
        return {*self._ending, *(account.task for account in self._accounts if account.task is not None)}

    def start_all(self) -> None:
        for account in self._accounts:
            self._begin(account)

    async def start(self, lease: Lease) -> None:
        """Begin the accounts of a shard that this node has now. Raises StoreError where nothing was begun."""
        async with self._database.read() as connection:
            rows = {row.name: row for row in await account_store.list_accounts(connection, shard=lease.shard)}
        if not lease.holds:
            return
        door = OwnedDatabase(self._database, lease)
        for account in self._accounts:
            row = rows.get(account.row.name)
            if row is not None and not row.paused:
                account.renew(row, door)
                self._begin(account)

    async def stop(self, shards: Collection[int]) -> None:
        """End the accounts of ``shards``. What hangs is left behind after a while: it writes no more."""
        for account in self._accounts:
            if account.row.shard in shards:
                self._order(account)
        ending = [task for task, shard in self._ending.items() if shard in shards]
        if ending:
            _done, late = await asyncio.wait(ending, timeout=_STOP_SECONDS)
            for task in late:
                _log.warning("an account's task is slow to end", task=task.get_name())

    def cancel(self) -> None:
        """Give the order to all; whoever gives it waits for `running`."""
        for account in self._accounts:
            self._order(account)

    def _begin(self, account: RunningAccount) -> None:
        task = self._group.create_task(account.sync.run(), name=f"account {account.row.name}")
        account.task = task

        def ended(_task: asyncio.Task[None]) -> None:
            self._ending.pop(task, None)
            if account.task is task:
                account.task = None

        task.add_done_callback(ended)

    def _order(self, account: RunningAccount) -> None:
        """To end: once, or the second order would cut what the first one has it tidy up."""
        if account.task is not None:
            account.task.cancel()
            self._ending[account.task] = account.row.shard
            account.task = None
