"""Every error mailmill raises on purpose, in one tree.

::

    MailmillError
    ├── ConfigurationError        the configuration is wrong; nothing was started            exit 2
    │   └── AddressInUseError     another program has the address, maybe not for long        exit 5
    ├── InvalidRequestError       what was asked for makes no sense (a cursor, a filter)   exit 2
    ├── NotFoundError             no such account, mailbox, message …                        exit 3
    │   └── RawExpiredError       … or no more: retention took the raw bytes of the message  exit 3
    ├── ConflictError             somebody else got there first: moved, deleted, used twice  exit 1
    │   └── CursorAheadError      a cursor the event log never came to: of another database  exit 1
    ├── CursorTooOldError         events that a cursor has not read were removed             exit 1
    ├── RefusedError              the mail server did not do what a request asked of it      exit 1
    ├── StoreError                the database or the mail folder failed
    │   ├── StoreInUseError       another service or command holds this data folder          exit 5
    │   ├── MasterKeyError        the master key is missing, malformed or not the one used   exit 2
    │   ├── LeaseLostError        another node keeps this account in sync now                exit 5
    │   ├── DatabaseUnavailableError  the database cannot be reached, or takes nobody now     exit 5
    │   ├── StorageFullError      the disk is full or the quota is reached                   exit 5
    │   └── StorageUnavailableError  the object store cannot be reached                      exit 5
    │       └── StorageRefusedError  … or refuses what is asked: credentials, no such bucket exit 1
    ├── ImapError                 talking to an IMAP server failed
    │   ├── ConnectError          could not reach the server (DNS, refused, timeout)         exit 5
    │   │   └── CertificateError  TLS was offered but the certificate is not trusted         exit 1
    │   ├── AuthenticationError   the server refused the credentials                         exit 4
    │   ├── InsecureError         the server or the settings would have us talk in the clear exit 1
    │   ├── ConnectionLostError   the connection was cut, or fell silent past its timeout    exit 5
    │   ├── ProtocolError         the server broke the grammar beyond repair
    │   │   ├── ContradictionError … or what it says of one mailbox does not add up; the connection is well
    │   │   └── LimitError        … or one of our caps (line, literal, nesting, response)
    │   ├── CommandError          tagged NO or BAD                                           exit 1
    │   ├── ArgumentError         an argument that no IMAP command can carry (CR, LF, NUL)   exit 2
    │   ├── UnsupportedError      the server lacks what was asked for; nothing was sent      exit 1
    │   └── PoolTimeoutError      no connection became free before the deadline              exit 5
    ├── MessageTooLargeError      the message is above ``max_message_bytes``
    ├── ProcessorError            a processor raised, returned what is not JSON, or timed out
    │   └── NotStartedError       … or did not run: no process or thread can be started now  exit 5
    └── DeliveryError             a destination refused or did not answer

Each error says who is at fault and carries a remedy in ``hint``; neither ever holds a secret. What follows from an
error (retry, back off, reconnect, give up the message, stop the account) is decided in one place,
``mailmill.sync.failures``; HTTP status codes live in ``mailmill.api`` alone, exit codes in ``mailmill.cli``.
"""

from __future__ import annotations


class MailmillError(Exception):
    """Base of all errors raised on purpose.

    ``message`` is one line naming the thing that failed; ``hint`` is one line saying what to do, or empty.
    ``account`` and ``mailbox`` name whom it happened to, where known; callers up the stack may fill them in.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "", account: str | None = None, mailbox: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.account = account
        self.mailbox = mailbox

    def __str__(self) -> str:
        where = ""
        if self.account:
            where = f"account {self.account!r}"
            if self.mailbox:
                where += f", mailbox {self.mailbox!r}"
            where += ": "
        return f"{where}{self.message}"


class ConfigurationError(MailmillError):
    """The configuration file or environment is wrong. ``key`` is the dotted key at fault, or empty.

    Where several things are wrong, ``problems`` holds a line for each and ``message`` is those lines.
    """

    code = "configuration"

    def __init__(self, message: str, *, hint: str = "", key: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.key = key
        self.problems = problems or (message,)


class AddressInUseError(ConfigurationError):
    """Another program has the address that we are to listen on. It may be about to end: the service before this one."""

    code = "addressInUse"


class InvalidRequestError(MailmillError):
    """What was asked for makes no sense: a cursor that is not ours, a filter that does not exist …"""

    code = "invalidRequest"


class NotFoundError(MailmillError):
    """There is no such account, mailbox, message, processor …"""

    code = "notFound"


class RawExpiredError(NotFoundError):
    """The message is known, its raw bytes are not kept any more: the account's retention took them."""

    code = "rawExpired"

    def __init__(self, message_id: int, *, account: str | None = None) -> None:
        super().__init__(f"the raw bytes of message {message_id} are not kept any more")
        self.account = account
        self.hint = "retention.raw_days says how long they are; the mail server may still have the message"


class ConflictError(MailmillError):
    """What was asked for does not fit what is there: the message was moved or deleted meanwhile, a key used twice …"""

    code = "conflict"


class CursorAheadError(ConflictError):
    """The event log never came as far as this cursor: it is of another database, or of this one before a restore."""

    code = "cursorAhead"

    def __init__(self, position: int, *, newest: int) -> None:
        super().__init__(
            f"the cursor {position} is ahead of the event log, which ends at {newest}",
            hint="it belongs to another database, or to this one before it was restored from a backup; start again with"
            " 0, or go on from `cursor` of /v1/status",
        )
        self.position = position
        self.newest = newest


