"""The parts of a response into one typed event. Pure, and total: `parse` never raises.

What cannot be read becomes `Malformed`; what can be read but is not known here becomes `Other`. The difference matters:
a `Malformed` response may have hidden a message, so a cursor never passes the range it stands in.

FETCH, the one response that comes in hundreds of thousands, has its own file, ``fetch.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from mailmill.errors import LimitError
from mailmill.imap import utf7
from mailmill.imap.fetch import FLAGS_LINES, Fetch, flags_line, number, parse_fetch, parse_simple_fetch
from mailmill.imap.limits import DEFAULT_LIMITS, Limits
from mailmill.imap.tokens import Value, tokenize
from mailmill.imap.wire import Parts, split_run
from mailmill.model import INBOX, SeqNum
from mailmill.uid_set import UidSet

_MAX_SHOWN_BYTES = 4096
# What is longer is not kept, so that what servers send bounds no cache but by its number of entries.
_MAX_REMEMBERED_BYTES = 256


@dataclass(frozen=True, slots=True)
class Status:
    """An untagged OK, NO, BAD, BYE or PREAUTH. ``code`` is upper case, ``argument`` what followed it in brackets."""

    status: str
    code: str
    argument: str
    text: str


@dataclass(frozen=True, slots=True)
class Tagged:
    """The end of a command: ``status`` is OK, NO or BAD."""

    tag: str
    status: str
    code: str
    argument: str
    text: str


@dataclass(frozen=True, slots=True)
class Continuation:
    text: bytes


@dataclass(frozen=True, slots=True)
class Capability:
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Listed:
    """LIST (RFC 9051 §7.3.1, extended data RFC 5258). Attributes are lower case, ``raw_name`` is as sent."""

    path: str
    raw_name: bytes
    delimiter: str | None
    attributes: frozenset[str]
    old_path: str | None = None


@dataclass(frozen=True, slots=True)
class StatusData:
    """STATUS: upper-case item to number."""

    path: str
    items: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Exists:
    count: int


@dataclass(frozen=True, slots=True)
class Recent:
    count: int


@dataclass(frozen=True, slots=True)
class Expunge:
    seq: SeqNum


@dataclass(frozen=True, slots=True)
class Vanished:
    """VANISHED (RFC 7162 §3.2.10). ``earlier``: asked for, and says nothing of the message count."""

    earlier: bool
    uids: UidSet


@dataclass(frozen=True, slots=True)
class Search:
    uids: UidSet
    mod_seq: int | None


@dataclass(frozen=True, slots=True)
class Esearch:
    """ESEARCH (RFC 4731). ``all`` is empty where the server sent none, which is how it says "no message"."""

    tag: str | None
    uid: bool
    all: UidSet
    mod_seq: int | None


@dataclass(frozen=True, slots=True)
class Enabled:
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class ServerId:
    """ID (RFC 2971): lower-case field to value."""

    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MailboxFlags:
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Other:
    """A response that is well formed and not known here."""

    keyword: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A response that could not be read. ``raw`` is its beginning (at most 4 KiB), never logged."""

    raw: bytes
    reason: str


Response: TypeAlias = (
    Status
    | Tagged
    | Continuation
    | Capability
    | Listed
    | StatusData
    | Exists
    | Recent
    | Expunge
    | Vanished
    | Search
    | Esearch
    | Enabled
    | ServerId
    | MailboxFlags
    | Fetch
    | Other
    | Malformed
)

_UNTAGGED = re.compile(rb"\*[ ]+(?:(\d{1,20})[ ]+)?([^ ()\[\]\"]+)[ ]*")
_TAGGED = re.compile(rb"([^ +*(){%\\\"]+)[ ]+(OK|NO|BAD)(?:[ ]+(.*))?\Z", re.IGNORECASE | re.DOTALL)
# The shape in which a thousand accounts' mailboxes tell that nothing is new; anything else has the general reading.
_SIMPLE_STATUS = re.compile(
    rb'("[^"\\]{0,200}+"|(?!NIL )[A-Za-z0-9_./&,+-]{1,200}+) \(((?:[A-Z]{1,20} \d{1,18} ?)++)\)', re.IGNORECASE
)
_RESPONSE_TEXT = re.compile(rb"\[([^\] ]+)[ ]*([^\]]*)\][ ]*(.*)\Z", re.DOTALL)


def parse(parts: Parts, limits: Limits = DEFAULT_LIMITS) -> Response:
    """One response of `Framer` as an event. Never raises. Spooled literals that the event does not hold are freed."""
    simple = parse_simple_fetch(parts)
    if simple is not None:
        return simple
    event = _parse(parts, limits)
    if len(parts) > 1:
        held = {id(section) for section in event.sections.values()} if isinstance(event, Fetch) else set()
        for part in parts[1::2]:
            if not isinstance(part, bytes) and id(part) not in held:
                part.discard()
    return event


