"""One mailbox brought up to date on one connection.

::

    select ──▶ generation changed? ──▶ find_changes ──▶ newest chunk still uncovered ──▶ commit (changes + chunk) ─┐
       ▲                                                                                                           │
       └────────────────────────────── while anything is uncovered ◀───────────────────────────────────────────────┘

The mailbox is selected anew for every chunk: one cheap round trip, in exchange for which mail that arrives during a
long first sync is the newest chunk's first message, and flags that change meanwhile are seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mailmill.errors import ContradictionError
from mailmill.imap.connection import ImapConnection
from mailmill.model import Uid
from mailmill.store import messages as store
from mailmill.store.messages import MailboxRow, SyncBatch
from mailmill.sync.changes import Changes, find_changes
from mailmill.sync.context import SyncContext
from mailmill.sync.download import Downloader
from mailmill.sync.report import PassReport
from mailmill.uid_set import UidSet

# More new generations than this within one sync are no restore but a fault.
_MOST_RESETS = 2


class MailboxSync:
    """Syncs the mailboxes of one account; one call at a time for one mailbox."""

    def __init__(self, context: SyncContext) -> None:
        self._context = context
        self._downloader = Downloader(context)
        self._parked_until: dict[int, Mapping[Uid, float]] = {}
        self._doubts: dict[int, ContradictionError] = {}

    async def run(
        self,
        connection: ImapConnection,
        row: MailboxRow,
        report: PassReport,
        *,
        historical: bool,
        arrived_at: float | None = None,
    ) -> MailboxRow:
        """Make the store equal to the mailbox as the server shows it now. Returns the row as committed last.

        ``historical``: a mailbox seen for the first time holds mail from before the account was added.
        ``arrived_at``: when the hint came in that led here, for the histogram.
        Raises `ImapError` and `StoreError`; what was committed until then stands. What does not add up is no reason to
        leave out what does: see `doubt`.
        """
        context = self._context
        self._doubts.pop(row.id, None)
        resets = 0
        while True:
            status = await connection.select(row.path)
            if row.cursor.uid_validity not in (0, status.uid_validity):
                resets += 1
                if resets > _MOST_RESETS:
                    raise ContradictionError(
                        "the server gives another UIDVALIDITY at each look", hint="it needs repair"
                    )
                row = await self._reset(row, status.uid_validity)
            changes = await find_changes(context, connection, row, status, historical=historical)
            row, changes = await self._commit_many(row, changes, report)
            parked = await self._parked(row, changes)
            due = changes.cursor.uncovered - parked
            if due:
                newest = due.newest(context.limits.chunk_messages)
                row = await self._downloader.chunk(connection, row, changes, newest, report, arrived_at=arrived_at)
                if row.cursor.uncovered:
                    # Some may have been parked.
                    self._parked_until.pop(row.id, None)
            elif not changes.empty_against(row):
                row = await self._commit(row, changes, report)
            parked = await self._parked(row, Changes(cursor=row.cursor))
            if not row.cursor.uncovered - parked:
                if changes.doubt is not None:
                    self._doubts[row.id] = changes.doubt
                    return row
                return await self._expunge_old(row, report)

    def doubt(self, row: MailboxRow) -> ContradictionError | None:
        """What did not add up when ``row`` was last brought up to date."""
        return self._doubts.get(row.id)

    def forget(self) -> None:
        """Read again, next time, what is parked."""
        self._parked_until.clear()

    def is_due(self, row: MailboxRow) -> bool:
        """Whether there is something to do that the server's state does not tell of."""
        if row.has_old_places or row.id not in self._parked_until:
            return row.has_old_places or bool(row.cursor.uncovered)
        now = self._context.clock()
        later = UidSet(uid for uid, at in self._parked_until[row.id].items() if at > now)
        return bool(row.cursor.uncovered - later)

    async def _reset(self, row: MailboxRow, uid_validity: int) -> MailboxRow:
        """A new generation. Nothing is deleted: the old places go only when the new ones are all there."""
        async with self._context.database.write() as connection:
            return await store.reset_mailbox(connection, row, uid_validity, self._context.clock())

    async def _expunge_old(self, row: MailboxRow, report: PassReport) -> MailboxRow:
        if row.has_old_places:
            try:
                async with self._context.database.write() as connection:
                    report.add(expunged=await store.expunge_old_generation(connection, row, self._context.clock()))
            finally:
                self._context.holdings.lost_places()
            row = store.without_old_places(row)
        return row

    async def _commit_many(self, row: MailboxRow, changes: Changes, report: PassReport) -> tuple[MailboxRow, Changes]:
        """Commit all but the last `SyncLimits.change_messages` of ``changes``, the cursor as it was, and return what is
        left: no transaction grows with the mailbox. After a crash the same is asked for and found again.
        """
        most = self._context.limits.change_messages
        while len(changes.flag_changes) > most or len(changes.expunged) > most:
            flags, expunged = changes.flag_changes[:most], changes.expunged.newest(most)
            part = Changes(cursor=row.cursor, flag_changes=flags, expunged=expunged)
            row = await self._commit(row, part, report)
            changes = replace(changes, flag_changes=changes.flag_changes[most:], expunged=changes.expunged - expunged)
        return row, changes

    async def _commit(self, row: MailboxRow, changes: Changes, report: PassReport) -> MailboxRow:
        batch = SyncBatch(
            mailbox=row,
            uid_validity=changes.cursor.uid_validity,
            arrivals=(),
            flag_changes=changes.flag_changes,
            expunged=changes.expunged,
            cursor=changes.cursor,
        )
        return await self._context.commit(batch, report)

    async def _parked(self, row: MailboxRow, changes: Changes) -> UidSet:
        """UIDs that are not to be tried now: parked before and not yet due, or found to break connections."""
        if not changes.cursor.uncovered:
            self._parked_until[row.id] = {}
            return UidSet()
        now = self._context.clock()
        broken = self._downloader.broken(row.id, changes.cursor)
        if broken:
            async with self._context.database.write() as writer:
                await store.park(writer, replace(row, cursor=changes.cursor), broken)
        retry_at = None if broken else self._parked_until.get(row.id)
        if retry_at is None:
            async with self._context.database.read() as reader:
                retry_at = await store.parked_uids(reader, row.id, changes.cursor.uid_validity)
            self._parked_until[row.id] = retry_at
        return UidSet(uid for uid, at in retry_at.items() if at > now)
