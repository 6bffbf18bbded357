"""Asking a mailbox what changed, and making sure the answer adds up.

Nothing is written here: the result is a `Changes` value that the next transaction carries, so that the cursor and what
it stands for commit together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mailmill.errors import ProtocolError
from mailmill.imap.connection import ImapConnection
from mailmill.model import MailboxStatus, MessageMeta, Uid
from mailmill.store import messages as store
from mailmill.store.messages import Cursor, MailboxRow
from mailmill.sync.context import SyncContext
from mailmill.sync.plan import FlagScope, Plan, plan_mailbox, tier_of
from mailmill.uid_set import UidSet

# A push is about few messages; more than these are not asked for blindly.
_SHORT_SPAN = 100
# So many messages may have arrived between two looks without our being told.
_MOST_UNTOLD = 10_000


@dataclass(frozen=True, slots=True)
class Changes:
    """What a mailbox must become, short of the bodies: ``cursor.uncovered`` names the messages still to be fetched.

    ``metas``: what is known of some of them already.
    """

    cursor: Cursor
    flag_changes: Sequence[MessageMeta] = ()
    expunged: UidSet = field(default_factory=UidSet)
    metas: Mapping[Uid, MessageMeta] = field(default_factory=dict)

    def empty_against(self, row: MailboxRow) -> bool:
        return not self.flag_changes and not self.expunged and self.cursor == row.cursor


async def find_changes(
    context: SyncContext, connection: ImapConnection, row: MailboxRow, status: MailboxStatus, *, historical: bool
) -> Changes:
    """Bring ``row``'s cursor to ``status``, which was read by selecting the mailbox on ``connection`` just now.

    ``row.cursor`` must be of the generation ``status.uid_validity``, or new (0). ``historical``: what a new cursor
    finds was on the server before the account was added.
    """
    now = context.clock()
    cursor = row.cursor
    sweep_due = now - cursor.flags_swept_at >= context.limits.flag_sweep_seconds
    plan = plan_mailbox(cursor, status, tier_of(connection.features), sweep_due=sweep_due)
    living = await context.holdings.living(row, status.uid_validity)
    flag_changes, vanished, whole = await _flag_changes(context, connection, row, plan, living)
    listed, metas = await _list_new(connection, plan.new)
    held = living | cursor.uncovered
    gone = UidSet()
    if vanished:
        gone = await _confirm_gone(connection, vanished & held)
    held_count = len(held) - len(gone)
    if plan.enumerate or held_count + len(listed) != status.messages:
        # The arithmetic does not come out: a shortfall, an expunge that nobody told, a server that miscounts.
        # Only a full listing can tell, and only an exact search makes an absence a deletion.
        everything = await _everything(connection)
        listed = listed | (everything - held - gone)
        gone = gone | await _confirm_gone(connection, held - everything - gone)
    uncovered = (cursor.uncovered | listed) - gone
    swept = plan.flags is FlagScope.ALL or cursor.uid_next <= 1
    from_before = cursor.uid_next == 0 and (historical or cursor.historical_below < 0)
    new_cursor = Cursor(
        uid_validity=status.uid_validity,
        uid_next=max(status.uid_next, (listed.highest or 0) + 1),
        # Our own count, not the server's: the next pass compares what it says with what we really hold.
        messages=len((living - gone) | uncovered),
        # Not over an answer that could not be read in full: nothing else would ever show that change again.
        highest_mod_seq=status.highest_mod_seq if whole else cursor.highest_mod_seq,
        uncovered=uncovered,
        historical_below=status.uid_next if from_before else cursor.historical_below,
        flags_swept_at=now if swept and whole else cursor.flags_swept_at,
    )
    return Changes(cursor=new_cursor, flag_changes=flag_changes, expunged=gone & living, metas=metas)


async def _flag_changes(
    context: SyncContext, connection: ImapConnection, row: MailboxRow, plan: Plan, living: UidSet
) -> tuple[list[MessageMeta], UidSet, bool]:
    """Flags that differ from those stored, the UIDs the server says have vanished, and whether all could be read."""
    cursor = row.cursor
    if plan.flags is FlagScope.NONE or cursor.uid_next <= 1:
        return [], UidSet(), True
    if plan.flags is FlagScope.CHANGED:
        # An explicit upper bound: with ``1:*`` Cyrus leaves out expunges above the highest living UID.
        below = UidSet.span(1, cursor.uid_next - 1)
        reply = await connection.fetch_meta(below, changed_since=plan.changed_since, vanished=plan.vanished)
        return [meta for meta in reply.messages if meta.uid in living], reply.vanished, not reply.malformed
    limits = context.limits
    remaining = living if plan.flags is FlagScope.ALL else living.newest(limits.flag_window_messages)
    changed: list[MessageMeta] = []
    whole = True
    while remaining:
        part = remaining.newest(limits.flag_sweep_messages)
        differing, readable = await _differing_flags(context, connection, row, part)
        changed += differing
        whole = whole and readable
        remaining = remaining - part
    return changed, UidSet(), whole


async def _differing_flags(
    context: SyncContext, connection: ImapConnection, row: MailboxRow, uids: UidSet
) -> tuple[list[MessageMeta], bool]:
    reply = await connection.fetch_flags(uids)
    async with context.database.read() as reader:
        stored = await store.flags_of(reader, row.id, row.cursor.uid_validity, uids)
    differing = [
        meta
        for meta in reply.messages
        if meta.flags is not None and meta.uid in stored and store.flags_text(meta.flags) != stored[meta.uid]
    ]
    return differing, not reply.malformed


async def _list_new(connection: ImapConnection, span: UidSet) -> tuple[UidSet, dict[Uid, MessageMeta]]:
    """Which UIDs of a span exist. A short span, as after a push, is asked for its metadata at once: a message not there
    is not in the answer, provided all of the answer could be read. A long one is listed.
    """
    if not span:
        return UidSet(), {}
    if len(span) <= _SHORT_SPAN:
        reply = await connection.fetch_meta(span)
        if not reply.malformed:
            metas = {meta.uid: meta for meta in reply.messages if meta.uid in span}
            return UidSet(metas), metas
        return (await connection.search(span)) & span, {}
    return (await _everything(connection)) & span, {}


async def _everything(connection: ImapConnection) -> UidSet:
    """All UIDs. Raises ProtocolError where the listing is shorter than the mailbox is said to be, or longer by more
    than could have arrived meanwhile, also after the server had a chance to tell of changes.
    """
    for _ in range(2):
        everything = await connection.search()
        exists = connection.exists or 0
        if exists <= len(everything) <= exists + _MOST_UNTOLD:
            return everything
        await connection.noop()
    raise ProtocolError(f"the server says there are {connection.exists} messages and lists {len(everything)}")


async def _confirm_gone(connection: ImapConnection, candidates: UidSet) -> UidSet:
    """The ``candidates`` that an exact search does not find (absence is not deletion, design §4.5)."""
    if not candidates:
        return candidates
    return candidates - await connection.search(candidates)


def cover(cursor: Cursor, stored: UidSet, gone: UidSet) -> Cursor:
    """``cursor`` once ``stored`` are in the store, and ``gone`` turned out to be expunged before they were fetched."""
    return replace(
        cursor,
        uncovered=cursor.uncovered - stored - gone,
        messages=cursor.messages - len(gone & cursor.uncovered),
    )
