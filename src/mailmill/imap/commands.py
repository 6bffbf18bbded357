"""Commands to bytes: one encoder for all arguments.

Laws:

- CR, LF and NUL never reach the wire inside an argument: `ArgumentError`, nothing is sent. This is what keeps a mailbox
  name or a search word from becoming a second command.
- What is not a safe quoted string goes as a literal: without waiting where the server allows it (LITERAL+, or LITERAL-
  up to 4096 bytes, RFC 7888), else in pieces that each wait for the server's ``+``.
- A secret is never in a repr: `Literal` and `Command` hide their bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import Enum

from mailmill.errors import ArgumentError
from mailmill.imap import utf7
from mailmill.model import Flags
from mailmill.uid_set import UidSet

_FORBIDDEN = re.compile(rb"[\r\n\0]")
_QUOTABLE = re.compile(rb"[\x20-\x7e\t]*\Z")
_LITERAL_MINUS_BYTES = 4096
_MAX_QUOTED_BYTES = 1000
# RFC 7162 §4 asks clients to keep a line under 8192 bytes; the set is the one part that grows.
_MAX_SET_BYTES = 7500
_MAX_FLAGS_BYTES = 4000

# RFC 9051 §9: an atom, with at most a backslash before it. `\\*` is something that servers say and nobody stores.
_FLAG = re.compile(r"\\?[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]+", re.ASCII)
_HEADER_NAME = re.compile(r"[!-9;-~]+", re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class LiteralMode(Enum):
    """How literals are sent: wait for the server each time, or not (RFC 7888)."""

    SYNCHRONIZING = "synchronizing"
    MINUS = "LITERAL-"
    PLUS = "LITERAL+"


@dataclass(frozen=True, slots=True)
class Literal:
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Command:
    """``verb`` is how errors name it; ``parts`` are what follows the tag, literals apart from text."""

    verb: str
    parts: tuple[bytes | Literal, ...] = field(repr=False)


def encode(tag: str, command: Command, mode: LiteralMode = LiteralMode.SYNCHRONIZING) -> list[bytes]:
    """The pieces to write; before each but the first the server's ``+`` must have come."""
    pieces: list[bytes] = []
    piece = bytearray(tag.encode("ascii") + b" ")
    for part in command.parts:
        if not isinstance(part, Literal):
            piece += part
            continue
        announced, waits = announce(len(part.data), mode)
        piece += announced + b"\r\n"
        if waits:
            pieces.append(bytes(piece))
            piece.clear()
        piece += part.data
    piece += b"\r\n"
    pieces.append(bytes(piece))
    return pieces


def announce(size_bytes: int, mode: LiteralMode) -> tuple[bytes, bool]:
    """The words before a literal, and whether the server's ``+`` must come before its bytes (RFC 7888)."""
    if mode is LiteralMode.PLUS or (mode is LiteralMode.MINUS and size_bytes <= _LITERAL_MINUS_BYTES):
        return b"{%d+}" % size_bytes, False
    return b"{%d}" % size_bytes, True


def string(value: str | bytes) -> bytes | Literal:
    """Any text as an IMAP string: quoted where that is safe everywhere, else a literal. Raises ArgumentError."""
    raw = _bytes(value)
    if _FORBIDDEN.search(raw):
        raise ArgumentError("an argument holds a line end or a NUL, which IMAP cannot carry")
    if len(raw) <= _MAX_QUOTED_BYTES and _QUOTABLE.match(raw):
        return b'"' + raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    return Literal(raw)


def mailbox(path: str) -> bytes | Literal:
    """A mailbox name in modified UTF-7, quoted. Raises ArgumentError on lone surrogates."""
    try:
        return string(utf7.encode(path))
    except UnicodeEncodeError as error:
        raise ArgumentError("a mailbox name is not valid Unicode") from error


