"""One pass over an account: all mailboxes' state in one round trip, then only those that moved.

A mailbox with little to do is synced on the watching connection itself. A long backlog goes to other connections of the
pool, so that push goes on meanwhile; the pass is complete when they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from mailmill.errors import ArgumentError, CommandError, MailmillError
from mailmill.imap.connection import ImapConnection
from mailmill.imap.pool import Pool
from mailmill.model import INBOX, MailboxStatus
from mailmill.store import messages as store
from mailmill.store.messages import MailboxRow
from mailmill.sync.context import SyncContext
from mailmill.sync.mailbox_list import MailboxList, States
from mailmill.sync.mailbox_sync import MailboxSync
from mailmill.sync.plan import is_unchanged
from mailmill.sync.report import PassReport

BACKLOG_MESSAGES = 500

# While mail is still to be fetched, a message without a place may be among it: it is not believed gone for so long.
_UNFETCHED_DOUBT_SECONDS = 24 * 3600.0

# Refusals that say "not now" (RFC 5530 §3, RFC 9051 §7.1) rather than "not you".
_TEMPORARY = frozenset({"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "CONTACTADMIN", "OVERQUOTA"})


@dataclass(frozen=True, slots=True)
class Scope:
    """What lives as long as the account's connection: its pool, and the task group of its backlogs.

    ``slots`` bounds how many backlogs all accounts work off at once.
    """

    pool: Pool[ImapConnection]
    group: asyncio.TaskGroup
    slots: asyncio.Semaphore


@dataclass(slots=True)
class Progress:
    """How far a first sync is: messages the server has in our mailboxes, and how many of them are still to come."""

    total: int = 0
    missing: int = 0


class AccountPass:
    """The mailboxes of one account and how to bring them up to date. One call at a time, besides the backlogs."""

    def __init__(self, context: SyncContext, *, mailboxes: Sequence[str], connections: int) -> None:
        self._context = context
        self._mailboxes = MailboxList(context, mailboxes)
        self._sync = MailboxSync(context)
        self._backlogs: dict[str, asyncio.Task[None]] = {}
        self._unfinished: dict[str, MailmillError] = {}
        self._hinted: set[str] = set()
        self._backlog_slots = asyncio.Semaphore(max(1, connections - 1))
        self._alone = connections <= 1
        self._log = structlog.get_logger("mailmill.sync").bind(account=context.account)
        self.progress = Progress()

    @property
    def watched(self) -> MailboxRow | None:
        """The mailbox to idle on: INBOX where we sync it, else the first that can be selected."""
        rows = self._mailboxes.rows
        inbox = rows.get(INBOX)
        if inbox is not None and inbox.selectable:
            return inbox
        return next((row for row in rows.values() if row.selectable and row.path not in self._unfinished), None)

    @property
    def backlogs(self) -> tuple[asyncio.Task[None], ...]:
        """The backlogs being worked off on other connections. They never raise: see `unfinished`."""
        return tuple(self._backlogs.values())

    @property
    def unfinished(self) -> tuple[MailmillError, ...]:
        """Why mailboxes could not be brought up to date, as of their last try."""
        return tuple(self._unfinished.values())

    def forget(self) -> None:
        """Drop what is remembered; the next pass reads the cursors from the store again."""
        self._mailboxes.forget()
        self._hinted.clear()
        self._unfinished.clear()
        self._context.holdings.forget()

    def relist(self) -> None:
        """Ask the server for its mailboxes in the next pass, whatever is remembered."""
        self._mailboxes.expire()

    async def all_mailboxes(
        self, connection: ImapConnection, scope: Scope, report: PassReport, *, historical: bool
    ) -> None:
        """A full pass. What one mailbox meets is kept in `unfinished`; an error of the connection itself is raised.

        Long backlogs are left to tasks of ``scope`` (see `backlogs`); the pass is complete when they are.
        """
        states = await self._mailboxes.look(connection)
        # STATUS of the selected mailbox may lag behind what the server has just told about it.
        told = connection.selected.path if connection.selected is not None and connection.take_hint() else None
        moved = [row for row in self._in_order() if self._needs_sync(row, states.get(row.path), told=told == row.path)]
        report.mailboxes = sum(1 for row in self._mailboxes.rows.values() if row.selectable)
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
    ) -> bool:
        """A hint came in for ``path``: see what it was. False where only a full pass can tell."""
        report.mailboxes = 1
        if path in self._backlogs:
            self._hinted.add(path)
            return True
        row = self._mailboxes.rows.get(path)
        if row is None or row.cursor.uid_next == 0:
            return False
        try:
            self._mailboxes.rows[path] = await self._sync.run(
                connection, row, report, historical=False, arrived_at=arrived_at
            )
        except CommandError as error:
            self._gave_up(row, error)
            return False
        return True

    def moved_since(self, status: MailboxStatus) -> bool:
        """Whether ``status`` tells of something that the store does not hold yet (a plain-tier flag apart)."""
        row = self._mailboxes.rows.get(status.path)
        if status.path in self._backlogs or row is None:
            return row is None
        cursor = row.cursor
        seen = (cursor.uid_validity, cursor.uid_next, cursor.messages)
        return seen != (status.uid_validity, status.uid_next, status.messages) or (
            status.highest_mod_seq is not None and status.highest_mod_seq != cursor.highest_mod_seq
        )

    def complete(self) -> bool:
        """Whether every mailbox is as the server has it, but for messages that could not be fetched.

        A mailbox that was never read and that the server keeps from us (no rights, a name without mail) does not count;
        should it open up later, what it holds is history (`store.keep_history`).
        """
        if self._backlogs:
            return False
        return all(self._is_closed_to_us(path, error) for path, error in self._unfinished.items())

    async def confirm_deleted(self, pass_started_at: float) -> bool:
        """Delete messages that had no place anywhere before a complete pass began and have none after it.

        To be called only when that pass is `complete`. Returns whether others still wait: a message that lost its last
        place during the pass may have been on its way to a mailbox already read.
        """
        if not await self._has_orphans():
            return False
        unfetched = any(row.cursor.uncovered for row in self._mailboxes.rows.values())
        before = pass_started_at - (_UNFETCHED_DOUBT_SECONDS if unfetched else 0.0)
        async with self._context.database.write() as connection:
            await store.confirm_deleted(connection, self._context.account_id, before, self._context.clock())
        return not unfetched and await self._has_orphans()

    async def _has_orphans(self) -> bool:
        async with self._context.database.read() as connection:
            return await store.orphan_count(connection, self._context.account_id) > 0

    def _in_order(self) -> list[MailboxRow]:
        """INBOX first, then the rest by name: what people wait for comes first."""
        rows = [row for row in self._mailboxes.rows.values() if row.selectable]
        return sorted(rows, key=lambda row: (row.path != INBOX, row.path))

    def _needs_sync(self, row: MailboxRow, status: MailboxStatus | None, *, told: bool) -> bool:
        if row.path in self._backlogs:
            return False
        return told or status is None or not is_unchanged(row.cursor, status) or self._sync.is_due(row)

    def _measure(self, states: States) -> None:
        rows = self._mailboxes.rows
        self.progress.total = sum(status.messages for path, status in states.items() if status and path in rows)
        self.progress.missing = sum(_backlog(row, states.get(row.path)) for row in rows.values())

    def _start_backlog(self, scope: Scope, row: MailboxRow, report: PassReport, *, historical: bool) -> None:
        task = scope.group.create_task(self._work_off(scope, row, report, historical=historical))
        self._backlogs[row.path] = task

    async def _work_off(self, scope: Scope, row: MailboxRow, report: PassReport, *, historical: bool) -> None:
        path = row.path
        try:
            async with scope.slots, self._backlog_slots, scope.pool.lease(path) as connection:
                received, trips = connection.bytes_received, connection.round_trips
                try:
                    await self._one(connection, row, report, historical=historical)
                    while path in self._hinted and path in self._mailboxes.rows:
                        self._hinted.discard(path)
                        await self._one(connection, self._mailboxes.rows[path], report, historical=False)
                finally:
                    report.bytes_received += connection.bytes_received - received
                    report.round_trips += connection.round_trips - trips
        except MailmillError as error:
            self._gave_up(row, error)
        finally:
            # No await between the last look at _hinted and this: a hint that comes later finds no backlog.
            self._backlogs.pop(path, None)

    async def _one(self, connection: ImapConnection, row: MailboxRow, report: PassReport, *, historical: bool) -> None:
        try:
            self._mailboxes.rows[row.path] = await self._sync.run(connection, row, report, historical=historical)
        except (CommandError, ArgumentError) as error:
            # Something about this mailbox alone (deleted meanwhile, no rights, an odd name): the others go on.
            self._gave_up(row, error)
        else:
            self._unfinished.pop(row.path, None)

    def _gave_up(self, row: MailboxRow, error: MailmillError) -> None:
        error.account = error.account or self._context.account
        error.mailbox = error.mailbox or row.path
        self._unfinished[row.path] = error
        self._context.holdings.forget(row.id)
        self._mailboxes.drop(row.path)
        self._log.warning("mailbox not brought up to date", mailbox=row.path, error=error.message, hint=error.hint)

    def _is_closed_to_us(self, path: str, error: MailmillError) -> bool:
        if path == INBOX or not isinstance(error, CommandError) or error.status != "NO":
            return False
        row = self._mailboxes.rows.get(path)
        never_read = row is None or row.cursor.uid_validity == 0
        return never_read and error.response_code not in _TEMPORARY


def _backlog(row: MailboxRow, status: MailboxStatus | None) -> int:
    """About how many messages of a mailbox are still to be fetched."""
    if status is None:
        return 0
    if row.cursor.uid_validity != status.uid_validity:
        return status.messages
    span = max(0, status.uid_next - row.cursor.uid_next)
    return min(status.messages, span) + len(row.cursor.uncovered)
