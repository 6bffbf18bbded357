"""An attachment looked at once: its name, its first bytes, and the names in a ZIP's directory; nothing is unpacked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mailmill.message_parser import Attachment
from mailmill.processing.threat.evidence.inside import NOTHING, Inside
from mailmill.processing.threat.evidence.zip_entries import entries

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
    (b"\xfd7zXZ\x00", 0, "archive"),
    (b"1AY&SY", 4, "archive"),  # bzip2, whose first block begins so
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


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """``shown`` is the name as sent (or the type in brackets); ``extension`` its last ending, ``inner_extension`` the
    one before; ``kind`` what the first bytes are ("" if unknown); ``names`` what a ZIP holds; ``locked``: some of it
    encrypted; ``inside`` what a child process read of it.
    """

    shown: str
    extension: str
    inner_extension: str
    kind: str
    content_type: str
    content: bytes = field(repr=False)
    names: tuple[str, ...] = ()
    locked: bool = False
    inside: Inside = NOTHING


def inspect(attachment: Attachment, inside: Inside = NOTHING) -> AttachedFile:
    """Look at one attachment; ``inside`` is what was read further than names and first bytes."""
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
        inside=inside,
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
    found = list(entries(content, MAX_ARCHIVE_NAMES))
    return (tuple(one.name for one in found), any(one.encrypted for one in found))