class CursorTooOldError(MailmillError):
    """Events that this cursor has not read were removed by retention. ``oldest`` is the oldest cursor that is valid."""

    code = "cursorTooOld"

    def __init__(self, position: int, *, oldest: int) -> None:
        super().__init__(
            f"the cursor {position} is too old: events up to {oldest} were removed",
            hint=f"look at what is there now and go on from {oldest}, the oldest valid cursor (0 means the same)"
            ", or from `cursor` of /v1/status; service.keep_events_days says how long events are kept",
        )
        self.position = position
        self.oldest = oldest


class RefusedError(MailmillError):
    """The mail server did not do what a request asked of it; the message holds its words."""

    code = "refused"


class StoreError(MailmillError):
    """The database or the mail folder failed."""

    code = "store"


class StoreInUseError(StoreError):
    """Another service holds this data folder, or a command that works without one."""

    code = "storeInUse"


class MasterKeyError(StoreError):
    """The master key is missing, malformed, or not the one this store was written with."""

    code = "masterKey"


class LeaseLostError(StoreError):
    """This node does not own the account, or not any more: nothing was written. Another node keeps it in sync."""

    code = "leaseLost"


class DatabaseUnavailableError(StoreError):
    """The database cannot be reached, was cut off, or takes nobody at the moment. All that needs it waits for it."""

    code = "databaseUnavailable"


class StorageFullError(StoreError):
    """The disk is full or a quota is reached; nothing was recorded, nothing is lost."""

    code = "storageFull"


class StorageUnavailableError(StoreError):
    """Where the raw messages lie cannot be reached now. Nothing was recorded, nothing is lost; work waits for it."""

    code = "storageUnavailable"


class StorageRefusedError(StorageUnavailableError):
    """Where the raw messages lie can be reached and does not let us in: credentials, rights, no such bucket. All waits
    as for one that cannot be reached, until a person has mended it.
    """

    code = "storageRefused"


class ImapError(MailmillError):
    """Talking to an IMAP server failed."""

    code = "imap"


class ConnectError(ImapError):
    """The server could not be reached."""

    code = "connect"


class CertificateError(ConnectError):
    """The server's certificate is not trusted or does not carry its name."""

    code = "certificate"


class AuthenticationError(ImapError):
    """The server refused the credentials. ``server_text`` is what it said."""

    code = "authentication"

    def __init__(self, message: str, *, hint: str = "", server_code: str = "", server_text: str = "") -> None:
        super().__init__(message, hint=hint)
        self.server_code = server_code
        self.server_text = server_text


class InsecureError(ImapError):
    """Going on would have sent credentials or mail in the clear."""

    code = "insecure"


class ConnectionLostError(ImapError):
    """The connection was cut or fell silent. It is closed and never reused."""

    code = "connectionLost"


class ProtocolError(ImapError):
    """The server broke the protocol in a way that cannot be read past. The connection is closed."""

    code = "protocol"


class ContradictionError(ProtocolError):
    """What the server says of one mailbox does not add up, in answers that can be read. The connection is well, and so
    are the other mailboxes.
    """


class LimitError(ProtocolError):
    """The server sent more than one of our caps allows (line, literal, nesting, response)."""

    code = "limit"


class CommandError(ImapError):
    """A command ended in tagged NO or BAD (RFC 9051 §7.1).

    ``command`` is the verb, ``status`` is ``"NO"`` or ``"BAD"``, ``response_code`` the upper-case code in brackets
    or empty, ``text`` the server's words.
    """

    code = "command"

    def __init__(self, command: str, status: str, response_code: str, text: str, *, hint: str = "") -> None:
        shown = f"[{response_code}] {text}" if response_code else text
        super().__init__(f"the server answered {status} to {command}: {shown}", hint=hint)
        self.command = command
        self.status = status
        self.response_code = response_code
        self.text = text


class ArgumentError(ImapError, ValueError):
    """An argument that no IMAP command can carry: it holds CR, LF or NUL, or is no flag. Nothing was sent."""

    code = "argument"


class UnsupportedError(ImapError):
    """The server lacks the extension that was asked for, or the mailbox is not selected for it. Nothing was sent."""

    code = "unsupported"


class PoolTimeoutError(ImapError):
    """No connection became free before the deadline."""

    code = "poolTimeout"


class MessageTooLargeError(MailmillError):
    """The message is above ``max_message_bytes``; it is recorded as such and not downloaded."""

    code = "messageTooLarge"


class ProcessorError(MailmillError):
    """A processor raised, timed out, or returned something that is not JSON.

    A processor may raise it itself; ``permanent`` says that trying again is of no use.
    """

    code = "processor"

    def __init__(self, message: str, *, hint: str = "", permanent: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.permanent = permanent


class NotStartedError(ProcessorError):
    """The machine gives no process or thread to run a processor in. It did not run, which counts as no attempt."""

    code = "notStarted"

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            hint="look at the limits of the service (systemd: TasksMax, LimitNOFILE, MemoryMax) and the machine's free"
            " memory; what waits is tried again by itself",
        )


class DeliveryError(MailmillError):
    """A destination refused a delivery or did not answer in time. ``status`` is its HTTP status, if any.

    ``permanent``: trying again can change nothing. ``retry_after_seconds``: what the destination asked us to wait.
    """

    code = "delivery"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        status: int | None = None,
        permanent: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.permanent = permanent
        self.retry_after_seconds = retry_after_seconds
