"""Messages and their places: the door through which other rooms come in. What is behind it:

``sync_batch`` and ``message_batch`` what a sync pass writes · ``message_places`` UIDs and flags held ·
``message_deletion`` orphans, confirmed or not · ``mailboxes`` with their cursors · ``message_queries`` listings and
counts.
"""

from mailmill.store.mailboxes import (
    Cursor,
    MailboxRow,
    StaleBatchError,
    apply_mailbox_list,
    expunge_old_generation,
    get_mailbox,
    keep_history,
    list_mailboxes,
    park,
    parked_uids,
    reset_mailbox,
    without_old_places,
)
from mailmill.store.message_batch import apply_batch
from mailmill.store.message_counts import count_messages, count_places, count_verdicts, referenced_segments
from mailmill.store.message_deletion import confirm_deleted, orphan_count
from mailmill.store.message_listing import ListedMessage, MessagePage, list_messages
from mailmill.store.message_places import (
    find_known,
    flags_of,
    flags_text,
    identities_of,
    living_uids,
    same_flags,
    sizes_of,
)
from mailmill.store.message_queries import (
    MessageRow,
    MessageWorkRow,
    PlaceRow,
    ResultRow,
    get_message,
    get_messages,
    places_of,
    results_of,
    work_of,
)
from mailmill.store.sync_batch import Arrival, BatchOutcome, StoredContent, SyncBatch, WorkPlan

__all__ = [
    "Arrival",
    "BatchOutcome",
    "Cursor",
    "ListedMessage",
    "MailboxRow",
    "MessagePage",
    "MessageRow",
    "MessageWorkRow",
    "PlaceRow",
    "ResultRow",
    "StaleBatchError",
    "StoredContent",
    "SyncBatch",
    "WorkPlan",
    "apply_batch",
    "apply_mailbox_list",
    "confirm_deleted",
    "count_messages",
    "count_places",
    "count_verdicts",
    "expunge_old_generation",
    "find_known",
    "flags_of",
    "flags_text",
    "get_mailbox",
    "get_message",
    "get_messages",
    "identities_of",
    "keep_history",
    "list_mailboxes",
    "list_messages",
    "living_uids",
    "orphan_count",
    "park",
    "parked_uids",
    "places_of",
    "referenced_segments",
    "reset_mailbox",
    "results_of",
    "same_flags",
    "sizes_of",
    "without_old_places",
    "work_of",
]
