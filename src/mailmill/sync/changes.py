"""Asking a mailbox what changed, and making sure the answer adds up.

Nothing is written here: the result is a `Changes` value that the next transaction carries, so that the cursor and what
it stands for commit together.

Law: what a server shows is believed, what it does not show is not. A listing that is shorter than the mailbox is said
to be adds mail and takes none away; the `Changes.doubt` that stays is told once all that could be had is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mailmill.errors import CommandError, ContradictionError
from mailmill.imap.connection import ImapConnection
from mailmill.model import MailboxStatus, MessageMeta, Uid
from mailmill.store import accounts
from mailmill.store import messages as store
from mailmill.store.messages import Cursor, MailboxRow
from mailmill.sync.context import SyncContext
from mailmill.sync.plan import FlagScope, Plan, history_mark, is_another, plan_mailbox, tier_of
from mailmill.uid_set import UidSet

# A push is about few messages; more than these are not asked for blindly.
_SHORT_SPAN = 100
# So many messages may have arrived between two looks without our being told.
_MOST_UNTOLD = 10_000
# A mailbox that another client empties at this moment is listed again so often before it is doubted: between the count
# and the listing lies a round trip, and a message may go in it.
_LISTINGS = 4
# SEARCH BEFORE knows whole days, in a time zone of the server's choice.
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Changes:
    """What a mailbox must become, short of the bodies: ``cursor.uncovered`` names the messages still to be fetched.

    ``metas``: what is known of some of them already. ``doubt``: what does not add up, for whoever is to know.
    """

    cursor: Cursor
    flag_changes: Sequence[MessageMeta] = ()
    expunged: UidSet = field(default_factory=UidSet)
    metas: Mapping[Uid, MessageMeta] = field(default_factory=dict)
    doubt: ContradictionError | None = None

    def empty_against(self, row: MailboxRow) -> bool:
        return not self.flag_changes and not self.expunged and self.cursor == row.cursor


@dataclass(frozen=True, slots=True)
class _Known:
    """What was asked about messages that we hold: flags that differ from those stored, UIDs that are said to have
    vanished, UIDs that stand for another message now, and whether all of the answer could be read.
    """

    flag_changes: Sequence[MessageMeta] = ()
    vanished: UidSet = field(default_factory=UidSet)
    others: UidSet = field(default_factory=UidSet)
    whole: bool = True


async def find_changes(
    context: SyncContext, connection: ImapConnection, row: MailboxRow, status: MailboxStatus, *, historical: bool
) -> Changes:
    """Bring ``row``'s cursor to ``status``, which was read by selecting the mailbox on ``connection`` just now.

    ``row.cursor`` must be of the generation ``status.uid_validity``, or new (0). ``historical``: what a new cursor
    finds was on the server before the account was added.
    """
    now = context.clock()
    cursor = row.cursor
    arrived = connection.arrived
    sweep_due = now - cursor.flags_swept_at >= context.limits.flag_sweep_seconds
    plan = plan_mailbox(cursor, status, tier_of(connection.features), sweep_due=sweep_due)
    living = await context.holdings.living(row, status.uid_validity)
    known = await _look_at_known(context, connection, row, plan, living)
    listed, metas = await _list_new(connection, plan.new)
    held = living | cursor.uncovered
    listed = listed - held
    gone = await _confirm_gone(connection, known.vanished & held)
    doubt: ContradictionError | None = None
    counted = status.messages if connection.exists is None else _lasting(connection, arrived)
    if plan.enumerate or len(held) - len(gone) + len(listed) != counted:
        # The arithmetic does not come out: a shortfall, an expunge that nobody told, a server that miscounts. The count
        # is of now: what SELECT counted and is gone before it is listed would make up for as many held that are gone.
        # Only a full listing can tell, and only an exact search makes an absence a deletion.
        everything, doubt = await _everything(connection)
        listed = listed | (everything - held)
        gone = gone | await _confirm_gone(connection, held - everything - gone) if doubt is None else UidSet()
    # A generation that comes back may have given its UIDs to other mail.
    others = living if cursor.uid_next == 0 else known.others
    uncovered = (cursor.uncovered | listed | others) - gone
    if cursor.uid_next == 0:
        history = await _history_at_first_look(context, connection, row, status, listed, historical=historical)
    else:
        history = min(cursor.historical_below, _given_again_from(status, held - gone, known.others))
    new_cursor = Cursor(
        uid_validity=status.uid_validity,
        uid_next=max(status.uid_next, (listed.highest or 0) + 1),
        # Our own count, not the server's: the next pass compares what it says with what we really hold.
        messages=len((living - gone) | uncovered) if doubt is None else -1,
        # Not over an answer that could not be read in full: nothing else would ever show that change again.
        highest_mod_seq=status.highest_mod_seq if known.whole else cursor.highest_mod_seq,
        uncovered=uncovered,
        historical_below=history,
        flags_swept_at=now if known.whole and _is_swept(cursor, plan) else cursor.flags_swept_at,
    )
    return Changes(new_cursor, known.flag_changes, gone & living, metas, doubt)


def _is_swept(cursor: Cursor, plan: Plan) -> bool:
    return plan.flags is FlagScope.ALL or cursor.uid_next <= 1


async def _history_at_first_look(
    context: SyncContext,
    connection: ImapConnection,
    row: MailboxRow,
    status: MailboxStatus,
    listed: UidSet,
    *,
    historical: bool,
) -> int:
    """Below which UID mail is history: there before the account was added, or before a mailbox that is new to us, or
    numbered anew, was last looked at. Such mail must not ring like new mail where its bytes are not known again.
    """
    if historical or row.cursor.historical_below < 0:
        return status.uid_next
    if not listed:
        return 0
    known_until = row.synced_at
    if known_until is None:
        async with context.database.read() as reader:
            known_until = (await accounts.get_account(reader, context.account)).initialized_at
    if known_until is None:
        return 0
    try:
        old = await connection.search_before(known_until - _DAY_SECONDS)
    except CommandError:
        return 0
    return history_mark(listed, old)


def _given_again_from(status: MailboxStatus, there: UidSet, others: UidSet) -> int:
    """From which UID on, at the least, the server's numbers stand for mail that has just come, whatever they stood for
    when the mailbox was first seen. A UIDNEXT below what is ``there`` only lags behind.
    """
    above = max(status.uid_next, (there.highest or 0) + 1)
    return min(above, others.ranges[0][0]) if others else above


async def _look_at_known(
    context: SyncContext, connection: ImapConnection, row: MailboxRow, plan: Plan, living: UidSet
) -> _Known:
    cursor = row.cursor
    if plan.flags is FlagScope.NONE or cursor.uid_next <= 1:
        return _Known()
    if plan.flags is FlagScope.CHANGED:
        # An explicit upper bound: with ``1:*`` Cyrus leaves out expunges above the highest living UID.
        below = UidSet.span(1, cursor.uid_next - 1)
        reply = await connection.fetch_meta(below, changed_since=plan.changed_since, vanished=plan.vanished)
        changed = [meta for meta in reply.messages if meta.uid in living]
        return _Known(changed, reply.vanished, whole=not reply.malformed)
    limits = context.limits
    remaining = living if plan.flags is FlagScope.ALL else living.newest(limits.flag_window_messages)
    known = _Known()
    while remaining:
        part = remaining.newest(limits.flag_sweep_messages)
        found = await _compare(context, connection, row, part, recheck=plan.recheck)
        known = _Known(
            [*known.flag_changes, *found.flag_changes],
            others=known.others | found.others,
            whole=known.whole and found.whole,
        )
        remaining = remaining - part
    return known


async def _compare(
    context: SyncContext, connection: ImapConnection, row: MailboxRow, uids: UidSet, *, recheck: bool
) -> _Known:
    """What the server says of ``uids`` against what is stored of them; ``recheck``: also whether they are the same."""
    reply = await (connection.fetch_meta(uids) if recheck else connection.fetch_flags(uids))
    others = UidSet()
    async with context.database.read() as reader:
        stored = await store.flags_of(reader, row.id, row.cursor.uid_validity, uids)
        if recheck:
            held = await store.identities_of(reader, row.id, row.cursor.uid_validity, uids)
            others = UidSet(meta.uid for meta in reply.messages if is_another(meta, held.get(meta.uid)))
    differing = [
        meta
        for meta in reply.messages
        if meta.flags is not None
        and meta.uid in stored
        and meta.uid not in others
        and not store.same_flags(store.flags_text(meta.flags), stored[meta.uid])
    ]
    return _Known(differing, others=others, whole=not reply.malformed)


async def _list_new(connection: ImapConnection, span: UidSet) -> tuple[UidSet, dict[Uid, MessageMeta]]:
    """Which UIDs of a span exist. A short span, as after a push, is asked for its metadata at once; those that are not
    in the answer are searched for exactly, for the growth of UIDNEXT must be accounted for. A long span is listed.
    """
    if not span:
        return UidSet(), {}
    if len(span) > _SHORT_SPAN:
        return (await connection.search()) & span, {}
    reply = await connection.fetch_meta(span)
    metas = {meta.uid: meta for meta in reply.messages if meta.uid in span}
    shown = UidSet(metas)
    holes = span - shown
    return shown | ((await connection.search(holes)) & holes), metas


async def _everything(connection: ImapConnection) -> tuple[UidSet, ContradictionError | None]:
    """All UIDs, and the doubt where the listing is shorter than the mailbox is said to be, also after the server had a
    chance to tell of changes. None are believed where there are more than could have arrived meanwhile.
    """
    everything = UidSet()
    for attempt in range(_LISTINGS):
        if attempt:
            await connection.noop()
        arrived = connection.arrived
        everything = await connection.search()
        exists = connection.exists or 0
        # What came while the server searched, and is told at the end of its answer, need not be in what it lists.
        if _lasting(connection, arrived) <= len(everything) <= exists + _MOST_UNTOLD:
            return everything, None
    doubt = ContradictionError(
        f"the server says there are {connection.exists} messages and lists {len(everything)}",
        hint="new mail is stored all the same; what is gone cannot be told until the server is repaired",
    )
    return everything if len(everything) < exists else UidSet(), doubt


def _lasting(connection: ImapConnection, arrived: int) -> int:
    """How many of the messages that were there at the count ``arrived`` still are, by what the server told since."""
    return (connection.exists or 0) - (connection.arrived - arrived)


async def _confirm_gone(connection: ImapConnection, candidates: UidSet) -> UidSet:
    """The ``candidates`` that an exact search does not find (absence is not deletion, design §4.5)."""
    if not candidates:
        return candidates
    return candidates - await connection.search(candidates)


def cover(cursor: Cursor, stored: UidSet, gone: UidSet) -> Cursor:
    """``cursor`` once ``stored`` are in the store, and ``gone`` turned out to be expunged before they were fetched."""
    messages = cursor.messages if cursor.messages < 0 else cursor.messages - len(gone & cursor.uncovered)
    return replace(cursor, uncovered=cursor.uncovered - stored - gone, messages=messages)
