"""The accounts of this process: what was configured, what is stored, and the task that keeps each in sync.

Where there is one process, every account has its task for as long as the service runs. Where several nodes share one
PostgreSQL, an account has one while this node owns its shard, and each time a new one, made from its row as it is by
then: what was remembered of the store may have been changed by another node since.

What the configuration says of an account is written to its row by who keeps it in sync: a service with that role, at
its start, and a command for the account that it is about to sync, to verify or to change on its server. All others take
the rows as they are. So the file of the node that started last counts, and a command that looks changes no row,
whatever file it was given. It adds rows: an account that the store does not know is made there by whoever has it in its
file, with accountAdded, for all that is asked of an account goes by its row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import select

from mailmill.app import wiring
from mailmill.app.metrics import Metrics
from mailmill.app.wiring import ConfiguredAccount
from mailmill.imap.connection import ImapConnection
from mailmill.store import accounts as account_store
from mailmill.store import dialect, retention
from mailmill.store.accounts import AccountRow
from mailmill.store.database import Database, WakeName
from mailmill.store.messages import WorkPlan
from mailmill.store.owned_database import Lease, OwnedDatabase
from mailmill.sync.account_sync import AccountSync
from mailmill.sync.context import SyncContext, SyncLimits
from mailmill.sync.holdings import Holdings

if TYPE_CHECKING:
    from mailmill.app.application import Application

_STOP_SECONDS = 2.5
_WAKE_NODES: tuple[WakeName, ...] = ("nodes",)

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
    def shard(self) -> int:
        return self.row.shard

    @property
    def kept(self) -> bool:
        """Whether this process keeps it in sync now."""
        return self.task is not None

    def renew(self, row: AccountRow, database: Database) -> None:
        """Begin anew from the row as it is now. Not while its task runs."""
        self.row, self.database = row, database
        self.sync = self.make(row, database)


async def take_accounts(application: Application, spool_dir: Path, *, keeps: bool) -> dict[str, RunningAccount]:
    """All accounts that are configured. With ``keeps`` their rows are brought to what is configured, else each is taken
    as it is. Those no longer configured are left alone: see `pause_missing`.

    What other nodes keep in sync goes on meanwhile: a row changes only where the configuration does.
    """
    settings, database = application.settings, application.database
    configured = await wiring.configured_accounts(settings)
    async with database.write(wake=_WAKE_NODES if keeps else ()) as connection:
        resting = {row.name for row in await account_store.list_accounts(connection) if row.paused}
        bring = account_store.ensure_account if keeps else account_store.known_account
        rows = {
            account.name: await bring(connection, **_configured(application, account))
            for account in sorted(configured, key=lambda each: each.name)  # nodes that start at once lock in step
        }
    if keeps:
        # In a transaction of its own, for it begins with the first of them again.
        kept = {rows[account.name].id: wiring.kept(settings, account.settings) for account in configured}
        async with database.write() as connection:
            await retention.set_retention(connection, kept)
    if keeps and (back := sorted(resting & rows.keys())):
        _log.info("accounts go on: they are in the configuration again", accounts=back)
    slots = asyncio.Semaphore(settings.service.sync_concurrency)
    accounts = {}
    for account in configured:
        connect = wiring.connector(account, spool_dir, application.hosts)
        make = partial(_make_sync, application, account, connect, slots)
        row = rows[account.name]
        door = database if database.alone else OwnedDatabase(database, None)
        accounts[account.name] = RunningAccount(account, row, door, make(row, door), connect, make)
    return accounts


async def take_account(application: Application, account: RunningAccount) -> None:
    """Bring the account's row to what is configured: for a command that may write it, and is about to log in to
    the account's server. Changed credentials clear ``authenticationError``.
    """
    async with account.database.write() as connection:
        row = await account_store.ensure_account(connection, **_configured(application, account.configured))
        await retention.set_retention(
            connection, {row.id: wiring.kept(application.settings, account.configured.settings)}
        )
    account.renew(row, account.database)


async def pause_missing(application: Application) -> None:
    """Pause the accounts that are no longer configured; nothing is purged. Their owners stop them within seconds.

    For the service alone. A command may run where the database is known and the accounts are not, and would stop the
    accounts of a whole fleet.
    """
    async with application.database.write(wake=_WAKE_NODES) as connection:
        # By the database's clock, as the start of a node is: which of the two was first decides in `Removals`.
        now: float = (await connection.execute(select(dialect.now(connection)))).scalar_one()
        paused = await account_store.pause_missing(connection, set(application.accounts), now)
    if paused:
        _log.warning(
            "paused accounts that are not in the configuration",
            accounts=sorted(paused),
            hint="nodes that share a database need the same accounts in their configurations: that of the one that"
            " started last counts",
        )


def _configured(application: Application, account: ConfiguredAccount) -> dict[str, Any]:
    """What `ensure_account` is told of it."""
    return {
        "name": account.name,
        "email": account.email,
        "backlog": account.settings.backlog,
        "credential_mark": None if account.problem else application.keys.mark(account.mark_text()),
        "now": application.clock(),
    }


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
        clock=application.clock,
        on_stored=_observer(application.metrics, application.clock),
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


def _observer(metrics: Metrics, clock: Callable[[], float]) -> Callable[[int, float | None], None]:
    def stored(messages: int, arrived_at: float | None) -> None:
        metrics.stored.inc(messages)
        if arrived_at is not None:
            metrics.observe("arrival_to_stored", clock() - arrived_at)

    return stored


class AccountTasks:
    """The tasks of ``accounts``, in ``group``: all of them, or by shard as `Ownership` says."""

    def __init__(self, group: asyncio.TaskGroup, database: Database, accounts: Collection[RunningAccount]) -> None:
        self._group = group
        self._database = database
        self._accounts = accounts
        self._ending: dict[asyncio.Task[None], RunningAccount] = {}

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
            if account.shard in shards:
                self._order(account)
        await self._until_ended([task for task, account in self._ending.items() if account.shard in shards])

    async def review(self, leases: Collection[Lease]) -> None:
        """Of the shards that this node has, end the accounts that were paused or deleted since they were begun, and
        begin those that go on: other nodes, and commands, write what they decide to the rows. Raises StoreError.
        """
        if not leases:
            return
        held = {lease.shard: lease for lease in leases}
        mine = {account.row.name: account for account in self._accounts if account.shard in held}
        async with self._database.read() as connection:
            going = await account_store.going_accounts(connection, held)
            # One whose task is still on its way out is looked at again the next time.
            ending = {account.row.name for account in self._ending.values()}
            begun = [
                await account_store.get_account(connection, name)
                for name in set(going.values()) - ending
                if name in mine and not mine[name].kept
            ]
        paused = {name for name, account in mine.items() if account.kept and account.row.id not in going}
        for name in paused:
            self._order(mine[name])
        if paused:
            _log.info("accounts were paused: they are stopped here", accounts=sorted(paused))
        for row in begun:
            account, lease = mine[row.name], held[row.shard]
            # Where it was lost while we looked, the order to stop came before this.
            if lease.holds and not account.kept:
                account.renew(row, OwnedDatabase(self._database, lease))
                self._begin(account)
        await self._until_ended([task for task, account in self._ending.items() if account.row.name in paused])

    async def _until_ended(self, ending: Collection[asyncio.Task[None]]) -> None:
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
            self._ending[account.task] = account
            account.task = None
