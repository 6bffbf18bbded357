"""Readers of the insides of files. They run in the child process alone (:mod:`..inside_child`), one file at a time.

A reader is a module with ``read(name: str, content: bytes) -> Inside``; its libraries are imported in the child only,
and only once a file of its kind comes. It bounds what it unpacks and collects by itself; limits of time and memory are
set around it, and whatever it raises is taken for "cannot be read".

Which file is worth opening is decided before, by its first bytes and its name: :func:`reader_for`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from mailmill.processing.threat.evidence.inside import NOTHING, Inside
from mailmill.processing.threat.knowledge.reference import MACRO_EXTENSIONS

READERS: Final = ("archive", "office", "pdf", "picture")

MIN_PICTURE_BYTES: Final = 200
"""Below it no picture holds a QR code: tracking pixels and spacers."""
MAX_PICTURE_BYTES: Final = 12 << 20

_ISO_MARK_OFFSET: Final = 32_769
_TAR_MARK_OFFSET: Final = 257
_PDF_WINDOW_BYTES: Final = 1_024  # readers of PDF look that far for its header (ISO 32000-1, annex H, note 13)

_ARCHIVES: Final = (
    b"Rar!\x1a\x07",
    b"7z\xbc\xaf\x27\x1c",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"MSCF",
)
_PICTURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")
_OFFICE: Final = (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"{\\rt")
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_OFFICE_NAMES: Final = MACRO_EXTENSIONS | {
    *("docx", "dotx", "doc", "dot", "xlsx", "xltx", "xls", "xlt", "pptx", "ppsx", "potx", "ppt", "pps"),
}
_TABLES_AS_TEXT: Final = frozenset({"csv", "slk", "iqy"})
_OFFICE_PART: Final = b"[Content_Types].xml"
_OPEN_DOCUMENT: Final = b"mimetypeapplication/vnd.oasis.opendocument"  # the first entry, not packed (ODF 1.3, part 2)
_OFFICE_WINDOW_BYTES: Final = 4_096
_DIRECTORY_WINDOW_BYTES: Final = 65_536


def reader_for(name: str, content: bytes) -> str:
    """The reader a file is worth opening with, one of ``READERS``, or "": cheap, and looks at first bytes before
    names."""
    extension = name.lower().rstrip(". ").rpartition(".")[2] if "." in name else ""
    if content.startswith(_ZIP):
        # The part stands first where Office wrote it, anywhere where somebody else did: the directory is at the end.
        office = (
            extension in _OFFICE_NAMES
            or content.startswith(_OPEN_DOCUMENT, 30)
            or _OFFICE_PART in content[:_OFFICE_WINDOW_BYTES]
            or _OFFICE_PART in content[-_DIRECTORY_WINDOW_BYTES:]
        )
        return "office" if office else "archive"
    if content.startswith(_OFFICE) or (extension in _TABLES_AS_TEXT and content):
        return "office"
    if content.startswith(_PICTURES) or (content.startswith(b"RIFF") and content[8:12] == b"WEBP"):
        return "picture" if MIN_PICTURE_BYTES <= len(content) <= MAX_PICTURE_BYTES else ""
    if b"%PDF-" in content[:_PDF_WINDOW_BYTES]:
        return "pdf"
    if (
        content.startswith(_ARCHIVES)
        or content.startswith(b"CD001", _ISO_MARK_OFFSET)
        or content.startswith(b"ustar", _TAR_MARK_OFFSET)
        or (extension in ("zip", "zipx", "jar", "tar") and content)
    ):
        return "archive"
    return ""


def load(name: str, content: bytes) -> None:
    """Import the reader of the file and its libraries, which is no work of the file's."""
    reader = reader_for(name, content)
    if reader:
        import_module(f"{__name__}.{reader}")


def read(name: str, content: bytes) -> Inside:
    """Open the file with its reader. Raises whatever the reader's libraries raise."""
    reader = reader_for(name, content)
    if not reader:
        return NOTHING
    found: Inside = import_module(f"{__name__}.{reader}").read(name, content)
    return found