def parse_run(run: bytes, limits: Limits = DEFAULT_LIMITS) -> list[Response]:
    """The responses of a run of plain lines: what `parse` says of each, sooner. Never raises."""
    if not run.isascii():
        return [parse(parts, limits) for parts in split_run(run)]
    events: list[Response] = []
    for uid, flags, mod_seq, other in FLAGS_LINES.findall(run.decode("ascii")):
        if uid:
            events.append(flags_line(uid, flags, mod_seq))
        elif line := other.removesuffix("\r"):
            events.append(parse([line.encode("ascii")], limits))
    return events


def _parse(parts: Parts, limits: Limits) -> Response:
    first = parts[0]
    assert isinstance(first, bytes)
    try:
        if first.startswith(b"*"):
            return _untagged(first, parts, limits)
        if first.startswith(b"+"):
            return Continuation(first[1:].strip())
        tagged = _TAGGED.match(first)
        if tagged is None:
            return _malformed(parts, "neither tagged nor untagged")
        code, argument, text = _response_text(tagged[3] or b"")
        return Tagged(tagged[1].decode("latin-1"), tagged[2].decode("ascii").upper(), code, argument, text)
    except (ValueError, LimitError) as error:
        return _malformed(parts, str(error))


def _untagged(first: bytes, parts: Parts, limits: Limits) -> Response:
    head = _UNTAGGED.match(first)
    if head is None:
        return _malformed(parts, "an untagged response without a name")
    keyword = head[2].decode("latin-1").upper()
    if head[1] is not None:
        return _numbered(keyword, int(head[1]), parts, head.end(), limits)
    if keyword in ("OK", "NO", "BAD", "BYE", "PREAUTH"):
        return Status(keyword, *_response_text(first[head.end(2) :].strip()))
    handler = _HANDLERS.get(keyword)
    if handler is None:
        return Other(keyword)
    if len(parts) == 1:
        if keyword == "STATUS" and (simple := _SIMPLE_STATUS.fullmatch(first, head.end())) is not None:
            return _simple_status(simple)
        if keyword == "LIST" and len(first) <= _MAX_REMEMBERED_BYTES:
            return _same_list(first[head.end() :], limits.nesting)
    if keyword in ("SEARCH", "CAPABILITY", "VANISHED"):
        # Long flat answers: no need to make a value of every word.
        return handler(first[head.end() :].split())
    return handler(tokenize(parts, head.end(), nesting=limits.nesting))


def _numbered(keyword: str, value: int, parts: Parts, position: int, limits: Limits) -> Response:
    if keyword == "FETCH":
        return parse_fetch(value, tokenize(parts, position, nesting=limits.nesting))
    if keyword not in ("EXISTS", "RECENT", "EXPUNGE"):
        return Other(keyword)
    if value > 2**32 - 1:
        raise ValueError(f"{keyword} is out of range")
    if keyword == "EXISTS":
        return Exists(value)
    return Recent(value) if keyword == "RECENT" else Expunge(SeqNum(value))


def _response_text(raw: bytes) -> tuple[str, str, str]:
    code = _RESPONSE_TEXT.match(raw) if raw.startswith(b"[") else None
    if code is None:
        return "", "", shown(raw)
    return code[1].decode("latin-1").upper(), code[2].decode("latin-1"), shown(code[3])


def shown(raw: bytes) -> str:
    """A server's words as one bounded, printable line."""
    text = raw[:1000].decode("utf-8", "replace")
    return (text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)).strip()


def _malformed(parts: Parts, reason: str) -> Malformed:
    raw = bytearray()
    for part in parts:
        raw += part[: _MAX_SHOWN_BYTES - len(raw)] if isinstance(part, bytes) else b"{...}"
        if len(raw) >= _MAX_SHOWN_BYTES:
            break
    return Malformed(bytes(raw), reason)


def mailbox_path(raw: bytes) -> str:
    """A mailbox name from the wire. INBOX is upper case; what is not modified UTF-7 is taken as UTF-8 or Latin-1."""
    try:
        path = utf7.decode(raw)
    except ValueError:
        path = raw.decode("utf-8") if _is_utf8(raw) else raw.decode("latin-1")
    return INBOX if path.upper() == INBOX else path


_same_path = lru_cache(maxsize=2048)(mailbox_path)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# -- one handler for each keyword --------------------------------------------------------------------------------------


def capability_names(text: str) -> frozenset[str]:
    """From the words of a CAPABILITY response or response code."""
    return frozenset(text.upper().split())


def _capability(words: list[bytes]) -> Response:
    return Capability(frozenset(word.decode("latin-1").upper() for word in words))


def _enabled(values: list[Value]) -> Response:
    return Enabled(frozenset(value.upper() for value in values if isinstance(value, str)))


