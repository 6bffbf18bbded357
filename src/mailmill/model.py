"""The values every layer speaks in: frozen, no I/O, names from the standards.

``Uid`` and ``SeqNum`` are distinct types on purpose: a sequence number means something only to one connection at one
moment and never leaves ``mailmill.imap``. Times are seconds since the epoch, UTC, as ``float``; sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, NewType

Uid = NewType("Uid", int)
SeqNum = NewType("SeqNum", int)
ModSeq = NewType("ModSeq", int)

Flags = frozenset[str]

INBOX = "INBOX"


class Tls(StrEnum):
    """How a connection is protected. ``NONE`` is for loopback, or where ``allow_insecure`` says so."""

    IMPLICIT = "implicit"
    STARTTLS = "starttls"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens and how to talk to it. ``ca_file`` adds a trusted root (PEM)."""

    host: str
    port: int
    tls: Tls = Tls.IMPLICIT
    allow_insecure: bool = False
    ca_file: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and its password. The password never appears in a repr."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MailboxRef:
    """A mailbox as LIST names it. ``path`` is decoded (no modified UTF-7); ``special_use`` is ``\\Sent`` … or None."""

    path: str
    delimiter: str | None = None
    special_use: str | None = None
    selectable: bool = True


@dataclass(frozen=True, slots=True)
class MailboxStatus:
    """What STATUS or SELECT says of a mailbox, read at one moment.

    ``highest_mod_seq`` is None where the server has no mod-sequences for it (no CONDSTORE, NOMODSEQ, or 0).
    """

    path: str
    messages: int
    uid_next: int
    uid_validity: int
    highest_mod_seq: int | None = None


class MessageMeta(NamedTuple):
    """What FETCH says of one message besides its body. Items the server did not send are None.

    A tuple: they come by the hundred thousand, and a frozen dataclass takes five times as long to make.

    ``internal_date`` is seconds since the epoch. ``email_id`` and ``thread_id`` are OBJECTID's (RFC 8474),
    ``x_gm_msgid`` is Gmail's.
    """

    uid: Uid
    flags: Flags | None = None
    mod_seq: int | None = None
    internal_date: float | None = None
    size_bytes: int | None = None
    email_id: str | None = None
    thread_id: str | None = None
    x_gm_msgid: str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox of an address header. ``address`` is ``local@domain``, or whatever stood there."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """IMAP's summary of a message (RFC 9051 §7.5.2 ENVELOPE); strings are decoded, absent ones empty."""

    date: str = ""
    subject: str = ""
    from_: tuple[Address, ...] = ()
    sender: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    in_reply_to: str = ""
    message_id_header: str = ""


class Backlog(StrEnum):
    """What becomes of mail that was on the server before the account was added."""

    STORE = "store"
    PROCESS = "process"
    DELIVER = "deliver"


class AccountState(StrEnum):
    """The states an account is shown in (the public contract)."""

    INIT = "init"
    CONNECTING = "connecting"
    SYNCING = "syncing"
    CONNECTED = "connected"
    AUTHENTICATION_ERROR = "authenticationError"
    CONNECT_ERROR = "connectError"
    PAUSED = "paused"
    DISCONNECTED = "disconnected"


class EventName(StrEnum):
    """The events that are raised so far (the public contract names more; they come with what raises them)."""

    MESSAGE_NEW = "messageNew"
    MESSAGE_UPDATED = "messageUpdated"
    MESSAGE_DELETED = "messageDeleted"
    MESSAGE_PROCESSED = "messageProcessed"
    MESSAGE_FAILED = "messageFailed"
    THREAT_FOUND = "threatFound"
    MAILBOX_NEW = "mailboxNew"
    MAILBOX_DELETED = "mailboxDeleted"
    MAILBOX_RESET = "mailboxReset"
    ACCOUNT_ADDED = "accountAdded"
    ACCOUNT_DELETED = "accountDeleted"
    ACCOUNT_INITIALIZED = "accountInitialized"
    AUTHENTICATION_SUCCESS = "authenticationSuccess"
    AUTHENTICATION_ERROR = "authenticationError"
    CONNECT_ERROR = "connectError"


class VerdictName(StrEnum):
    CLEAN = "clean"
    SUSPICIOUS = "suspicious"
    MALICIOUS = "malicious"


class Severity(StrEnum):
    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Finding:
    """One detector's statement about one message.

    ``id`` is stable (``links.text_differs_from_target``), ``family`` the room it comes from, ``score`` what it adds to
    the verdict, ``evidence`` the words or header it saw, short and safe to show (plain text, at most 300 characters).
    ``words`` is the reason as a person would say it, where the scoring table has none for this id.
    """

    id: str
    family: str
    severity: Severity
    score: float
    evidence: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The threat engine's word on one message: a name, a score (0–100) and the findings, worst first."""

    verdict: VerdictName
    score: float
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class SenderHistory:
    """What an account knows of a message's sender from the mail it has had, up to that message.

    ``known`` is False where nobody looked (the command line on a file): then absence says nothing.
    ``account_messages``: how much mail the account had before. ``received`` and ``sent``: earlier messages from this
    address, and to it; ``organisation_received``: from its organisational domain. ``name_addresses``: other addresses
    that wrote, or were written to, under the same display name; ``name_sent``: how often the account wrote to those.
    ``thread``: who wrote or got the earlier messages that this one claims to answer; empty where it claims none, or
    none is here. ``correspondents``: the domains that the account has written to.
    """

    known: bool = False
    account_messages: int = 0
    received: int = 0
    sent: int = 0
    organisation_received: int = 0
    name_addresses: tuple[str, ...] = ()
    name_sent: int = 0
    thread: tuple[Address, ...] = ()
    correspondents: tuple[str, ...] = ()


NO_HISTORY = SenderHistory()
