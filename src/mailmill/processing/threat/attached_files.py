"""An attachment looked at once: its name, its first bytes, and the names in a ZIP's directory. Nothing is unpacked.

The ZIP directory is read by our own few lines: ``zipfile`` makes an object of every entry before one can stop it, so a
32 MB directory costs seconds.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from mailmill.message_parser import Attachment

MAX_ARCHIVE_NAMES = 1_000
MAX_SHOWN_CHARS = 200

BIDI_MARKS = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f]")

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SIGNATURES: tuple[tuple[bytes, int, str], ...] = (
    (b"\x7fELF", 0, "program"),
    (b"\xca\xfe\xba\xbe", 0, "program"),
    (b"\xcf\xfa\xed\xfe", 0, "program"),
    (b"L\x00\x00\x00\x01\x14\x02\x00", 0, "shortcut"),
    (_OLE, 0, "ole"),
    (b"PK\x03\x04", 0, "zip"),
    (b"PK\x05\x06", 0, "zip"),
    (b"Rar!\x1a\x07", 0, "archive"),
    (b"7z\xbc\xaf\x27\x1c", 0, "archive"),
    (b"\x1f\x8b", 0, "archive"),
    (b"MSCF", 0, "archive"),
    (b"**ACE**", 7, "archive"),
    (b"CD001", 32_769, "disk image"),
    (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", 0, "notebook"),
    (b"%PDF-", 0, "pdf"),
    (b"\x89PNG", 0, "picture"),
    (b"\xff\xd8\xff", 0, "picture"),
    (b"GIF8", 0, "picture"),
    (b"{\\rtf", 0, "rtf"),
)
_PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")
_DOS_HEADER_BYTES = 64

_END_OF_DIRECTORY = b"PK\x05\x06"
_DIRECTORY_ENTRY = b"PK\x01\x02"
_END_WINDOW_BYTES = 65_557  # a comment of 65,535 bytes behind the record of 22 (APPNOTE 4.3.16)
_ENTRY = struct.Struct("<4s4xH18x3H12x")  # signature, flags, lengths of name, extra field and comment (APPNOTE 4.3.12)


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """``shown`` is the name as sent (or the type in brackets); ``extension`` its last ending, ``inner_extension`` the
    one before; ``kind`` what the first bytes are ("" if unknown); ``names`` what a ZIP holds; ``locked``: some of it
    encrypted.
    """

    shown: str
    extension: str
    inner_extension: str
    kind: str
    content_type: str
    content: bytes = field(repr=False)
    names: tuple[str, ...] = ()
    locked: bool = False


def inspect(attachment: Attachment) -> AttachedFile:
    """Look at one attachment."""
    name = BIDI_MARKS.sub("", attachment.filename[:500]).strip().rstrip(". ")
    pieces = name.lower().split(".")
    kind = kind_of(attachment.content)
    # A ZIP is read from its end: one with something put before it opens as well.
    is_zip = kind == "zip" or pieces[-1] == "zip"
    names, locked = zip_directory(attachment.content) if is_zip else ((), False)
    return AttachedFile(
        shown=attachment.filename[:MAX_SHOWN_CHARS] or f"({attachment.content_type[:100]})",
        extension=pieces[-1].strip() if len(pieces) > 1 else "",
        inner_extension=pieces[-2].strip() if len(pieces) > 2 else "",
        kind=kind,
        content_type=attachment.content_type.lower(),
        content=attachment.content,
        names=names,
        locked=locked,
    )


def kind_of(content: bytes) -> str:
    """What the first bytes are: program, shortcut, ole, zip, archive, disk image, notebook, pdf, picture, rtf, page,
    ""."""
    # "MZ" are also two letters: a DOS header is 64 bytes and holds zeros, which text does not.
    if content.startswith(b"MZ") and b"\x00" in content[:_DOS_HEADER_BYTES]:
        return "program"
    for signature, offset, kind in _SIGNATURES:
        if content.startswith(signature, offset):
            return kind
    head = content[:1_024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return "page" if head.startswith(_PAGE_STARTS) else ""


def zip_directory(content: bytes) -> tuple[tuple[str, ...], bool]:
    """The first ``MAX_ARCHIVE_NAMES`` names of a ZIP's central directory, and whether any of these entries is
    encrypted."""
    end = content.rfind(_END_OF_DIRECTORY, max(0, len(content) - _END_WINDOW_BYTES))
    if end < 0 or end + 22 > len(content):
        return ((), False)
    size = int.from_bytes(content[end + 12 : end + 16], "little")
    # Counted back from its end, the directory is found also where something was put before the archive.
    position = end - size if 0 < size <= end else content.find(_DIRECTORY_ENTRY)
    names: list[str] = []
    locked = False
    while position >= 0 and position + _ENTRY.size <= len(content) and len(names) < MAX_ARCHIVE_NAMES:
        signature, flags, name_length, extra_length, comment_length = _ENTRY.unpack_from(content, position)
        if signature != _DIRECTORY_ENTRY:
            break
        raw = content[position + _ENTRY.size : position + _ENTRY.size + min(name_length, 1_000)]
        names.append(raw.decode("utf-8" if flags & 0x800 else "cp437", "replace"))
        locked = locked or bool(flags & 1)
        position += _ENTRY.size + name_length + extra_length + comment_length
    return (tuple(names), locked)
