"""One pass over an account: all mailboxes' state in one round trip, then only those that moved.

A mailbox with little to do is synced on the watching connection itself. A long backlog goes to other connections of the
pool, so that push goes on meanwhile; the pass is complete when they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from mailmill.errors import ArgumentError, CommandError, ContradictionError, MailmillError
from mailmill.imap.connection import ImapConnection, Told
from mailmill.imap.pool import Pool
from mailmill.model import INBOX, MailboxStatus
from mailmill.store import messages as store
from mailmill.store.messages import Cursor, MailboxRow
from mailmill.sync.context import SyncContext
from mailmill.sync.mailbox_list import NOT_NOW, MailboxList, States
from mailmill.sync.mailbox_sync import MailboxSync
from mailmill.sync.plan import is_unchanged
from mailmill.sync.report import PassReport

BACKLOG_MESSAGES = 500

# While the look that a pass began with showed mail that was still to be read, a message that no mailbox showed may have
# moved around the reader twice. In an account that never rests it is believed gone after so long all the same.
_UNREST_DOUBT_SECONDS = 60.0
# While mail is still to be fetched, a message without a place may be among it: it is not believed gone for so long.
_UNFETCHED_DOUBT_SECONDS = 24 * 3600.0


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
        self._left_at: dict[str, Cursor] = {}
        self._at_rest = False
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

    def reread(self) -> None:
        """Somebody else has written to the store: read again what is remembered of it."""
        self._mailboxes.forget()
        self._sync.forget()
        self._context.holdings.forget()

    async def recall(self) -> None:
        """Know the mailboxes as the store has them, without asking the server: enough for `one_mailbox`."""
        await self._mailboxes.recall()

    def relist(self) -> None:
        """Ask the server for its mailboxes in the next pass, whatever is remembered."""
        self._mailboxes.expire()

    async def all_mailboxes(
        self, connection: ImapConnection, scope: Scope, report: PassReport, *, historical: bool, thorough: bool = True
    ) -> None:
        """A full pass. What one mailbox meets is kept in `unfinished`; an error of the connection itself is raised.

        Long backlogs are left to tasks of ``scope`` (see `backlogs`); the pass is complete when they are. One that is
        not ``thorough`` leaves out flags of which STATUS cannot tell (plain tier): it is one round trip there too.
        """
        states = await self._mailboxes.look(connection)
        self._unfinished = {path: error for path, error in self._unfinished.items() if path in self.paths}
        # STATUS of the selected mailbox may lag behind what the server has just told about it.
        moved = [
            row
            for row in self._in_order()
            if self._needs_sync(row, states.get(row.path), told=connection.told_of(row.path), thorough=thorough)
        ]
        report.mailboxes = sum(1 for row in self._mailboxes.rows.values() if row.selectable)
        self._at_rest = all(
            self._is_read(row, states.get(row.path)) and not connection.told_of(row.path) for row in self._in_order()
        )
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
        except (CommandError, ContradictionError) as error:
            self._gave_up(row, error)
            return False
        self._note_doubt(row)
        return True

    @property
    def paths(self) -> frozenset[str]:
        """The mailboxes that are kept in sync."""
        return frozenset(path for path, row in self._mailboxes.rows.items() if row.selectable)

    def concerned(self, told: Told) -> list[str]:
        """Mailboxes of which ``told`` has something that the store does not hold yet, INBOX first."""
        known = (path for path in told.paths if path in self.paths and not self._holds(path, told.numbers.get(path)))
        return sorted(known, key=lambda path: (path != INBOX, path))

    def surprised(self, told: Told) -> bool:
        """Whether only a full pass with a new list can tell what ``told`` is about."""
        rows = self._mailboxes.rows
        unknown = any(path not in rows and self._mailboxes.wants(path) for path in told.paths)
        return unknown or told.list_changed or told.overflow

    def _holds(self, path: str, numbers: Mapping[str, int] | None) -> bool:
        """Whether all of ``numbers`` are those of the cursor, and flags among them."""
        cursor = self._mailboxes.rows[path].cursor
        held = {
            "MESSAGES": cursor.messages,
            "UIDNEXT": cursor.uid_next,
            "UIDVALIDITY": cursor.uid_validity,
            "HIGHESTMODSEQ": cursor.highest_mod_seq,
        }
        if not numbers or not numbers.get("HIGHESTMODSEQ") or path in self._backlogs:
            return False
        return all(numbers[name] == value for name, value in held.items() if name in numbers)

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

        A mailbox that the server keeps from us (no rights, a name without mail) does not count where it was never read,
        or wholly; should one that was never read open up later, what it holds is history (`store.keep_history`).
        """
        if self._backlogs:
            return False
        return all(
            self._sync_got_through(path, error) or self._is_closed_to_us(path, error)
            for path, error in self._unfinished.items()
        )

    async def confirm_deleted(self, pass_started_at: float) -> bool:
        """Delete messages that had no place anywhere before a complete pass began and have none after it.

        To be called only when that pass is `complete`. Since UIDNEXT never comes down, a look at which no mailbox had
        more than was read leaves a message no place to be in, in whatever order the mailboxes are read. Returns whether
        others still wait: one that lost its last place during the pass may have been on its way to a mailbox already
        read.
        """
        if not await self.has_orphans():
            return False
        unfetched = any(
            row.cursor.uncovered or row.cursor.messages < 0 for row in self._mailboxes.rows.values()
        ) or any(self._left_at[path].uid_next for path in self._unfinished.keys() & self._left_at.keys())
        doubt_seconds = 0.0 if self._at_rest else _UNREST_DOUBT_SECONDS
        before = pass_started_at - (_UNFETCHED_DOUBT_SECONDS if unfetched else doubt_seconds)
        async with self._context.database.write() as connection:
            await store.confirm_deleted(connection, self._context.account_id, before, self._context.clock())
        return not unfetched and await self.has_orphans()

    async def has_orphans(self) -> bool:
        """Whether a message has no place and is not known to be deleted: one more complete pass tells."""
        return await self._context.holdings.have_orphans(self._context.account_id, self._context.clock())

    def _in_order(self) -> list[MailboxRow]:
        """INBOX first, then the rest by name: what people wait for comes first."""
        rows = [row for row in self._mailboxes.rows.values() if row.selectable]
        return sorted(rows, key=lambda row: (row.path != INBOX, row.path))

    def _needs_sync(self, row: MailboxRow, status: MailboxStatus | None, *, told: bool, thorough: bool) -> bool:
        if row.path in self._backlogs:
            return False
        if told or status is None or row.path in self._unfinished or self._sync.is_due(row):
            return True
        tells_all = thorough or status.highest_mod_seq is not None
        return not is_unchanged(row.cursor, status) if tells_all else self.moved_since(status)

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
                connection.learn_names(self._mailboxes.odd_names)
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
        except (CommandError, ArgumentError, ContradictionError) as error:
            # Something about this mailbox alone (deleted meanwhile, no rights, an odd name): the others go on.
            self._gave_up(row, error)
        else:
            self._note_doubt(row)

    def _note_doubt(self, row: MailboxRow) -> None:
        """The mailbox was brought up to date, as far as what the server says of it adds up."""
        doubt = self._sync.doubt(row)
        if doubt is None:
            self._unfinished.pop(row.path, None)
            return
        doubt.account, doubt.mailbox = self._context.account, row.path
        self._unfinished[row.path] = doubt
        self._log.warning("mailbox does not add up", mailbox=row.path, error=doubt.message, hint=doubt.hint)

    def _gave_up(self, row: MailboxRow, error: MailmillError) -> None:
        error.account = error.account or self._context.account
        error.mailbox = error.mailbox or row.path
        self._unfinished[row.path] = error
        self._left_at[row.path] = row.cursor
        self._context.holdings.forget(row.id)
        self._mailboxes.drop(row.path)
        self._log.warning("mailbox not brought up to date", mailbox=row.path, error=error.message, hint=error.hint)

    def _is_read(self, row: MailboxRow, status: MailboxStatus | None) -> bool:
        """Whether every UID that a mailbox had given out at the look is accounted for in the store, or kept from us."""
        error = self._unfinished.get(row.path)
        if error is not None and self._is_closed_to_us(row.path, error):
            return True
        cursor = row.cursor
        return status is not None and cursor.uid_validity == status.uid_validity and cursor.uid_next >= status.uid_next

    def _sync_got_through(self, path: str, error: MailmillError) -> bool:
        """Whether all that the server shows of a mailbox is stored, though it says that there is more."""
        row = self._mailboxes.rows.get(path)
        return row is not None and self._sync.doubt(row) is error

    def _is_closed_to_us(self, path: str, error: MailmillError) -> bool:
        if path == INBOX or not isinstance(error, CommandError) or error.status != "NO":
            return False
        # Never read, or wholly: then what it held is stored, and what becomes of it cannot be told.
        return not self._left_at[path].uncovered and error.response_code not in NOT_NOW


def _backlog(row: MailboxRow, status: MailboxStatus | None) -> int:
    """About how many messages of a mailbox are still to be fetched."""
    if status is None:
        return 0
    if row.cursor.uid_validity != status.uid_validity:
        return status.messages
    span = max(0, status.uid_next - row.cursor.uid_next)
    return min(status.messages, span) + len(row.cursor.uncovered)