def _flags(values: list[Value]) -> Response:
    if not values or not isinstance(values[0], list):
        raise ValueError("FLAGS without a list")
    return MailboxFlags(frozenset(value for value in values[0] if isinstance(value, str)))


def _id(values: list[Value]) -> Response:
    pairs = values[0] if values and isinstance(values[0], list) else []
    fields: dict[str, str] = {}
    for key, value in zip(pairs[::2], pairs[1::2], strict=False):
        if isinstance(key, bytes | str) and isinstance(value, bytes | str):
            fields[_word(key).lower()] = _word(value)
    return ServerId(fields)


def _list(values: list[Value]) -> Response:
    if len(values) < 3 or not isinstance(values[0], list):
        raise ValueError("LIST has not three fields")
    attributes = frozenset(value.lower() for value in values[0] if isinstance(value, str))
    delimiter = None if values[1] is None else _word(values[1])
    raw_name = _raw_name(values[2])
    old_path = None
    extended = values[3] if len(values) > 3 else None
    if isinstance(extended, list):
        for key, value in zip(extended[::2], extended[1::2], strict=False):
            if isinstance(key, bytes | str) and _word(key).upper() == "OLDNAME" and isinstance(value, list) and value:
                old_path = mailbox_path(_raw_name(value[0]))
    return Listed(mailbox_path(raw_name), raw_name, delimiter or None, attributes, old_path)


@lru_cache(maxsize=2048)
def _same_list(rest: bytes, nesting: int) -> Response:
    """A mailbox's line is the same at every look, and for most accounts of a provider."""
    return _list(tokenize([rest], 0, nesting=nesting))


def _simple_status(found: re.Match[bytes]) -> StatusData:
    """What `_status` makes of the same words."""
    words = found[2].split()
    items = {key.decode("ascii").upper(): int(value) for key, value in zip(words[::2], words[1::2], strict=True)}
    return StatusData(_same_path(found[1].strip(b'"')), items)


def _status(values: list[Value]) -> Response:
    if len(values) < 2 or not isinstance(values[1], list):
        raise ValueError("STATUS has not two fields")
    items: dict[str, int] = {}
    pairs = values[1]
    for key, value in zip(pairs[::2], pairs[1::2], strict=False):
        # MAILBOXID and what else is not a number is not asked for.
        if isinstance(key, str) and isinstance(value, str):
            items[key.upper()] = number(value)
    return StatusData(mailbox_path(_raw_name(values[0])), items)


def _vanished(words: list[bytes]) -> Response:
    earlier = bool(words) and words[0].upper() == b"(EARLIER)"
    rest = words[1:] if earlier else words
    if len(rest) != 1:
        raise ValueError("VANISHED without a UID set")
    return Vanished(earlier, UidSet.parse(rest[0].decode("latin-1")))


def _search(words: list[bytes]) -> Response:
    mod_seq = None
    if len(words) >= 2 and words[-2].upper() == b"(MODSEQ" and words[-1].endswith(b")"):
        mod_seq = number(words[-1][:-1].decode("latin-1"))
        words = words[:-2]
    uids = [int(word) for word in words if word.isdigit() and len(word) <= 10]
    if len(uids) != len(words) or (uids and not 0 < min(uids) <= max(uids) < 2**32):
        raise ValueError("SEARCH answered with something that is not a number")
    return Search(UidSet(uids), mod_seq)


def _esearch(values: list[Value]) -> Response:
    tag = None
    if values and isinstance(values[0], list):
        correlator = values.pop(0)
        assert isinstance(correlator, list)
        if len(correlator) == 2 and isinstance(correlator[1], bytes | str):
            tag = _word(correlator[1])
    uid = bool(values) and isinstance(values[0], str) and values[0].upper() == "UID"
    if uid:
        values.pop(0)
    found = UidSet()
    mod_seq = None
    for key, value in zip(values[::2], values[1::2], strict=False):
        if isinstance(key, str) and key.upper() == "ALL" and not isinstance(value, str):
            raise ValueError("ESEARCH ALL is not a set")
        if not isinstance(key, str) or not isinstance(value, str):
            continue
        if key.upper() == "ALL":
            found = UidSet.parse(value)
        elif key.upper() == "MODSEQ":
            mod_seq = number(value)
    return Esearch(tag, uid, found, mod_seq)


def _word(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value[:1000].decode("utf-8", "replace")
    raise ValueError("a word was expected")


def _raw_name(value: Value) -> bytes:
    if value is None:
        return b"NIL"  # an atom: a mailbox may be called so, and a name is never absent
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, bytes):
        return value
    raise ValueError("a mailbox name was expected")


_HANDLERS: dict[str, Callable[..., Response]] = {
    "CAPABILITY": _capability,
    "ENABLED": _enabled,
    "ESEARCH": _esearch,
    "FLAGS": _flags,
    "ID": _id,
    "LIST": _list,
    "SEARCH": _search,
    "STATUS": _status,
    "VANISHED": _vanished,
}
