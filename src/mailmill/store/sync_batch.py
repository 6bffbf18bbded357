"""The values of a sync batch: what a pass over one mailbox found out, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailmill.model import Address, Backlog, MessageMeta, Uid
from mailmill.store.blobs import BlobRef
from mailmill.store.mailboxes import Cursor, MailboxRow
from mailmill.uid_set import UidSet


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A message whose raw bytes are stored and synced, with what its header block says (any text; dates as epoch
    seconds)."""

    blob: BlobRef
    subject: str = ""
    from_name: str = ""
    from_address: str = ""
    date_header: float | None = None
    message_id_header: str = ""
    in_reply_to: str = ""
    recipients: Sequence[Address] = ()
    references: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message at a UID we do not hold: with its content, or known already (`find_known`). Exactly one of the two."""

    meta: MessageMeta
    content: StoredContent | None = None
    known_message_id: int | None = None


@dataclass(frozen=True, slots=True)
class SyncBatch:
    """What one pass, or one group of it, found out about ``mailbox`` (the row it was planned on).

    ``cursor`` is what the mailbox's cursor becomes; ``parked`` are messages that could not be fetched:
    ``(uid, reason, retry_at)``. ``lost`` are places where contents of the arrivals lay before (`blob_places`).
    """

    mailbox: MailboxRow
    uid_validity: int
    arrivals: Sequence[Arrival]
    flag_changes: Sequence[MessageMeta]
    expunged: UidSet
    cursor: Cursor
    parked: Sequence[tuple[Uid, str, float]] = ()
    lost: Sequence[BlobRef] = ()


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """What is to be done with a new message: ``(processor, version)`` each, and the policy for history."""

    processors: Sequence[tuple[str, int]]
    backlog: Backlog = Backlog.PROCESS


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """How many messages were new, how many were updated (a further place, flags), how many places expunged.

    ``message_ids`` are those of the new messages, in the order of the batch.
    """

    new: int
    updated: int
    expunged: int
    message_ids: tuple[int, ...]
