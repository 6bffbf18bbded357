"""FETCH (RFC 9051 §7.5.2; MODSEQ RFC 7162; EMAILID and THREADID RFC 8474; X-GM-*): the response that must be fast.

Two readings of the same grammar: regular expressions for the shapes that come by the hundred thousand (flat items, and
flat items around one body literal), nested values for everything else. A property test holds them to the same answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from mailmill.imap.envelope import parse_envelope
from mailmill.imap.tokens import Value
from mailmill.imap.wire import Parts, Spooled
from mailmill.model import Envelope, Flags, Uid

Section = bytes | Spooled | None

_NO_SECTIONS: Mapping[str, Section] = MappingProxyType({})
_MAX_UID = 2**32 - 1
_MAX_MOD_SEQ = 2**63 - 1


class Fetch(NamedTuple):
    """What the server said of one message; items it did not send are None. Its sequence number is nobody's business:
    what counts is the UID.

    A tuple, for a frozen dataclass of this many fields takes longer to build than its line takes to parse.

    ``sections`` maps the upper-case item (``BODY[]``, ``BODY[]<0>`` …) to its bytes, or to None for NIL.
    """

    uid: Uid | None = None
    flags: Flags | None = None
    mod_seq: int | None = None
    internal_date: float | None = None
    size_bytes: int | None = None
    email_id: str | None = None
    thread_id: str | None = None
    x_gm_msgid: str | None = None
    x_gm_thrid: str | None = None
    envelope: Envelope | None = None
    sections: Mapping[str, Section] = _NO_SECTIONS


_ITEM = rb"""(?:
        UID[ ](\d{1,10})
      | FLAGS[ ]\(([^()"{}]*+)\)
      | MODSEQ[ ]\((\d{1,19})\)
      | INTERNALDATE[ ]"([^"\\]{20,30})"
      | RFC822\.SIZE[ ](\d{1,18})
      | EMAILID[ ]\(([A-Za-z0-9_-]{1,255})\)
      | THREADID[ ](NIL|\([A-Za-z0-9_-]{1,255}\))
      | X-GM-MSGID[ ](\d{1,20})
      | X-GM-THRID[ ](\d{1,20})
    )"""
# What a pass over all flags consists of. Numbers that could be out of range are left to the other readings.
_FLAGS_LINE = r"""\*[ ][1-9]\d{0,8}+[ ]FETCH[ ]\(UID[ ]([1-9]\d{0,8}+)[ ]FLAGS[ ]\(([^()"{}\r\n]*+)\)
                (?:[ ]MODSEQ[ ]\(([1-9]\d{0,17}+)\))?+\)"""
FLAGS_LINES = re.compile(rf"(?:{_FLAGS_LINE}\r?|([^\n]*+))\n", re.VERBOSE | re.ASCII)
"""Over the ASCII text of whole lines: the UID, flags and MODSEQ of each, for `flags_line`, or the line where it is
something else. On text, for an int is made of text in half the time."""
# Not anchored at the end, so that they cannot fail after their first item and never search back; what is left decides.
_HEAD = re.compile(rb"\*[ ](\d{1,10})[ ]FETCH[ ]\((?:" + _ITEM + rb"[ ]?)*", re.VERBOSE)
_TAIL = re.compile(rb"(?:[ ]" + _ITEM + rb")*", re.VERBOSE)
_INTERNAL_DATE = re.compile(
    rb"[ ]?(\d{1,2})-([A-Za-z]{3})-(\d{4})[ ](\d{2}):(\d{2}):(\d{2})[ ]([+-])(\d{2})(\d{2})[ ]*\Z",
)
_MONTHS = {name: index for index, name in enumerate(b"JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), 1)}
_KNOWN_FLAGS_LENGTH = 256
# A named tuple's own way of making one spends a third of a short line's time on matching names.
_new_fetch = tuple.__new__
_NOTHING_ELSE = (*(None,) * 7, _NO_SECTIONS)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_SYSTEM_FLAGS = {flag.lower(): flag for flag in ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")}


def parse_simple_fetch(parts: Parts) -> Fetch | None:
    """The fast reading: flat items, at most one literal, and that a ``BODY[]``. None where it does not apply."""
    first = parts[0]
    assert isinstance(first, bytes)
    head = _HEAD.match(first)
    if head is None:
        return None
    rest = first[head.end() :]
    if len(parts) == 1:
        if rest != b")":
            return None
        return _from_groups(head.groups(), _NO_SECTIONS)
    if len(parts) != 3 or rest.upper() != b"BODY[] ":
        return None
    last = parts[2]
    assert isinstance(last, bytes)
    sections: dict[str, Section] = {"BODY[]": parts[1]}
    if last == b")":
        return _from_groups(head.groups(), sections)
    tail = _TAIL.match(last)
    if tail is None or last[tail.end() :] != b")":
        return None
    # What stands after the body overrides what stands before it, as it does in the general reading.
    merged = (
        head[1],
        *(late if late is not None else early for early, late in zip(head.groups()[1:], tail.groups(), strict=True)),
    )
    return _from_groups(merged, sections)


def flags_line(uid: str, flags: str, mod_seq: str) -> Fetch:
    """The groups of a line that `FLAGS_LINES` recognised; ``mod_seq`` may be empty."""
    known_flags = _known_flags(flags) if len(flags) <= _KNOWN_FLAGS_LENGTH else _flags(flags)
    return _new_fetch(Fetch, (int(uid), known_flags, int(mod_seq) if mod_seq else None, *_NOTHING_ELSE))


def _from_groups(groups: tuple[bytes | None, ...], sections: Mapping[str, Section]) -> Fetch | None:
    seq, uid, flags, mod_seq, internal_date, size, email_id, thread_id, gm_msgid, gm_thrid = groups
    uid_number = None if uid is None else int(uid)
    mod_seq_number = None if mod_seq is None else int(mod_seq)
    if (
        not 0 < int(seq or 0) <= _MAX_UID
        or (uid_number is not None and not 0 < uid_number <= _MAX_UID)
        or (mod_seq_number is not None and mod_seq_number > _MAX_MOD_SEQ)
    ):
        return None
    return Fetch(
        None if uid_number is None else Uid(uid_number),
        None if flags is None else parse_flags(flags),
        mod_seq_number or None,
        None if internal_date is None else parse_internal_date(internal_date),
        None if size is None else int(size),
        None if email_id is None else email_id.decode("ascii"),
        # Cyrus puts its NIL in parentheses.
        None if thread_id in (None, b"NIL", b"(NIL)") else thread_id[1:-1].decode("ascii"),
        None if gm_msgid is None else gm_msgid.decode("ascii"),
        None if gm_thrid is None else gm_thrid.decode("ascii"),
        None,
        sections,
    )


def parse_fetch(seq: int, values: list[Value]) -> Fetch:
    """The general reading. Items that are not known here are passed over. Raises ValueError."""
    if not 0 < seq <= _MAX_UID:
        raise ValueError("the sequence number is out of range")
    if len(values) != 1 or not isinstance(values[0], list) or len(values[0]) % 2:
        raise ValueError("FETCH without a list of pairs")
    items = values[0]
    known: dict[str, Value] = {}
    sections: dict[str, Section] = {}
    for name, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(name, str):
            raise ValueError("an item name was expected")  # noqa: TRY004 - what a server sent has no Python type
        upper = name.upper()
        if upper.startswith(("BODY[", "BINARY[")):
            sections[upper] = _section(value)
        else:
            known[upper] = value
    uid = _optional_number(known.get("UID"), 1, _MAX_UID)
    internal_date = known.get("INTERNALDATE")
    envelope = known.get("ENVELOPE")
    return Fetch(
        uid=None if uid is None else Uid(uid),
        flags=_flag_list(known["FLAGS"]) if "FLAGS" in known else None,
        mod_seq=_optional_number(_only(known.get("MODSEQ")), 0, _MAX_MOD_SEQ) or None,
        internal_date=parse_internal_date(internal_date) if isinstance(internal_date, bytes) else None,
        size_bytes=_optional_number(known.get("RFC822.SIZE"), 0, _MAX_MOD_SEQ),
        email_id=_identifier(_only(known.get("EMAILID"))),
        thread_id=_identifier(_only(known.get("THREADID"))),
        x_gm_msgid=_identifier(known.get("X-GM-MSGID")),
        x_gm_thrid=_identifier(known.get("X-GM-THRID")),
        envelope=None if envelope is None else parse_envelope(envelope),
        sections=sections or _NO_SECTIONS,
    )


def number(value: Value) -> int:
    """A number of at most 63 bits. Raises ValueError."""
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 20:
        raise ValueError("a number was expected")
    result = int(value)
    if result > _MAX_MOD_SEQ:
        raise ValueError("a number is out of range")
    return result


def parse_flags(raw: bytes) -> Flags:
    r"""The words between the parentheses of FLAGS. System flags in RFC 9051's spelling; ``\Recent`` is left out.

    (``\Recent`` says which session looked first, nothing of the message: two connections would never agree on it.)
    """
    text = raw.decode("utf-8", "replace")
    return _known_flags(text) if len(text) <= _KNOWN_FLAGS_LENGTH else _flags(text)


def _flags(text: str) -> Flags:
    # A keyword is the same in any case of letters (RFC 5788 §3); its first spelling stays.
    flags: dict[str, str] = {}
    for word in text.split():
        lower = word.lower()
        if lower != "\\recent" and lower not in flags:
            flags[lower] = _SYSTEM_FLAGS.get(lower, word)
    return frozenset(flags.values())


# A mailbox has few combinations of flags, and they share one set each; only short keys, so that the cache is bounded.
_known_flags = lru_cache(maxsize=2048)(_flags)


def parse_internal_date(raw: bytes) -> float | None:
    """INTERNALDATE as seconds since the epoch; None where it is no date, for the message is there all the same."""
    match = _INTERNAL_DATE.match(raw)
    if match is None:
        return None
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = match.groups()
    try:
        days = date(int(year), _MONTHS[month.upper()], int(day)).toordinal() - _EPOCH_DAY
    except (KeyError, ValueError):
        return None
    zone = int(zone_hours) * 3600 + int(zone_minutes) * 60
    local = days * 86400 + int(hour) * 3600 + int(minute) * 60 + int(second)
    return float(local + zone if sign == b"-" else local - zone)


def _flag_list(value: Value) -> Flags:
    if value is None:
        return frozenset()
    if not isinstance(value, list):
        raise ValueError("FLAGS without a list")  # noqa: TRY004 - what a server sent has no Python type
    words = [word for word in value if isinstance(word, str)]
    # An atom NIL is read as None; as a keyword it is the word itself.
    words += ["NIL"] * value.count(None)
    return parse_flags(" ".join(words).encode("latin-1"))


def _only(value: Value) -> Value:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _optional_number(value: Value, least: int, most: int) -> int | None:
    if value is None:
        return None
    result = number(value)
    if not least <= result <= most:
        raise ValueError("a number is out of range")
    return result


def _identifier(value: Value) -> str | None:
    if isinstance(value, bytes):
        return value[:255].decode("utf-8", "replace")
    return value[:255] if isinstance(value, str) else None


def _section(value: Value) -> Section:
    if isinstance(value, list):
        raise ValueError("a body section was expected")  # noqa: TRY004 - what a server sent has no Python type
    # A server may send a short body as an atom where it should have quoted it.
    return value.encode("latin-1") if isinstance(value, str) else value
