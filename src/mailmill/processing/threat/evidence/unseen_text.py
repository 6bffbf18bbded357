"""What a message says to a program and not to its reader: comments, attributes, headers, encodings. Pure, bounded.

Text that the HTML hides by its style is read by :mod:`~mailmill.processing.html_text`; this is the rest.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Iterator

MAX_SCANNED_CHARS = 200_000
MAX_PIECES = 40
MAX_PLACES = 200
MAX_PIECE_CHARS = 4_000
MAX_DECODED_CHARS = 4_000

_ATTRIBUTE_NAMES = ("alt", "title", "aria-label", "aria-description", "placeholder")
_VALUE = re.compile(r"\s{0,3}=\s{0,3}(?:\"([^\"]{12,4000})\"|'([^']{12,4000})')")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=_.-])[A-Za-z0-9+/]{32,8000}={0,2}(?![A-Za-z0-9+/=])")
_TAGS = re.compile("\U0001f3f4?[\U000e0020-\U000e007f]{1,8000}")
_BLACK_FLAG = "\U0001f3f4"
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{6,8000}")
_ZERO_WIDTH = re.compile("[\u200b\u200c\u200d\u2060\u2063\ufeff]{32,8000}")
_LETTERS = re.compile(r"[^\W\d_]")
_ROT13_SIGNS = ("vtaber", "vafgehpgvba", "cerivbhf", "nffvfgnag", "flfgrz cebzcg", "sbejneq", "qvfertneq")
_FEWEST_DISTINCT = 5
# Fields that every message has, and that programs write.
_USUAL_FIELDS = frozenset(
    [
        "arc-authentication-results", "arc-message-signature", "arc-seal", "authentication-results", "cc",
        "content-type", "date", "dkim-signature", "from", "in-reply-to", "message-id", "mime-version", "received",
        "received-spf", "references", "reply-to", "return-path", "subject", "to", "x-received",
        "x-google-dkim-signature",
    ]
)  # fmt: skip


def comments(html: str) -> Iterator[str]:
    """The text of the comments of an HTML body, but for the conditional ones of Outlook, which hold markup."""
    end = 0
    html = html[:MAX_SCANNED_CHARS]
    for _ in range(MAX_PIECES):
        start = html.find("<!--", end)
        if start < 0:
            return
        end = html.find("-->", start + 4)
        if end < 0:
            end = len(html)
        text = html[start + 4 : min(end, start + MAX_PIECE_CHARS)]
        if not text.lstrip().startswith(("[if", "<![endif", "[endif")):
            yield text


def attributes(html: str) -> Iterator[str]:
    """Texts of attributes that stand for something else: ``alt``, ``title``, ``aria-label`` …"""
    html = html[:MAX_SCANNED_CHARS]
    lower = html.lower()
    if len(lower) != len(html):  # a capital that is two small letters (U+0130) would move every place after it
        lower = html
    for name in _ATTRIBUTE_NAMES:
        end = 0
        for _ in range(MAX_PLACES):
            start = lower.find(name, end)
            if start < 0:
                break
            end = start + len(name)
            value = _VALUE.match(html, end)
            text = (value.group(1) or value.group(2)) if value else ""
            if " " in text or not text.isascii():
                yield text


def unusual_fields(headers: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """Values of header fields that are sentences: several blanks, and none of the fields that every message has."""
    for name, value in headers[:200]:
        if name.lower() not in _USUAL_FIELDS and value[:MAX_PIECE_CHARS].count(" ") >= 3:
            yield value[:MAX_PIECE_CHARS]


def encoded(text: str) -> Iterator[tuple[str, str]]:
    """(how, what) for every text that an encoding hides in this one: characters that show nothing, base64, rot13."""
    text = text[:MAX_SCANNED_CHARS]
    for word in _BASE64.findall(text)[:MAX_PIECES]:
        yield from _readable("base64", _from_base64(word))
    lower = text.lower()
    if sum(1 for sign in _ROT13_SIGNS if sign in lower) >= 2:
        yield ("rot13", codecs.decode(text[:MAX_DECODED_CHARS], "rot13"))
    yield from invisible(text)


def invisible(text: str) -> Iterator[tuple[str, str]]:
    """(how, what) for every text written in tag characters, variation selectors or zero-width characters.

    The flags of England, Scotland and Wales are tags after a black flag (UTS #51 §C.1), and no text.
    """
    text = text[:MAX_SCANNED_CHARS]
    if text.isascii():
        return
    for match in _TAGS.findall(text)[:MAX_PIECES]:
        if not (match.startswith(_BLACK_FLAG) and len(match) <= 8):
            text = "".join(chr(ord(sign) - 0xE0000) for sign in match if ord(sign) > 0xE0000)
            yield from _readable("tag characters", text)
    for match in _SELECTORS.findall(text)[:MAX_PIECES]:
        yield from _readable("variation selectors", _from_selectors(match))
    for match in _ZERO_WIDTH.findall(text)[:MAX_PIECES]:
        yield from _readable("zero-width characters", _from_bits(match))


def _readable(how: str, text: str) -> Iterator[tuple[str, str]]:
    """The decoded text if it is one: mostly letters and blanks, and not the same few over again (padding)."""
    text = text[:MAX_DECODED_CHARS]
    letters = len(_LETTERS.findall(text))
    if len(set(text)) >= _FEWEST_DISTINCT and letters * 10 >= len(text) * 6 and letters >= _FEWEST_DISTINCT:
        yield (how, text)


def _from_base64(word: str) -> str:
    word = word.rstrip("=")[: MAX_DECODED_CHARS * 4 // 3]
    try:
        return base64.b64decode(word[: len(word) // 4 * 4]).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _from_selectors(selectors: str) -> str:
    """Bytes 0 to 15 are U+FE00 on, 16 to 255 U+E0100 on."""
    numbers = (ord(sign) - 0xFE00 if ord(sign) < 0xFE10 else ord(sign) - 0xE0100 + 16 for sign in selectors)
    return bytes(numbers).decode("utf-8", "replace")


def _from_bits(signs: str) -> str:
    """Two signs as the bits of ASCII, in eights or sevens; "" where they are more than two, or it is no text."""
    kinds = sorted(set(signs))
    if len(kinds) != 2:
        return ""
    for zero in kinds:
        bits = "".join("0" if sign == zero else "1" for sign in signs[: 8 * MAX_DECODED_CHARS])
        for width in (8, 7):
            numbers = [int(bits[start : start + width], 2) for start in range(0, len(bits) - width + 1, width)]
            if all(32 <= number < 127 or number in (9, 10, 13) for number in numbers):
                return "".join(map(chr, numbers))
    return ""