def _bytes(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ArgumentError("an argument is not valid Unicode") from error


def flag_list(flags: Flags) -> bytes:
    """Flags in parentheses. Raises ArgumentError for what is none, for ``\\Recent`` and for far too many of them."""
    for flag in flags:
        if not _FLAG.fullmatch(flag):
            raise ArgumentError(
                f"not a flag that IMAP can carry: {flag[:60]!r}",
                hint="flags are \\Seen, \\Answered, \\Flagged, \\Deleted, \\Draft, and words without spaces or any of "
                '()[]{}%*"\\ in plain ASCII',
            )
        if flag.lower() == "\\recent":
            raise ArgumentError("\\Recent is the server's own flag and cannot be stored")
    listed = " ".join(sorted(flags)).encode("ascii")
    if len(listed) > _MAX_FLAGS_BYTES:
        raise ArgumentError("these are more flags than one command can carry")
    return b"(" + listed + b")"


def date_time(seconds: float) -> bytes:
    """Seconds since the epoch as a quoted ``date-time`` in UTC, in whole seconds. Raises ArgumentError."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds // 1)
    except (OverflowError, ValueError) as error:
        raise ArgumentError("an internal date is not a point in time between the years 1 and 9999") from error
    day = f"{moment.day:2}-{_MONTHS[moment.month - 1]}-{moment.year:04}"
    return f'"{day} {moment.hour:02}:{moment.minute:02}:{moment.second:02} +0000"'.encode("ascii")


def split_set(uids: UidSet, *, spare_bytes: int = 0) -> Iterator[UidSet]:
    """The same UIDs in sets whose IMAP form fits a command line that holds ``spare_bytes`` of other words. Nothing for
    the empty set.
    """
    ranges: list[tuple[int, int]] = []
    size = 0
    for low, high in uids.ranges:
        length = len(str(low)) + 1 + (len(str(high)) + 1 if high != low else 0)
        if size + length > _MAX_SET_BYTES - spare_bytes:
            yield UidSet.from_ranges(ranges)
            ranges, size = [], 0
        ranges.append((low, high))
        size += length
    if ranges:
        yield UidSet.from_ranges(ranges)


# -- one function for each command -------------------------------------------------------------------------------------


def simple(verb: str) -> Command:
    """A command without arguments: CAPABILITY, NOOP, LOGOUT, STARTTLS, IDLE."""
    return Command(verb, (verb.encode("ascii"),))


def login(username: str, password: str) -> Command:
    return Command("LOGIN", (b"LOGIN ", string(username), b" ", string(password)))


def authenticate(mechanism: str, initial_response: bytes | None) -> Command:
    """``initial_response`` is base64 already (SASL-IR, RFC 4959); None where the server has no SASL-IR."""
    text = b"AUTHENTICATE " + mechanism.encode("ascii")
    if initial_response is not None:
        text += b" " + (initial_response or b"=")
    return Command("AUTHENTICATE", (text,))


def identify(fields: Iterable[tuple[str, str]]) -> Command:
    """ID (RFC 2971)."""
    parts: list[bytes | Literal] = [b"ID ("]
    for index, pair in enumerate(fields):
        parts += [b" " if index else b"", string(pair[0]), b" ", string(pair[1])]
    return Command("ID", (*parts, b")"))


def enable(*names: str) -> Command:
    return Command("ENABLE", (b"ENABLE " + " ".join(names).encode("ascii"),))


def list_mailboxes(pattern: str, *, special_use: bool = False, status_items: tuple[str, ...] = ()) -> Command:
    """LIST, with SPECIAL-USE (RFC 6154) and STATUS (RFC 5819) as return options where asked for."""
    options = ["SPECIAL-USE"] if special_use else []
    if status_items:
        options.append(f"STATUS ({' '.join(status_items)})")
    tail = f" RETURN ({' '.join(options)})" if options else ""
    return Command("LIST", (b'LIST "" ', mailbox(pattern), tail.encode("ascii")))


def status(name: bytes | Literal, items: tuple[str, ...]) -> Command:
    return Command("STATUS", (b"STATUS ", name, f" ({' '.join(items)})".encode("ascii")))


def select(name: bytes | Literal, *, read_only: bool, condstore: bool) -> Command:
    verb = "EXAMINE" if read_only else "SELECT"
    return Command(verb, (verb.encode("ascii") + b" ", name, b" (CONDSTORE)" if condstore else b""))


def notify(*, others: bool) -> Command:
    """NOTIFY SET (RFC 5465 §3): of the selected mailbox, and of all personal ``others`` with a STATUS of each at once.

    SELECTED-DELAYED leaves expunges where they always were: never between two commands. The three message
    events go together or not at all.
    """
    events = "MessageNew MessageExpunge FlagChange"
    text = f"NOTIFY SET{' STATUS' if others else ''} (SELECTED-DELAYED ({events}))"
    text += f" (PERSONAL ({events} MailboxName))" if others else ""
    return Command("NOTIFY", (text.encode("ascii"),))


def uid_fetch(
    uids: UidSet, items: Iterable[str], *, changed_since: int | None = None, vanished: bool = False
) -> Command:
    """UID FETCH, with CHANGEDSINCE and VANISHED (RFC 7162 §3.1.4.1, §3.2.6) where asked for."""
    text = f"UID FETCH {uids} ({' '.join(items)})"
    if changed_since is not None:
        text += f" (CHANGEDSINCE {changed_since}{' VANISHED' if vanished else ''})"
    return Command("UID FETCH", (text.encode("ascii"),))


def uid_search(uids: UidSet | None, *, esearch: bool) -> Command:
    """All UIDs of the mailbox, or those of ``uids`` that exist."""
    text = f"UID SEARCH {'RETURN (ALL) ' if esearch else ''}{'ALL' if uids is None else f'UID {uids}'}"
    return Command("UID SEARCH", (text.encode("ascii"),))


def uid_search_before(day: date, *, esearch: bool) -> Command:
    """Which messages the server received before ``day``, time and time zone disregarded (RFC 9051 §6.4.4 BEFORE)."""
    shown = f"{day.day}-{_MONTHS[day.month - 1]}-{day.year:04}"
    return Command("UID SEARCH", (f"UID SEARCH {'RETURN (ALL) ' if esearch else ''}BEFORE {shown}".encode("ascii"),))


def uid_search_header(uids: UidSet | None, name: str, value: str, *, esearch: bool) -> Command:
    """Which messages have ``value`` somewhere in the header field ``name`` (RFC 9051 §6.4.4). Raises ArgumentError."""
    if not _HEADER_NAME.fullmatch(name):
        raise ArgumentError(f"not the name of a header field: {name[:60]!r}")
    text = f"UID SEARCH {'RETURN (ALL) ' if esearch else ''}"
    text += "" if value.isascii() else "CHARSET UTF-8 "
    text += "" if uids is None else f"UID {uids} "
    return Command("UID SEARCH", (text.encode("ascii") + b"HEADER ", string(name), b" ", string(value)))


def uid_store(uids: UidSet, sign: str, flags: Flags, *, unchanged_since: int | None = None) -> Command:
    """UID STORE ``+`` or ``-`` FLAGS, with UNCHANGEDSINCE (RFC 7162 §3.1.3) where asked for."""
    condition = "" if unchanged_since is None else f"(UNCHANGEDSINCE {unchanged_since}) "
    return Command("UID STORE", (f"UID STORE {uids} {condition}{sign}FLAGS ".encode("ascii") + flag_list(flags),))


def uid_copy(uids: UidSet, target: bytes | Literal) -> Command:
    return Command("UID COPY", (f"UID COPY {uids} ".encode("ascii"), target))


def uid_move(uids: UidSet, target: bytes | Literal) -> Command:
    """UID MOVE (RFC 6851)."""
    return Command("UID MOVE", (f"UID MOVE {uids} ".encode("ascii"), target))


def uid_expunge(uids: UidSet) -> Command:
    """UID EXPUNGE (RFC 4315 §2.1)."""
    return Command("UID EXPUNGE", (f"UID EXPUNGE {uids}".encode("ascii"),))


def append(target: bytes | Literal, announced: bytes, *, flags: Flags, internal_date: float | None) -> Command:
    """APPEND as far as the words that announce the message (`announce`); its bytes and a line end are to follow."""
    words = b" "
    if flags:
        words += flag_list(flags) + b" "
    if internal_date is not None:
        words += date_time(internal_date) + b" "
    return Command("APPEND", (b"APPEND ", target, words + announced))
