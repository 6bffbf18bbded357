"""What the methods of `ImapConnection` return, where it is more than the values of ``mailmill.model``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mailmill.model import MailboxRef, MailboxStatus, MessageMeta, Uid
from mailmill.uid_set import UidSet


@dataclass(frozen=True, slots=True)
class ListedMailbox:
    """``status`` is None where the mailbox cannot be selected or the server would not say."""

    mailbox: MailboxRef
    status: MailboxStatus | None


@dataclass(frozen=True, slots=True)
class FetchedBody:
    """The raw message. A Path is a temporary file that the consumer owns: it moves or deletes it."""

    uid: Uid
    body: bytes | Path


@dataclass(frozen=True, slots=True)
class MetaReply:
    """What a UID FETCH of metadata brought, one entry for each UID.

    ``vanished``: UIDs of the asked-for set that the server said are gone, before or during the command. ``malformed``:
    responses that could not be read; a message may hide in each, so the range asked for is not covered.
    """

    messages: list[MessageMeta]
    vanished: UidSet
    malformed: int


@dataclass(frozen=True, slots=True)
class StoreReply:
    """``messages``: the flags as the server has them after the change, one entry for each UID it told of; it may tell
    of messages that were as asked already, or not.

    ``modified``: left alone, for they were changed since the given mod-sequence (RFC 7162 §3.1.3). ``malformed``:
    responses that could not be read.
    """

    messages: list[MessageMeta]
    modified: UidSet
    malformed: int


@dataclass(frozen=True, slots=True)
class CopyReply:
    """``uids`` maps each UID to that of its copy, in a mailbox of ``uid_validity`` (COPYUID, RFC 4315 §3).

    None and empty where the server did not tell, or told what cannot be: the messages are copied all the same.
    """

    uid_validity: int | None
    uids: Mapping[Uid, Uid]


@dataclass(frozen=True, slots=True)
class AppendReply:
    """Where the message is now (APPENDUID, RFC 4315 §3); both None where the server did not tell."""

    uid_validity: int | None
    uid: Uid | None
