"""One account in sync: store, connections and `AccountSync`, without workers, alerts or API."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import select, text, update

from harness import stores
from mailmill.clock import boot_seconds
from mailmill.imap.connection import ConnectionSettings, ImapConnection
from mailmill.imap.pool import PoolSettings
from mailmill.imap.providers import GENERIC
from mailmill.model import Backlog, Credentials, Endpoint
from mailmill.store import accounts, event_log, leases, sequencer
from mailmill.store.accounts import AccountRow
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.event_log import EventRow
from mailmill.store.messages import WorkPlan
from mailmill.store.owned_database import Lease, OwnedDatabase
from mailmill.store.tables import blob, mailbox, message, place, shard
from mailmill.sync.account_sync import AccountSettings, AccountSync
from mailmill.sync.context import SyncContext, SyncLimits
from mailmill.sync.holdings import Holdings
from mailmill.sync.report import PassReport
from mailmill.sync.watch import WatchSettings

PROCESSORS = (("threat", 1), ("summary", 1))
_LEASE_SECONDS = 3600.0


@dataclass(slots=True)
class SyncedAccount:
    """An account and the store it is synced into. ``connections`` are all that were opened, in order."""

    database: Database
    blobs: BlobStore
    sync: AccountSync
    account_id: int
    connections: list[ImapConnection] = field(default_factory=list)

    async def once(self) -> PassReport:
        """A complete pass that must not meet an error."""
        report = await self.sync.sync_now()
        assert not report.errors, report.errors
        return report

    async def events(self) -> list[EventRow]:
        """All that were told, also those that the sequencer would number in a moment."""
        if not self.database.alone:
            async with self.database.write() as connection:
                await sequencer.number(connection, limit=100_000)
        async with self.database.read() as connection:
            return await event_log.read_after(connection, 0, 100_000)

    async def wait_for(self, condition: Callable[[Sequence[EventRow]], bool]) -> list[EventRow]:
        """Until the event log satisfies ``condition``; a hint wakes it, nothing is slept through."""
        async with asyncio.timeout(30):
            with self.database.wake.events.subscribe() as hints:
                while not condition(rows := await self.events()):
                    await hints.wait(5)
        return rows

    async def held(self, path: str = "INBOX") -> dict[int, frozenset[str]]:
        """UID → flags of the living places, as the store has them."""
        wanted = (
            select(place.c.uid, place.c.flags)
            .join(mailbox, mailbox.c.id == place.c.mailbox_id)
            .where(mailbox.c.path == path, place.c.expunged_at.is_(None))
            .order_by(place.c.uid)
        )
        async with self.database.read() as connection:
            return {row.uid: frozenset(row.flags.split()) for row in await connection.execute(wanted)}

    async def message_ids(self, path: str = "INBOX") -> dict[int, int]:
        """UID → message id."""
        wanted = (
            select(place.c.uid, place.c.message_id)
            .join(mailbox, mailbox.c.id == place.c.mailbox_id)
            .where(mailbox.c.path == path, place.c.expunged_at.is_(None))
            .order_by(place.c.uid)
        )
        async with self.database.read() as connection:
            return {row.uid: row.message_id for row in await connection.execute(wanted)}

    async def contents(self, path: str = "INBOX") -> dict[int, bytes]:
        """UID → raw message, read back from the segments."""
        wanted = (
            select(place.c.uid, blob)
            .join(mailbox, mailbox.c.id == place.c.mailbox_id)
            .join(message, message.c.id == place.c.message_id)
            .join(blob, blob.c.sha256 == message.c.sha256)
            .where(mailbox.c.path == path, place.c.expunged_at.is_(None))
            .order_by(place.c.uid)
        )
        async with self.database.read() as connection:
            rows = (await connection.execute(wanted)).all()
        from mailmill.store.blobs import BlobRef

        return {
            row.uid: await self.blobs.get(BlobRef(row.sha256, row.segment, row.offset_bytes, row.size_bytes))
            for row in rows
        }

    async def scalar(self, statement: str) -> object:
        async with self.database.read() as connection:
            return await connection.scalar(text(statement))

    async def column(self, statement: str) -> list[object]:
        async with self.database.read() as connection:
            return list(await connection.scalars(text(statement)))


@contextlib.asynccontextmanager
async def synced_account(
    data_dir: Path,
    endpoint: Endpoint,
    credentials: Credentials,
    *,
    backlog: Backlog = Backlog.PROCESS,
    limits: SyncLimits | None = None,
    pool_size: int = 3,
    poll_interval_seconds: float = 300.0,
    sweep_interval_seconds: float = 60.0,
    watch: WatchSettings | None = None,
    connection: ConnectionSettings | None = None,
    mailboxes: Sequence[str] = ("*",),
    running: bool = True,
    blobs: BlobStore | None = None,
) -> AsyncIterator[SyncedAccount]:
    """Opened on ``data_dir`` (again, if it was there before) and, if ``running``, kept in sync for the block."""
    opened_database = await stores.open_database(data_dir)
    try:
        blobs = blobs or BlobStore(data_dir / "blobs")
        settings = connection or ConnectionSettings()
        if settings.spool_dir is None:
            settings = replace(settings, spool_dir=data_dir)
        async with opened_database.write() as writer:
            row = await accounts.ensure_account(
                writer, name="work", email="", backlog=backlog, credential_mark=credentials.password, now=time.time()
            )
        database = opened_database if opened_database.alone else await _owned(opened_database, row)
        opened: list[ImapConnection] = []

        async def connect() -> ImapConnection:
            made = await ImapConnection.open(endpoint, settings)
            opened.append(made)
            try:
                await made.authenticate(credentials)
            except BaseException:
                made.abort()
                raise
            return made

        context = SyncContext(
            database=database,
            blobs=blobs,
            account="work",
            account_id=row.id,
            work=WorkPlan(processors=PROCESSORS, backlog=backlog),
            holdings=Holdings(database),
            limits=limits or SyncLimits(),
        )
        sync = AccountSync(
            context,
            AccountSettings(
                mailboxes,
                PoolSettings(size=pool_size),
                poll_interval_seconds,
                sweep_interval_seconds,
                watch or WatchSettings(),
            ),
            connect=connect,
            provider=GENERIC,
            state=row.state,
            reason=row.state_reason,
            initialized=row.initialized_at is not None,
            slots=asyncio.Semaphore(4),
        )
        account = SyncedAccount(database, blobs, sync, row.id, opened)
        task = asyncio.create_task(sync.run()) if running else None
        try:
            yield account
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    finally:
        await opened_database.close()


async def _owned(database: Database, account: AccountRow) -> OwnedDatabase:
    """As a node of the service has it. The process that had the account before is gone, and its lease has ended."""
    node_id = secrets.token_hex(8)
    async with database.write() as connection:
        await connection.execute(update(shard).where(shard.c.id == account.shard).values(leased_until=0.0))
        epochs = await leases.take(connection, node_id, [account.shard], _LEASE_SECONDS)
    until = boot_seconds() + _LEASE_SECONDS
    return OwnedDatabase(database, Lease(node_id, account.shard, epochs[account.shard], until))
