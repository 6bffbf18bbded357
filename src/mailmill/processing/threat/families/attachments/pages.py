"""Web pages and SVG pictures as files: they open in the browser, outside the mail program's guard."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from itertools import islice

from mailmill.model import Finding
from mailmill.processing.html_text import read_html
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.attached_files import AttachedFile
from mailmill.processing.threat.knowledge.reference import HTML_EXTENSIONS
from mailmill.processing.threat.scoring import finding

MAX_SVG_BYTES = 1 << 20
MAX_PAGE_BYTES = 1 << 20
"""Of all pages, or drawings, of a message together; ``LEAST_BYTES`` of each: the first must not hide the rest."""
LEAST_BYTES = 8 << 10

_SVG_PROGRAM = re.compile(rb"<script|<foreignobject|\son[a-z]{3,20}\s{0,5}=|javascript:", re.IGNORECASE)
_SVG_LINK = re.compile(rb"<a\s[^<>]{0,1000}?href\s{0,5}=\s{0,5}[\"']\s{0,5}(https?://[^\"'\s<>]{3,500})", re.IGNORECASE)

# All that follow are for text in lower case.
_SCRIPT = re.compile(r"<script|javascript:|\son(?:load|error|click|mouseover|focus|pageshow)\s{0,5}=")
_PASSWORD_FIELD = re.compile(r"<input\b[^<>]{0,1000}type\s{0,5}=\s{0,5}[\"']?password")
_FIELD = re.compile(r"<input\b(?![^<>]{0,500}type\s{0,5}=\s{0,5}[\"']?(?:hidden|submit|button|image))")

# HTML smuggling: the page makes a file out of itself and hands it to be saved.
_MAKES_A_FILE = ("createobjecturl", "mssaveoropenblob", "mssaveblob", "new blob", "new file(")
_SAVES = re.compile(r"\bdownload\s{0,5}=\s{0,5}[\"'`a-z]")
_DECODES = ("atob", "uint8array", "fromcharcode", "charcodeat")
_LONG_DATA_CHARS = 3_000

_RUNS_CODE = re.compile(r"\b(?:eval|document\.write(?:ln)?|new\s{1,5}function)\s{0,5}\(")
_DECODED = re.compile(r"\batob\b|unescape|fromcharcode|decodeuri")
_ARGUMENT_CHARS = 80
_MAX_CALLS = 2_000

# Runs of encoded letters, and from how many characters on nobody writes them by hand. Each run is matched whole and
# measured then: a pattern that asks for the length itself is tried again from every place in a run that is too short.
_ENCODED_RUNS = (
    (re.compile(r"%(?:[0-9a-f]{2}%)+"), 450),
    (re.compile(r"\\x(?:[0-9a-f]{2}\\x)+"), 320),
    (re.compile(r"\\u(?:[0-9a-f]{4}\\u)+"), 480),
    (re.compile(r"&#(?:x?[0-9a-f]{2,6};&#)+"), 750),
    (re.compile(r"\b0x(?:[0-9a-f]{1,8},\s?0x)+"), 400),
    (re.compile(r"[\[\]()!+]{20,}"), 300),
    (re.compile(r"\b\d{2,3},(?:\s?\d{2,3},)+"), 800),
)
_LONG_DATA = re.compile(r"[a-z0-9+/=]{60,}")
_LEAVES = re.compile(
    r"\blocation(?:\.(?:href|replace|assign))?\s{0,5}(?:=(?!=)|\()\s{0,5}[\"'`(a-z]"
    r"|<meta\b[^<>]{0,300}http-equiv\s{0,5}=\s{0,5}[\"']?refresh[^<>]{0,300}url\s{0,5}="
)
_LOADS = re.compile(
    r"<(?:script|iframe|embed|object)\b[^<>]{0,1000}?\b(?:src|data)\s{0,5}=\s{0,5}[\"']?\s{0,5}(?:https?:)?//"
)
_LITTLE_TEXT_CHARS = 400


def page(context: ThreatContext) -> Iterator[Finding]:
    """An HTML attachment, and what it does: asks for a password, makes a file, hides its code, goes elsewhere."""
    left = MAX_PAGE_BYTES
    for file in context.files:
        if not is_page(file):
            continue
        yield finding("attachments.html", file.shown)
        text = text_of(file, max(left, LEAST_BYTES))
        left -= min(left, len(file.content))
        yield from active(file.shown, text)
        if context.own and _SCRIPT.search(text.lower()) and _names(text, context.own):
            yield finding("attachments.html_for_one", f"{file.shown} was made for {context.own}")


def svg(context: ThreatContext) -> Iterator[Finding]:
    """An SVG picture, worse where it carries a program or leads elsewhere."""
    left = MAX_SVG_BYTES
    for file in context.files:
        if file.extension in ("svg", "svgz") or file.content_type == "image/svg+xml":
            yield _drawing(file, file.content[: max(left, LEAST_BYTES)])
            left -= min(left, len(file.content))


def _drawing(file: AttachedFile, content: bytes) -> Finding:
    if _SVG_PROGRAM.search(content) is not None:
        return finding("attachments.active_svg", file.shown)
    link = _SVG_LINK.search(content)
    if link is not None:
        return finding("attachments.svg_link", f"{file.shown} leads to {link.group(1).decode('latin-1')}")
    return finding("attachments.svg", file.shown)


def is_page(file: AttachedFile) -> bool:
    return file.extension in HTML_EXTENSIONS or (file.content_type == "text/html" and not file.extension)


def text_of(file: AttachedFile, most: int = MAX_PAGE_BYTES) -> str:
    """The first ``most`` bytes of a page, as text."""
    content = file.content[:most]
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8", "replace")


def active(shown: str, text: str) -> Iterator[Finding]:
    """What a page does, or asks for; ``shown`` is the file's name for the evidence."""
    text = text.lower()
    if _PASSWORD_FIELD.search(text):
        yield finding("attachments.html_password", f"{shown} asks for a password")
    elif "<form" in text and _FIELD.search(text):
        yield finding("attachments.html_form", f"{shown} holds a form")
    if not _SCRIPT.search(text):
        if _LEAVES.search(text) or (_LOADS.search(text) and _is_short(text)):
            yield finding("attachments.html_leaves", f"{shown} shows another page by itself")
        return
    saves = next((word for word in _MAKES_A_FILE if word in text), "") or ("download=" if _SAVES.search(text) else "")
    if saves and (any(word in text for word in _DECODES) or _longest(_LONG_DATA, text) >= _LONG_DATA_CHARS):
        yield finding("attachments.html_smuggling", f"{shown} makes a file of what it holds ({saves})")
    hidden = _hidden_code(text)
    if hidden:
        yield finding("attachments.html_hidden_code", f"{shown}: {hidden}")
    elif (_LEAVES.search(text) or _LOADS.search(text)) and _is_short(text):
        yield finding("attachments.html_leaves", f"{shown} shows another page by itself")


def _is_short(text: str) -> bool:
    return len(read_html(text).visible.strip()) < _LITTLE_TEXT_CHARS


def _hidden_code(text: str) -> str:
    """Code that is run as soon as it is decoded, or a long run of encoded letters; "" if there is none."""
    for call in islice(_RUNS_CODE.finditer(text), _MAX_CALLS):
        if _DECODED.search(text, call.end(), call.end() + _ARGUMENT_CHARS):
            return text[call.start() : call.end() + _ARGUMENT_CHARS]
    for pattern, least in _ENCODED_RUNS:
        for run in pattern.finditer(text):
            if run.end() - run.start() >= least:
                return text[run.start() : run.start() + _ARGUMENT_CHARS]
    return ""


def _longest(pattern: re.Pattern[str], text: str) -> int:
    return max((match.end() - match.start() for match in pattern.finditer(text)), default=0)


def _names(text: str, own: str) -> bool:
    """Whether the page holds the account's address, as it is or in base64 (which has three forms, by where it
    stands)."""
    if own in text.lower():
        return True
    encoded = own.encode()
    return any(base64.b64encode(b" " * shift + encoded)[2 + shift : -4].decode() in text for shift in range(3))


DETECTORS = (page, svg)
