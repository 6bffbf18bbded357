"""What a file is, by its name and its first bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.evidence.attached_files import BIDI_MARKS, AttachedFile
from mailmill.processing.threat.families.attachments.each_file import each
from mailmill.processing.threat.knowledge.reference import (
    ARCHIVE_EXTENSIONS,
    DISK_IMAGE_EXTENSIONS,
    DOCUMENT_EXTENSIONS,
    EXECUTABLE_EXTENSIONS,
    HTML_EXTENSIONS,
    NOTE_EXTENSIONS,
    SCRIPT_EXTENSIONS,
    SHORTCUT_EXTENSIONS,
)
from mailmill.processing.threat.scoring import finding

MAX_NOTEBOOK_BYTES = 16 << 20

_OVERRIDES = ("\u202e", "\u202d", "\u2067")
_BLANKS_BEFORE_EXTENSION = re.compile(r"\s{4,200}\.[a-z0-9]{1,12}$", re.IGNORECASE)
_ALSO_DOMAIN_ENDINGS = frozenset({"com", "app", "command", "elf"})

# The header of a file that stands in a notebook: {BDE316E7-2665-4511-A4C4-8D4D0B7A9EAC}, [MS-ONESTORE] 2.6.13; the
# file begins 36 bytes on.
_FILE_IN_NOTEBOOK = b"\xe7\x16\xe3\xbd\x65\x26\x11\x45\xa4\xc4\x8d\x4d\x0b\x7a\x9e\xac"
_FILE_OFFSET = 36
_SCRIPT_START = re.compile(
    rb"<script|<hta:|wscript\.|createobject|powershell|@echo off|^\s{0,20}(?:cmd|start|set) |L\x00\x00\x00\x01\x14\x02",
    re.IGNORECASE,
)

_WEB_SHORTCUT = re.compile(rb"^url\s{0,5}=\s{0,5}https?://", re.IGNORECASE | re.MULTILINE)
_FROM_SERVER = re.compile(rb"=\s{0,5}(?:\\\\|//|file:)", re.IGNORECASE)

_EXPECTED: dict[str, frozenset[str]] = {
    "pdf": frozenset({"pdf"}),
    "doc": frozenset({"ole", "zip", "rtf"}),
    "xls": frozenset({"ole", "zip"}),
    "ppt": frozenset({"ole", "zip"}),
    "docx": frozenset({"zip", "ole"}),
    "xlsx": frozenset({"zip", "ole"}),
    "pptx": frozenset({"zip", "ole"}),
    "png": frozenset({"picture"}),
    "jpg": frozenset({"picture"}),
    "jpeg": frozenset({"picture"}),
    "gif": frozenset({"picture"}),
    "txt": frozenset({"page"}),
    "csv": frozenset(),
}


def program(file: AttachedFile) -> Iterator[Finding]:
    """Programs, scripts and shortcuts, by name or by bytes. A shortcut to a web page is no more than a link."""
    if file.extension == "url" and _is_web_shortcut(file.content[:4_096]):
        yield finding("attachments.web_shortcut", file.shown)
    elif file.kind == "shortcut" or file.extension in SHORTCUT_EXTENSIONS:
        yield finding("attachments.shortcut", file.shown)
    elif file.kind == "program" and file.extension not in ARCHIVE_EXTENSIONS:
        yield finding("attachments.executable", f"{file.shown} (starts as a program)")
    elif file.extension in SCRIPT_EXTENSIONS:
        yield finding("attachments.script", file.shown)
    elif file.extension in EXECUTABLE_EXTENSIONS and file.kind not in ("pdf", "picture"):
        if file.extension in _ALSO_DOMAIN_ENDINGS and file.kind in ("", "page"):
            return
        yield finding("attachments.executable", file.shown)


def disguised_name(file: AttachedFile) -> Iterator[Finding]:
    """A second extension behind a harmless one (``invoice.pdf.exe``), blanks before it, or a right-to-left override.

    ``report.doc.html`` may be what a program calls a document that was saved as a web page.
    """
    dangerous = file.extension in EXECUTABLE_EXTENSIONS | SCRIPT_EXTENSIONS | DISK_IMAGE_EXTENSIONS
    if file.inner_extension in DOCUMENT_EXTENSIONS and dangerous:
        yield finding("attachments.double_extension", file.shown)
    elif file.inner_extension in DOCUMENT_EXTENSIONS - HTML_EXTENSIONS and file.extension in HTML_EXTENSIONS:
        yield finding("attachments.page_as_document", file.shown)
    elif dangerous and _BLANKS_BEFORE_EXTENSION.search(file.shown):
        yield finding("attachments.double_extension", file.shown)
    if any(mark in file.shown for mark in _OVERRIDES):
        plain = BIDI_MARKS.sub("", file.shown)
        yield finding("attachments.direction_override", f"the name's true order is {plain}")


def disk_image(file: AttachedFile) -> Iterator[Finding]:
    """A disk image opens as a drive, past the marks that mail programs put on files from outside."""
    if file.extension in DISK_IMAGE_EXTENSIONS or file.kind == "disk image":
        yield finding("attachments.disk_image", file.shown)


def notebook(file: AttachedFile) -> Iterator[Finding]:
    """A OneNote notebook, worse where a program or a script stands in it behind a picture of a button."""
    if file.extension not in NOTE_EXTENSIONS and file.kind != "notebook":
        return
    position = file.content.find(_FILE_IN_NOTEBOOK, 0, MAX_NOTEBOOK_BYTES)
    for _ in range(50):
        if position < 0:
            break
        start = file.content[position + _FILE_OFFSET : position + _FILE_OFFSET + 2_000]
        if start.startswith(b"MZ") or _SCRIPT_START.search(start):
            yield finding("attachments.notebook_program", f"{file.shown} holds a program")
            return
        position = file.content.find(_FILE_IN_NOTEBOOK, position + 16, MAX_NOTEBOOK_BYTES)
    yield finding("attachments.notebook", file.shown)


def type_differs(file: AttachedFile) -> Iterator[Finding]:
    """The first bytes are something else than the name says, in a way that matters: a page named .pdf, a ZIP named
    .jpg."""
    expected = _EXPECTED.get(file.extension)
    if expected is None or not file.kind or file.kind in expected:
        return
    yield finding("attachments.type_differs", f"{file.shown} is in truth: {file.kind}")


def not_read(file: AttachedFile) -> Iterator[Finding]:
    """A file whose inside could not be read, or not all: too slow, too large, or it broke the reader. Many pictures are
    broken."""
    if file.kind == "picture":
        return
    for word in ("too_slow", "too_large", "unreadable", "documents_unread"):
        if word in file.inside.seen:
            yield finding("attachments.not_read", f"{file.shown}: {file.inside.seen[word]}")
            return


def _is_web_shortcut(content: bytes) -> bool:
    """An Internet shortcut to http or https that fetches nothing from a file server."""
    return bool(_WEB_SHORTCUT.search(content)) and not _FROM_SERVER.search(content)


FILE_DETECTORS = (program, disguised_name, disk_image, notebook, type_differs, not_read)
DETECTORS = tuple(each(one) for one in FILE_DETECTORS)
