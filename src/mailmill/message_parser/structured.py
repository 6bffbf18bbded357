"""Dates, message ids and parameters (RFC 5322 §3.3, §3.6.4, §4.3; RFC 2045 §5.1; RFC 2231)."""

from __future__ import annotations

import re
from datetime import date
from email.utils import mktime_tz, parsedate_tz
from typing import Final
from urllib.parse import unquote_to_bytes

from mailmill.message_parser.charsets import decode_header
from mailmill.message_parser.fields import text

MAX_REFERENCES: Final = 500
MAX_PARAMETERS: Final = 200

_DATE: Final = re.compile(
    r"(?:[A-Za-z]{2,9},?\s{0,3})?(\d{1,2})[ -]\s{0,3}([A-Za-z]{3})[A-Za-z]{0,6}[ -]\s{0,3}(\d{2,4})\s{1,3}"
    r"(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,]\d{1,9})?)?\s{0,3}(?:([+-])(\d\d):?(\d\d)|([A-Za-z]{1,5})\b)?"
)
_MONTH_NAMES: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS: Final = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_ZONES: Final = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}  # §4.3
_EPOCH: Final = date(1970, 1, 1).toordinal()
_MESSAGE_ID: Final = re.compile(r"<[^<>]{1,998}>")
_PARAMETER: Final = re.compile(r';\s*+([^\s=;"]{1,80})\s*+=\s*+(?:"((?:[^"\\]++|\\.)*+)"?|([^;]*+))', re.DOTALL)
_SECTION: Final = re.compile(r"([^*]+)(?:\*(\d{1,4}))?(\*)?")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def parse_date(raw: str) -> float | None:
    """A date-time, the obsolete forms included, in seconds since the epoch (UTC); None where there is none.

    No zone, and a zone that says nothing (``-0000``, a military letter), count as UTC.
    """
    value = raw[:200].lstrip()
    found = _DATE.match(value)
    if found is None:
        return _parse_odd_date(value)
    day, month, year_text, hour, minute, second, sign, zone_hour, zone_minute, zone = found.groups()
    year = int(year_text)
    if len(year_text) < 4:
        year += 1900 if year >= 50 else 2000
    try:
        days = date(year, _MONTHS[month.lower()], int(day)).toordinal() - _EPOCH
    except (ValueError, KeyError):
        return None
    offset = 0
    if sign:
        offset = int(zone_hour) * 3600 + int(zone_minute) * 60
        if sign == "-":
            offset = -offset
    elif zone:
        offset = _ZONES.get(zone.upper(), 0) * 3600
    seconds = days * 86400 + int(hour) * 3600 + int(minute) * 60 + int(second or 0) - offset
    return float(seconds) if seconds >= 0 else None


def _parse_odd_date(value: str) -> float | None:
    try:
        parsed = parsedate_tz(value)
        if parsed is None or not 1970 <= parsed[0] <= 9999:
            return None
        seconds = float(mktime_tz(parsed))
    except (ValueError, OverflowError, TypeError, IndexError, AttributeError):
        return None
    return seconds if 0 <= seconds < 253402300800 else None


def parse_message_ids(raw: str) -> tuple[str, ...]:
    """The ``<…>`` of Message-ID, In-Reply-To or References, in order; white space within them is dropped."""
    if "<" not in raw:
        return ()
    found = []
    for match in _MESSAGE_ID.finditer(raw):
        value = match[0]
        if not value.isprintable() or " " in value:
            value = "".join(text(value).split())
        found.append(value)
        if len(found) >= MAX_REFERENCES:
            break
    return tuple(found)


def parse_message_id(raw: str) -> str:
    """The one id of Message-ID or In-Reply-To; a single word without angle brackets is taken as it stands."""
    ids = parse_message_ids(raw)
    if ids:
        return ids[0]
    value = text(raw[:998])
    return value if value and " " not in value else ""


def parse_parameters(raw: str, charset: str = "") -> tuple[str, dict[str, str]]:
    """The value of Content-Type or Content-Disposition in lower case, and its parameters by lower-case name.

    RFC 2231 continuations and charsets are put together; RFC 2047 words in a value are decoded too: half the world
    sends file names so. The first of two parameters of a name counts; an extended one beats a plain one.
    """
    head, _, rest = raw.partition(";")
    words = head.partition("(")[0].split(None, 1)
    value = words[0].lower() if words else ""
    if len(words) == 2:  # the semicolon is missing
        rest = f"{words[1]};{rest}"
    if not rest:
        return text(value), {}
    rest = ";" + rest
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[str, bool]]] = {}
    for count, match in enumerate(_PARAMETER.finditer(rest)):
        if count >= MAX_PARAMETERS:
            break
        quoted, bare = match[2], match[3]
        content = _ESCAPED.sub(r"\1", quoted) if quoted is not None else bare.strip()
        name = match[1].lower()
        section = _SECTION.fullmatch(name) if "*" in name else None
        if section is not None:
            pieces = sections.setdefault(section[1], {})
            pieces.setdefault(int(section[2] or 0), (content, section[3] is not None))
        else:
            plain.setdefault(name, text(content, charset))
    for name, pieces in sections.items():
        plain[name] = _join_sections(pieces, charset)
    return text(value), plain


def _join_sections(pieces: dict[int, tuple[str, bool]], charset: str) -> str:
    """RFC 2231 §3–4: sections in order; the first extended one may begin with ``charset'language'``."""
    label = charset
    joined = bytearray()
    for position, number in enumerate(sorted(pieces)):
        content, extended = pieces[number]
        if extended:
            if position == 0 and content.count("'") >= 2:
                label, _, content = content.split("'", 2)
            joined += unquote_to_bytes(content.encode("utf-8", "surrogateescape"))
        else:
            joined += content.encode("utf-8", "surrogateescape")
    return text(decode_header(bytes(joined), label))
