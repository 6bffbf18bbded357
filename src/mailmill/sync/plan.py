"""What to ask the server about a mailbox: cursor + server state → steps. Pure.

The three tiers differ only in what must be asked to learn the same thing (RFC 7162):

=========  =======================================  ==========================================
tier       flag changes                             expunges
=========  =======================================  ==========================================
QRESYNC    ``CHANGEDSINCE m``                       ``VANISHED`` in the same answer
CONDSTORE  ``CHANGEDSINCE m``                       the count tells that there are some, a search which
plain      a recent window, all on a slow timer     the same
=========  =======================================  ==========================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mailmill.imap.session import Features
from mailmill.model import MailboxStatus, MessageMeta
from mailmill.store.mailboxes import Cursor
from mailmill.store.message_places import HeldIdentity
from mailmill.uid_set import UidSet


class Tier(StrEnum):
    QRESYNC = "qresync"
    CONDSTORE = "condstore"
    PLAIN = "plain"


class FlagScope(StrEnum):
    """Whose flags to ask for: nobody's, those changed since a mod-sequence, the newest ones', everybody's."""

    NONE = "none"
    CHANGED = "changed"
    WINDOW = "window"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Plan:
    """The questions for one mailbox. ``new`` is the span of UIDs given out since the cursor; it may have holes.

    ``recheck``: numbers went back, so a UID we hold may stand for another message by now.
    """

    reset: bool
    new: UidSet
    flags: FlagScope
    changed_since: int | None = None
    vanished: bool = False
    enumerate: bool = False
    recheck: bool = False


def tier_of(features: Features) -> Tier:
    if features.qresync:
        return Tier.QRESYNC
    return Tier.CONDSTORE if features.condstore else Tier.PLAIN


def is_unchanged(cursor: Cursor, status: MailboxStatus) -> bool:
    """Whether the mailbox can be skipped: every value that the server gives matches, and flags cannot hide.

    Without a mod-sequence a flag change leaves no trace in STATUS, so such a mailbox is never skipped by this rule.
    The message count is compared even with one: only QRESYNC servers must raise it on expunge (RFC 7162 §3.2.4).
    """
    return (
        status.highest_mod_seq is not None
        and cursor.uid_validity == status.uid_validity
        and cursor.uid_next == status.uid_next
        and cursor.messages == status.messages
        and cursor.highest_mod_seq == status.highest_mod_seq
    )


def plan_mailbox(cursor: Cursor, status: MailboxStatus, tier: Tier, *, sweep_due: bool) -> Plan:
    """The steps that bring ``cursor`` to ``status``. ``sweep_due``: the slow timer for all flags has run out."""
    if cursor.uid_validity != status.uid_validity:
        # Any difference is a new generation, a lower value too (RFC 9051 §2.3.1.1).
        return Plan(reset=cursor.uid_validity != 0, new=UidSet.span(1, status.uid_next - 1), flags=FlagScope.NONE)
    new = UidSet.span(max(1, cursor.uid_next), status.uid_next - 1)
    if cursor.uid_next <= 1:
        return Plan(reset=False, new=new, flags=FlagScope.NONE)
    went_back = status.uid_next < cursor.uid_next
    # Below zero: the last look did not add up (`Changes.doubt`).
    doubtful = went_back or cursor.messages < 0
    if tier is Tier.PLAIN or status.highest_mod_seq is None:
        scope = FlagScope.ALL if sweep_due or went_back else FlagScope.WINDOW
        return Plan(reset=False, new=new, flags=scope, enumerate=doubtful, recheck=went_back)
    if cursor.highest_mod_seq is None:
        # Mod-sequences appeared: there is no mark to ask from.
        return Plan(reset=False, new=new, flags=FlagScope.ALL, enumerate=True)
    if status.highest_mod_seq < cursor.highest_mod_seq or went_back:
        # Restored from a backup, or deleted and recreated: nothing can be asked relative to our mark.
        return Plan(reset=False, new=new, flags=FlagScope.ALL, enumerate=True, recheck=True)
    if cursor.highest_mod_seq == status.highest_mod_seq:
        return Plan(reset=False, new=new, flags=FlagScope.NONE, enumerate=doubtful)
    return Plan(
        reset=False,
        new=new,
        flags=FlagScope.CHANGED,
        changed_since=cursor.highest_mod_seq,
        vanished=tier is Tier.QRESYNC,
        enumerate=doubtful,
    )


def is_another(meta: MessageMeta, held: HeldIdentity | None) -> bool:
    """Whether the server speaks of another message than the one that we hold at this UID. EMAILID decides where both
    have it; else size and date, and one that only seems to be another is fetched again for nothing.
    """
    if held is None:
        return False
    if meta.email_id is not None and held.email_id is not None:
        return meta.email_id != held.email_id
    return (meta.size_bytes is not None and meta.size_bytes != held.size_bytes) or (
        meta.internal_date is not None and meta.internal_date != held.internal_date
    )


def history_mark(listed: UidSet, old: UidSet) -> int:
    """Below which UID all of ``listed`` are ``old``; 0 where none is. What stands above a message that is not old may
    have come with it, and counts as new.
    """
    new = listed - old
    lowest_new = new.ranges[0][0] if new else (listed.highest or 0) + 1
    return lowest_new if listed & old & UidSet.span(1, lowest_new - 1) else 0
