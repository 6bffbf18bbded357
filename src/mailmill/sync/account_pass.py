"""One pass over an account: all mailboxes' state in one round trip, then only those that moved.

A mailbox with little to do is synced on the watching connection itself. A long backlog goes to other connections of the
pool, so that push goes on meanwhile; the pass is complete when they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mailmill.errors import CommandError, MailmillError, ProtocolError
from mailmill.imap.connection import ImapConnection, ListedMailbox
from mailmill.imap.pool import Pool
from mailmill.model import INBOX, MailboxStatus
from mailmill.store import messages as store
from mailmill.store.messages import MailboxRow
from mailmill.sync.context import SyncContext
from mailmill.sync.mailbox_sync import MailboxSync
from mailmill.sync.plan import is_unchanged
from mailmill.sync.report import PassReport

BACKLOG_MESSAGES = 500


@dataclass(frozen=True, slots=True)
class Scope:
    """What lives as long as the account's connection: its pool, and the task group of its backlogs."""

    pool: Pool[ImapConnection]
    group: asyncio.TaskGroup


@dataclass(slots=True)
class Progress:
    """How far a first sync is: messages the server has in our mailboxes, and how many of them are still to come."""

    total: int = 0
    missing: int = 0


class AccountPass:
    """The mailboxes of one account and how to bring them up to date. One call at a time, besides the backlogs."""

    def __init__(self, context: SyncContext, *, mailboxes: Sequence[str], connections: int) -> None:
        self._context = context
        self._globs = tuple(mailboxes)
        self._sync = MailboxSync(context)
        self._rows: dict[str, MailboxRow] = {}
        self._backlogs: dict[str, asyncio.Task[None]] = {}
        self._hinted: set[str] = set()
        self._backlog_slots = asyncio.Semaphore(max(1, connections - 1))
        self._alone = connections <= 1
        self.progress = Progress()

    @property
    def watched(self) -> MailboxRow | None:
        """The mailbox to idle on: INBOX where we sync it, else the first that can be selected."""
        inbox = self._rows.get(INBOX)
        if inbox is not None and inbox.selectable:
            return inbox
        return next((row for row in self._rows.values() if row.selectable), None)

    @property
    def backlogs(self) -> tuple[asyncio.Task[None], ...]:
        """The backlogs being worked off on other connections. They never raise; their errors stand in the report."""
        return tuple(self._backlogs.values())

    def forget(self) -> None:
        """Drop what is remembered; the next pass reads the cursors from the store again."""
        self._rows.clear()
        self._hinted.clear()
        self._context.holdings.forget()

    async def all_mailboxes(
        self, connection: ImapConnection, scope: Scope, report: PassReport, *, historical: bool
    ) -> None:
        """A full pass. Errors of one mailbox are put into ``report``; one of the connection itself is raised.

        Long backlogs are left to tasks of ``scope`` (see `backlogs`); the pass is complete when they are.
        """
        listed = await connection.list_status()
        if not listed:
            # There is an INBOX at least (RFC 9051 §5.1). Believed, it would end a first sync that never began, and the
            # history that shows up later would pass for new mail.
            raise ProtocolError("the server lists no mailboxes at all", hint="it should be well again in a while")
        await self._take_list(listed)
        states = {item.mailbox.path: item.status for item in listed}
        if connection.selected is not None and connection.take_hint():
            # STATUS of the selected mailbox may lag behind what the server has just told about it.
            states[connection.selected.path] = None
        moved = [row for row in self._in_order() if self._needs_sync(row, states.get(row.path))]
        report.mailboxes = sum(1 for row in self._rows.values() if row.selectable)
        self._measure(states)
        here = []
        for row in moved:
            if not self._alone and _backlog(row, states.get(row.path)) > BACKLOG_MESSAGES:
                self._start_backlog(scope, row, report, historical=historical)
            else:
                here.append(row)
        for row in here:
            await self._one(connection, row, report, historical=historical)

    async def one_mailbox(
        self, connection: ImapConnection, path: str, report: PassReport, *, arrived_at: float
    ) -> None:
        """A hint came in for ``path``: see what it was."""
        report.mailboxes = 1
        if path in self._backlogs:
            self._hinted.add(path)
            return
        row = self._rows[path]
        self._rows[path] = await self._sync.run(connection, row, report, historical=False, arrived_at=arrived_at)

    def moved_since(self, status: MailboxStatus) -> bool:
        """Whether ``status`` tells of something that the store does not hold yet (a plain-tier flag apart)."""
        if status.path in self._backlogs:
            return False
        cursor = self._rows[status.path].cursor
        seen = (cursor.uid_validity, cursor.uid_next, cursor.messages)
        return seen != (status.uid_validity, status.uid_next, status.messages) or (
            status.highest_mod_seq is not None and status.highest_mod_seq != cursor.highest_mod_seq
        )

    async def confirm_deleted(self, pass_started_at: float) -> bool:
        """Delete messages that had no place anywhere before a complete pass began and have none after it.

        To be called only when that pass met no error and left no backlog. Returns whether others still wait: a message
        that lost its last place during the pass may have been on its way to a mailbox already read.
        """
        if not await self._has_orphans():
            return False
        async with self._context.database.write() as connection:
            await store.confirm_deleted(connection, self._context.account_id, pass_started_at, self._context.clock())
        return await self._has_orphans()

    async def _has_orphans(self) -> bool:
        async with self._context.database.read() as connection:
            return await store.orphan_count(connection, self._context.account_id) > 0

    async def _take_list(self, listed: Sequence[ListedMailbox]) -> None:
        wanted = [item.mailbox for item in listed if self._wanted(item.mailbox.path)]
        shape = {(ref.path, ref.delimiter, ref.special_use, ref.selectable) for ref in wanted}
        held = {(row.path, row.delimiter, row.special_use, row.selectable) for row in self._rows.values()}
        if shape == held and self._rows:
            return
        async with self._context.database.write() as connection:
            rows = await store.apply_mailbox_list(connection, self._context.account_id, wanted, self._context.clock())
        self._rows = {row.path: row for row in rows}

    def _wanted(self, path: str) -> bool:
        name = INBOX if path.upper() == INBOX else path
        return any(fnmatchcase(name, glob) for glob in self._globs)

    def _in_order(self) -> list[MailboxRow]:
        """INBOX first, then the rest by name: what people wait for comes first."""
        rows = [row for row in self._rows.values() if row.selectable]
        return sorted(rows, key=lambda row: (row.path != INBOX, row.path))

    def _needs_sync(self, row: MailboxRow, status: MailboxStatus | None) -> bool:
        if row.path in self._backlogs:
            return False
        return (
            status is None or not is_unchanged(row.cursor, status) or bool(row.cursor.uncovered) or row.has_old_places
        )

    def _measure(self, states: dict[str, MailboxStatus | None]) -> None:
        self.progress.total = sum(status.messages for path, status in states.items() if status and path in self._rows)
        self.progress.missing = sum(_backlog(row, states.get(row.path)) for row in self._rows.values())

    def _start_backlog(self, scope: Scope, row: MailboxRow, report: PassReport, *, historical: bool) -> None:
        task = scope.group.create_task(self._backlog(scope.pool, row, report, historical=historical))
        self._backlogs[row.path] = task

    async def _backlog(
        self, pool: Pool[ImapConnection], row: MailboxRow, report: PassReport, *, historical: bool
    ) -> None:
        try:
            async with self._backlog_slots, pool.lease(row.path) as connection:
                received, trips = connection.bytes_received, connection.round_trips
                try:
                    await self._one(connection, row, report, historical=historical)
                    while row.path in self._hinted and row.path in self._rows:
                        self._hinted.discard(row.path)
                        await self._one(connection, self._rows[row.path], report, historical=False)
                finally:
                    report.bytes_received += connection.bytes_received - received
                    report.round_trips += connection.round_trips - trips
        except MailmillError as error:
            error.mailbox = error.mailbox or row.path
            report.errors.append(error)
            self._rows.pop(row.path, None)
        finally:
            # No await between the last look at _hinted and this: a hint that comes later finds no backlog.
            self._backlogs.pop(row.path, None)

    async def _one(self, connection: ImapConnection, row: MailboxRow, report: PassReport, *, historical: bool) -> None:
        try:
            self._rows[row.path] = await self._sync.run(connection, row, report, historical=historical)
        except CommandError as error:
            # The server refused something about this mailbox (deleted meanwhile, no rights): the others go on.
            error.mailbox = row.path
            report.errors.append(error)
            self._rows.pop(row.path, None)


def _backlog(row: MailboxRow, status: MailboxStatus | None) -> int:
    """About how many messages of a mailbox are still to be fetched."""
    if status is None:
        return 0
    if row.cursor.uid_validity != status.uid_validity:
        return status.messages
    span = max(0, status.uid_next - row.cursor.uid_next)
    return min(status.messages, span) + len(row.cursor.uncovered)
