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
from enum import Enum

from mailmill.errors import ArgumentError
from mailmill.imap import utf7
from mailmill.uid_set import UidSet

_FORBIDDEN = re.compile(rb"[\r\n\0]")
_QUOTABLE = re.compile(rb"[\x20-\x7e\t]*\Z")
_LITERAL_MINUS_BYTES = 4096
_MAX_QUOTED_BYTES = 1000
# RFC 7162 §4 asks clients to keep a line under 8192 bytes; the set is the one part that grows.
_MAX_SET_BYTES = 7500


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
        size = len(part.data)
        if mode is LiteralMode.PLUS or (mode is LiteralMode.MINUS and size <= _LITERAL_MINUS_BYTES):
            piece += b"{%d+}\r\n" % size + part.data
        else:
            piece += b"{%d}\r\n" % size
            pieces.append(bytes(piece))
            piece = bytearray(part.data)
    piece += b"\r\n"
    pieces.append(bytes(piece))
    return pieces


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


def split_set(uids: UidSet) -> Iterator[UidSet]:
    """The same UIDs in sets whose IMAP form fits a command line. Nothing for the empty set."""
    ranges: list[tuple[int, int]] = []
    size = 0
    for low, high in uids.ranges:
        length = len(str(low)) + 1 + (len(str(high)) + 1 if high != low else 0)
        if size + length > _MAX_SET_BYTES:
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
