"""What a PDF can do by itself, seen in its raw bytes: names of actions, also escaped or compressed ones. Pure.

Not a parser: a name anywhere counts, so a broken file, an unreferenced object or a later revision hides nothing. Object
streams (ISO 32000-1 §7.5.7) are inflated within bounds; a letter of a name may be written ``#xx`` (§7.3.5).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Final

MAX_SCANNED_BYTES: Final = 16 << 20
MAX_STREAMS: Final = 50_000
MAX_OBJECT_STREAMS: Final = 300
MAX_OPENINGS: Final = 20
MAX_INFLATED_BYTES: Final = 8 << 20
_MAX_STREAM_BYTES: Final = 1 << 20
_DICTIONARY_BYTES: Final = 400


def _name(text: str) -> bytes:
    """A pattern of that name, any of its letters escaped, at its end."""
    letters = (b"(?:%c|#(?i:%02x))" % (ord(one), ord(one)) for one in text)
    return b"/" + b"".join(letters) + rb"(?![A-Za-z0-9_.#-])"


# /JS is found by the kind of value it has too: three letters come up by chance in compressed bytes.
_STRING_OR_REFERENCE: Final = rb"\s{0,8}(?:[(<]|\d{1,9}\s{1,8}\d{1,5}\s{1,8}R)"
_NAMES: Final[tuple[tuple[str, re.Pattern[bytes]], ...]] = (
    ("launch", re.compile(_name("Launch"))),
    ("javascript", re.compile(_name("JavaScript") + rb"|" + _name("JS") + _STRING_OR_REFERENCE)),
    ("embedded_file", re.compile(_name("EmbeddedFile") + rb"|" + _name("EmbeddedFiles"))),
    ("submit_form", re.compile(_name("SubmitForm"))),
    ("rich_media", re.compile(_name("RichMedia"))),
    ("xfa", re.compile(_name("XFA") + rb"\s{0,8}[\[\d(<]")),
)
_RUNNING: Final = tuple(pattern for word, pattern in _NAMES if word in ("launch", "javascript"))
_ON_OPENING: Final = re.compile(_name("OpenAction"))
_REFERENCE: Final = re.compile(rb"\s{0,8}(\d{1,9})\s{1,8}(\d{1,5})\s{1,8}R")
_STREAM: Final = re.compile(rb"stream\r?\n")
_OBJECT_STREAM: Final = re.compile(_name("ObjStm"))


def actions(content: bytes) -> dict[str, str]:
    """Words for ``Inside.seen``: ``launch``, ``javascript``, ``embedded_file``, ``submit_form``, ``rich_media``,
    ``xfa`` with the name as found; ``by_itself`` where opening the file starts one of the first two."""
    seen: dict[str, str] = {}
    for piece in _pieces(content[:MAX_SCANNED_BYTES]):
        for word, pattern in _NAMES:
            if word not in seen and (match := pattern.search(piece)):
                seen[word] = match.group()[:30].decode("latin-1").strip()
        if "by_itself" not in seen and _starts_on_opening(piece):
            seen["by_itself"] = "/OpenAction"
    return seen


def _starts_on_opening(piece: bytes) -> bool:
    """Whether an /OpenAction is, or refers to, an action that runs something. Most go to a page and its zoom."""
    for match in islice(_ON_OPENING.finditer(piece), MAX_OPENINGS):
        action = piece[match.end() : match.end() + _DICTIONARY_BYTES]
        reference = _REFERENCE.match(action)
        if reference is not None:
            start = piece.find(b"\n%s %s obj" % reference.groups())
            action = piece[start : start + _DICTIONARY_BYTES] if start >= 0 else b""
            action = action.partition(b"endobj")[0]
        else:
            action = action.partition(b">>")[0]
        if any(pattern.search(action) for pattern in _RUNNING):
            return True
    return False


def _pieces(content: bytes) -> Iterator[bytes]:
    """The file as it is, and what its object streams hold."""
    yield content
    view = memoryview(content)
    budget = MAX_INFLATED_BYTES
    tried = 0
    for match in islice(_STREAM.finditer(content), MAX_STREAMS):
        if tried >= MAX_OBJECT_STREAMS or budget <= 0:
            return
        dictionary = content[max(0, match.start() - _DICTIONARY_BYTES) : match.start()]
        if not _OBJECT_STREAM.search(dictionary[dictionary.rfind(b"obj") + 1 :]):
            continue
        tried += 1
        packed = view[match.end() : match.end() + _MAX_STREAM_BYTES]
        try:
            plain = zlib.decompressobj().decompress(packed, min(budget, _MAX_STREAM_BYTES))
        except zlib.error:
            continue
        budget -= len(plain)
        yield plain
