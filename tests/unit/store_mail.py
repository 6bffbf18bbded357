"""What the store's tests are built from: an open store with one account, and batches of small messages."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailmill.model import Backlog, MailboxRef, MessageMeta, Uid
from mailmill.store import accounts, event_log, messages, sequencer
from mailmill.store.accounts import AccountRow
from mailmill.store.blobs import BlobRef
from mailmill.store.database import Database
from mailmill.store.messages import Arrival, BatchOutcome, Cursor, MailboxRow, StoredContent, SyncBatch, WorkPlan
from mailmill.uid_set import UidSet

NOW = 1_700_000_000.0
PLAN = WorkPlan((("threat", 1), ("summary", 2)), Backlog.PROCESS)


@asynccontextmanager
async def open_database(data_dir: Path, url: str = "") -> AsyncIterator[Database]:
    """The store at ``url``, by default the SQLite file in ``data_dir``."""
    database = await Database.open(url or f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}", data_dir=data_dir)
    try:
        yield database
    finally:
        await database.close()


def content(text: str, **what: Any) -> StoredContent:
    """A message whose raw bytes are ``text``, in a segment that does not matter."""
    raw = text.encode("utf-8", "replace")
    ref = BlobRef(hashlib.sha256(raw).digest(), "ab/0-0.seg", 0, len(raw))
    return StoredContent(ref, **{"subject": text, **what})


def arrival(uid: int, text: str, *flags: str, **meta: Any) -> Arrival:
    return Arrival(MessageMeta(Uid(uid), frozenset(flags), **meta), content(text))


def known(uid: int, message_id: int, *flags: str) -> Arrival:
    return Arrival(MessageMeta(Uid(uid), frozenset(flags)), known_message_id=message_id)


def flags(uid: int, *names: str) -> MessageMeta:
    return MessageMeta(Uid(uid), frozenset(names))


@dataclass(slots=True)
class Store:
    """A database with the account ``me`` and some mailboxes; each call is one transaction."""

    database: Database
    account: AccountRow

    async def mailbox(self, path: str = "INBOX") -> MailboxRow:
        async with self.database.read() as connection:
            return await messages.get_mailbox(connection, self.account.id, path)

    async def apply(
        self,
        arrivals: Sequence[Arrival] = (),
        *,
        path: str = "INBOX",
        flag_changes: Sequence[MessageMeta] = (),
        expunged: Iterable[int] = (),
        cursor: Cursor | None = None,
        row: MailboxRow | None = None,
        work: WorkPlan = PLAN,
        now: float = NOW,
        parked: Sequence[tuple[Uid, str, float]] = (),
    ) -> BatchOutcome:
        """Apply a batch to ``path``; its cursor is just beyond the arrivals unless given."""
        row = row or await self.mailbox(path)
        if cursor is None:
            highest = max([arrival.meta.uid for arrival in arrivals], default=0)
            cursor = Cursor(row.cursor.uid_validity or 7, max(row.cursor.uid_next, highest + 1))
        batch = SyncBatch(row, cursor.uid_validity, arrivals, flag_changes, UidSet(expunged), cursor, parked)
        async with self.database.write() as connection:
            return await messages.apply_batch(connection, batch, work, now)

    async def events(self, after: int = 0) -> list[tuple[str, int | None, str | None, dict[str, Any]]]:
        """``(event, message id, path, data)`` in the order of the log."""
        await self._number()
        async with self.database.read() as connection:
            rows = await event_log.read_after(connection, after, 10_000)
        return [(row.event, row.message_id, row.path, dict(row.data)) for row in rows]

    async def head(self) -> int:
        await self._number()
        async with self.database.read() as connection:
            return await event_log.head(connection)

    async def _number(self) -> None:
        """What is committed is in the log at once."""
        async with self.database.write() as connection:
            await sequencer.number(connection)

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        async with self.database.read() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(sql)]


async def new_store(database: Database, *paths: str) -> Store:
    async with database.write() as connection:
        account = await accounts.ensure_account(
            connection, name="me", email="me@example.org", backlog=Backlog.PROCESS, credential_mark="", now=NOW
        )
        refs = [MailboxRef(path, "/") for path in ("INBOX", *paths)]
        await messages.apply_mailbox_list(connection, account.id, refs, NOW)
    return Store(database, account)
