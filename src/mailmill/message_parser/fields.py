"""A header block → its fields, and the text of a field (RFC 5322 §2.2, RFC 2047, RFC 6532).

A raw value is a ``str`` in which each byte that is not valid UTF-8 stands as a surrogate escape (PEP 383) until
``text`` or ``repair`` has looked at it: the structure of a field is ASCII and can be read before its charset is known.
"""

from __future__ import annotations

import binascii
import re
from typing import Final, NamedTuple

from mailmill.message_parser.charsets import clean, decode_header

Field = tuple[str, str]

MAX_VALUE_CHARS: Final = 64 << 10
"""How much of one unfolded field is looked at."""

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_WORD_START: Final = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?")
_NOT_BASE64: Final = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))


class Block(NamedTuple):
    """Where a header block ends and the body begins. ``truncated``: no blank line within the cap."""

    end: int
    body: int
    truncated: bool


def find_block(raw: bytes, start: int, stop: int, max_bytes: int) -> Block:
    """Find the end of the header block that begins at ``start``; ``stop`` ends the message."""
    if raw.startswith((b"\r\n", b"\n"), start, stop):
        return Block(start, start + (2 if raw[start] == 13 else 1), truncated=False)
    limit = min(stop, start + max_bytes)
    first = raw.find(b"\n", start, limit)
    # The style of the first line's end is looked for first: a search for the other one alone would go on to the cap.
    if raw.endswith(b"\r\n", start, first + 1):
        crlf = raw.find(b"\n\r\n", first, limit)
        lf = raw.find(b"\n\n", first, limit if crlf < 0 else crlf + 1)
    else:
        lf = raw.find(b"\n\n", max(first, start), limit)
        crlf = raw.find(b"\n\r\n", max(first, start), limit if lf < 0 else lf + 1)
    if lf >= 0 and (crlf < 0 or lf < crlf):
        return Block(lf + 1, lf + 2, truncated=False)
    if crlf >= 0:
        return Block(crlf + 1, crlf + 3, truncated=False)
    if limit == stop:
        return Block(stop, stop, truncated=False)
    return Block(limit, limit, truncated=True)


def skip_block(raw: bytes, position: int, stop: int) -> int:
    """Where the body begins after a header block that was cut at ``position``: its rest must not be read as text."""
    ends = ((raw.find(b"\n\r\n", position - 2, stop), 3), (raw.find(b"\n\n", position - 1, stop), 2))
    return min((at + size for at, size in ends if at >= 0), default=stop)


def unfold(block: bytes) -> list[str]:
    """The lines of a block after unfolding (RFC 5322 §2.2.3), as raw text; a fold becomes a space."""
    return (
        block.decode("utf-8", "surrogateescape")
        .replace("\r\n", "\n")
        .replace("\n ", " ")
        .replace("\n\t", " ")
        .split("\n")
    )


def split_fields(block: bytes, max_fields: int) -> tuple[list[Field], int]:
    """The fields of a block as (name as sent, unfolded raw value), and how many lines were no field.

    A line without a name before its colon is counted and skipped (an mbox ``From `` line is skipped without a word):
    what follows is still header.
    """
    fields: list[Field] = []
    junk = 0
    for line in unfold(block):
        name, colon, value = line.partition(":")
        name = name.rstrip()
        if colon and name and name.isascii() and name.isprintable() and " " not in name:
            if len(fields) >= max_fields:
                return fields, junk + 1
            fields.append((name, value.strip()[:MAX_VALUE_CHARS]))
        elif line and not line.startswith(("From ", ">From ")):
            junk += 1
    return fields, junk


def pick_fields(block: bytes, wanted: frozenset[str], max_fields: int) -> list[Field]:
    """What ``split_fields`` finds of the ``wanted`` lower-case names, at a third of its cost."""
    found = []
    for line in unfold(block)[:max_fields]:
        name, colon, value = line.partition(":")
        if colon and name.rstrip().lower() in wanted:
            found.append((name.rstrip(), value.strip()[:MAX_VALUE_CHARS]))
    return found


def repair(raw: str, charset: str = "") -> str:
    """``raw`` with its surrogate escapes decoded: by ``charset`` (the body's, say), else as windows-1252."""
    if raw.isascii():
        return raw
    try:
        raw.encode("utf-8")
    except UnicodeEncodeError:
        return decode_header(raw.encode("utf-8", "surrogateescape"), charset)
    return raw


def text(raw: str, charset: str = "") -> str:
    """The decoded text of an unstructured field or a phrase: one line, no control characters, clean."""
    decoded = repair(raw, charset)
    if "=?" in decoded:
        decoded = decode_words(decoded)
    if not decoded.isprintable():
        decoded = clean(_CONTROLS.sub(" ", decoded))
    return decoded.strip()


def decode_words(value: str) -> str:
    """Decode the encoded-words of RFC 2047, leniently.

    White space between two encoded-words vanishes, and the bytes of neighbours in one charset are joined before they
    are decoded: many senders cut a character in two. Spaces and question marks within a word, words glued to other text
    and words inside quotes are read, as receivers' mail programs do.
    """
    out: list[str] = []
    pending = bytearray()
    pending_charset = ""
    at = 0
    while (found := _WORD_START.search(value, at)) is not None:
        end = value.find("?=", found.end())
        if end < 0:
            break  # nothing further is terminated either
        between = value[at : found.start()]
        charset = found[1].partition("*")[0].lower()  # RFC 2231 §5: charset*language
        if not value.isascii() and not value[found.end() : end].isascii():
            charset = "utf-8"  # raw 8-bit text in the word, already read as UTF-8 where it was that
        if pending_charset and (charset != pending_charset or not _is_blank(between)):
            out.append(decode_header(bytes(pending), pending_charset))
            pending.clear()
        if not (pending_charset and _is_blank(between)):
            out.append(between)
        encoded = value[found.end() : end].encode("utf-8", "surrogateescape")
        pending += _decode_b(encoded) if found[2] in "bB" else binascii.a2b_qp(encoded, header=True)
        pending_charset = charset
        at = end + 2
    if pending_charset:
        out.append(decode_header(bytes(pending), pending_charset))
    out.append(value[at:])
    return "".join(out)


def _is_blank(between: str) -> bool:
    return not between or between.isspace()


def _decode_b(encoded: bytes) -> bytes:
    kept = encoded.translate(None, _NOT_BASE64)
    if len(kept) % 4 == 1:
        kept = kept[:-1]
    return binascii.a2b_base64(kept + b"=" * (-len(kept) % 4))
