"""Family ``attachments``: programs, pages, macros, containers, and names that hide what they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mailmill.model import Finding
from mailmill.processing.threat.attached_files import BIDI_MARKS, AttachedFile
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.reference import (
    ARCHIVE_EXTENSIONS,
    DISK_IMAGE_EXTENSIONS,
    DOCUMENT_EXTENSIONS,
    EXECUTABLE_EXTENSIONS,
    HTML_EXTENSIONS,
    MACRO_EXTENSIONS,
    NOTE_EXTENSIONS,
    SCRIPT_EXTENSIONS,
    SHORTCUT_EXTENSIONS,
)
from mailmill.processing.threat.scoring import finding

MAX_SVG_BYTES = 1 << 20
MAX_OLE_BYTES = 8 << 20

_OVERRIDES = ("\u202e", "\u202d", "\u2067")
_BLANKS_BEFORE_EXTENSION = re.compile(r"\s{4,200}\.[a-z0-9]{1,12}$", re.IGNORECASE)
_SVG_PROGRAM = re.compile(rb"<script|<foreignobject|\son[a-z]{3,20}\s{0,5}=|javascript:", re.IGNORECASE)
# The stream name of a VBA project in an OLE directory is UTF-16.
_OLE_VBA = "_VBA_PROJECT".encode("utf-16-le")

# ZIPs by format: what they hold by right is no program in hiding.
_ZIP_DOCUMENTS = MACRO_EXTENSIONS | {"docx", "xlsx", "pptx", "odt", "ods", "odp", "epub", "jar", "apk"}
# Names that end so are often no programs (domains, sources): among few files in an archive they count, among many not.
_COMMON_IN_SOURCES = SCRIPT_EXTENSIONS | {"reg", "url", "jar", "deb", "rpm", "elf", "app", "com", "run", "command"}
_ALSO_DOMAIN_ENDINGS = frozenset({"com", "app", "command", "elf"})

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
    """Programs, scripts and shortcuts, by name or by bytes."""
    if file.kind == "shortcut" or file.extension in SHORTCUT_EXTENSIONS:
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
    """A second extension behind a harmless one (``invoice.pdf.exe``), blanks before it, or a right-to-left override."""
    dangerous = file.extension in EXECUTABLE_EXTENSIONS | SCRIPT_EXTENSIONS | DISK_IMAGE_EXTENSIONS
    if file.inner_extension in DOCUMENT_EXTENSIONS and (dangerous or file.extension in HTML_EXTENSIONS):
        if file.extension in HTML_EXTENSIONS and file.inner_extension in HTML_EXTENSIONS:
            return
        yield finding("attachments.double_extension", file.shown)
    elif dangerous and _BLANKS_BEFORE_EXTENSION.search(file.shown):
        yield finding("attachments.double_extension", file.shown)
    if any(mark in file.shown for mark in _OVERRIDES):
        plain = BIDI_MARKS.sub("", file.shown)
        yield finding("attachments.direction_override", f"the name's true order is {plain}")


def web_page(file: AttachedFile) -> Iterator[Finding]:
    """HTML and SVG attachments: pages that open in the browser, outside the mail client's guard."""
    if file.extension in HTML_EXTENSIONS or (file.content_type == "text/html" and not file.extension):
        yield finding("attachments.html", file.shown)
    elif file.extension in ("svg", "svgz") or file.content_type == "image/svg+xml":
        active = _SVG_PROGRAM.search(file.content[:MAX_SVG_BYTES]) is not None
        yield finding("attachments.active_svg" if active else "attachments.svg", file.shown)


def macros(file: AttachedFile) -> Iterator[Finding]:
    """Macro-enabled Office, by name, by a VBA project in a ZIP, or by the VBA stream's name in an OLE file."""
    project = any(name.lower().endswith("vbaproject.bin") for name in file.names)
    stream = file.kind == "ole" and file.content.find(_OLE_VBA, 0, MAX_OLE_BYTES) >= 0
    if file.extension in MACRO_EXTENSIONS or project or stream:
        how = "VBA project inside" if project or stream else "macro-enabled by name"
        yield finding("attachments.macros", f"{file.shown} ({how})")


def container(file: AttachedFile) -> Iterator[Finding]:
    """Disk images, notebooks, archives that hold a program by name, archives that are locked."""
    if file.extension in DISK_IMAGE_EXTENSIONS or file.kind == "disk image":
        yield finding("attachments.disk_image", file.shown)
    if file.extension in NOTE_EXTENSIONS or file.kind == "notebook":
        yield finding("attachments.notebook", file.shown)
    if file.extension in _ZIP_DOCUMENTS:
        return
    for name in file.names:
        ending = name.lower().rstrip(". ").rpartition(".")[2] if "." in name else ""
        if ending in _COMMON_IN_SOURCES:
            if len(file.names) > 3:
                continue
        elif ending not in EXECUTABLE_EXTENSIONS | DISK_IMAGE_EXTENSIONS:
            continue
        yield finding("attachments.archive_with_program", f"{file.shown} holds {name[:150]}")
        break
    if file.locked:
        yield finding("attachments.encrypted_archive", file.shown)


def type_differs(file: AttachedFile) -> Iterator[Finding]:
    """The first bytes are something else than the name says, in a way that matters: a page named .pdf, a ZIP named
    .jpg."""
    expected = _EXPECTED.get(file.extension)
    if expected is None or not file.kind or file.kind in expected:
        return
    yield finding("attachments.type_differs", f"{file.shown} is in truth: {file.kind}")


def _each(detector: Callable[[AttachedFile], Iterator[Finding]]) -> Callable[[ThreatContext], Iterator[Finding]]:
    def over_attachments(context: ThreatContext) -> Iterator[Finding]:
        for file in context.files:
            yield from detector(file)

    over_attachments.__name__ = detector.__name__
    over_attachments.__doc__ = detector.__doc__
    return over_attachments


FILE_DETECTORS = (program, disguised_name, web_page, macros, container, type_differs)
DETECTORS = tuple(_each(detector) for detector in FILE_DETECTORS)
