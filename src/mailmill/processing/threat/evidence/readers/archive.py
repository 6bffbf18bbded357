"""Archives: what they hold, also within one another; unpacked as far as needed to see it, and never beyond a bound.

The words in ``seen``: those of :func:`seen_in_names`, and ``encrypted``, ``bomb`` (made to unpack into very much, or
without end), ``deep`` (archives within archives beyond what anybody packs), ``not_whole`` (the bound was met before the
end), ``documents_unread`` (more documents than are read), and what the readers of Office files and PDFs see in the
documents within, with their names.
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from signal import ITIMER_PROF, getitimer
from typing import Protocol

from mailmill.processing.threat.evidence.attached_files import kind_of
from mailmill.processing.threat.evidence.inside import MAX_MEMBERS, MAX_TARGETS, Inside, Target
from mailmill.processing.threat.evidence.names_within import seen_in_names
from mailmill.processing.threat.evidence.readers import listings, reader_for
from mailmill.processing.threat.evidence.zip_entries import ZipEntry, directory_of, entries, unpack

MAX_DEPTH = 4
MAX_ENTRIES = 5_000
MAX_ARCHIVES = 50
MAX_DOCUMENTS = 30
DOCUMENTS_SHARE = 0.5
"""Of the computing that is left when the documents' turn comes: beyond it none is begun, so that what was seen of the
archive is not lost."""
MAX_OPENED = 400
"""Entries whose content is begun at all, over all levels."""
MAX_UNPACKED_BYTES = 96 << 20
"""Over all levels; a single stream gives at most ``MAX_STREAM_BYTES`` of it."""
MAX_STREAM_BYTES = 32 << 20
HEAD_BYTES = 33 << 10  # the mark of an ISO 9660 stands behind its sixteenth sector of 2 KB

BOMB_RATIO = 100
BOMB_BYTES = 256 << 20
"""What unpacks to so much, and to more than ``BOMB_RATIO`` times its size, is meant to harm who unpacks it."""
BOMB_ENTRIES = 50_000

_BZ2, _XZ, _GZIP = b"BZh", b"\xfd7zXZ\x00", b"\x1f\x8b"
_TAR_MARK_OFFSET = 257
_XZ_MEMORY_BYTES = 128 << 20


class Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Document:
    """An Office file or a PDF in an archive, to be read when the walk is over."""

    path: str
    name: str
    reader: str
    member: _Member


@dataclass(slots=True)
class _Walk:
    """What has been seen, and what is left of the bounds."""

    names: list[str] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    documents: list[_Document] = field(default_factory=list)
    archives_left: int = MAX_ARCHIVES
    opened_left: int = MAX_OPENED
    bytes_left: int = MAX_UNPACKED_BYTES

    def see(self, word: str, evidence: str) -> None:
        self.seen.setdefault(word, evidence)


def read(name: str, content: bytes) -> Inside:
    """What an archive holds, up to four archives deep."""
    walk = _Walk()
    pending = [(name, content, 1)]
    while pending:
        where, packed, depth = pending.pop()
        if walk.archives_left <= 0 or "bomb" in walk.seen:
            break
        walk.archives_left -= 1
        names: list[str] = []
        for member, beginning in _members(where, packed, walk):
            names.append(member)
            inner = _look(f"{where} / {member}" if depth > 1 else member, member, beginning, walk)
            if inner is None:
                continue
            if depth >= MAX_DEPTH:
                walk.see("deep", f"archives within archives, {MAX_DEPTH} deep and more: {member}")
            else:
                pending.append((member, inner, depth + 1))
        for word, evidence in seen_in_names(names).items():
            walk.see(word, evidence if depth == 1 else f"{evidence} (in {where})")
        walk.names.extend(names[: MAX_MEMBERS - len(walk.names)])
    if walk.archives_left <= 0:
        walk.see("deep", f"more than {MAX_ARCHIVES} archives within archives")
    _read_documents(walk)
    return Inside(walk.seen, tuple(walk.names), tuple(walk.targets[:MAX_TARGETS]))


def _look(path: str, name: str, beginning: _Member, walk: _Walk) -> bytes | None:
    """See what a member is; its content if it is an archive to be opened."""
    head = beginning.head()
    kind = kind_of(head)
    if kind in ("program", "shortcut"):
        walk.see(kind, path)
    reader = reader_for(name, head)
    if reader == "archive":
        return beginning.whole() or None
    if reader in ("office", "pdf"):
        walk.documents.append(_Document(path, name, reader, beginning))
    return None


def _read_documents(walk: _Walk) -> None:
    """Those that can hold programs first, then the smaller ones, so that many others keep none out of sight."""
    ordered = sorted(walk.documents, key=lambda one: (one.reader != "office", one.member.size))
    least_seconds, _ = getitimer(ITIMER_PROF)  # runs where the child set a limit, else it is 0
    least_seconds *= DOCUMENTS_SHARE
    for read, document in enumerate(ordered):
        if read >= MAX_DOCUMENTS or getitimer(ITIMER_PROF)[0] < least_seconds:
            walk.see("documents_unread", f"{len(ordered) - read:,} of {len(ordered):,} documents in it were not read")
            return
        _read_document(document, walk)


def _read_document(document: _Document, walk: _Walk) -> None:
    try:
        content = document.member.whole()
        inside: Inside = import_module(f"{__package__}.{document.reader}").read(document.name, content)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a document that cannot be read is no reason not to read the others
        return
    for word, evidence in inside.seen.items():
        if word in ("unreadable", "broken", "single_page"):
            continue
        walk.see(f"document_{word}", f"{document.path}: {evidence}")
    walk.targets.extend(inside.targets[: MAX_TARGETS - len(walk.targets)])


class _Member:
    """The content of a member, unpacked when somebody wants it, on the walk's account; ``size`` is what it takes in the
    archive."""

    def __init__(self, walk: _Walk, size: int = 0) -> None:
        self._walk = walk
        self.size = size

    def head(self) -> bytes:
        """The first bytes; b"" where the bounds are met."""
        if self._walk.opened_left <= 0 or self._walk.bytes_left <= 0:
            return b""
        self._walk.opened_left -= 1
        return self._take(HEAD_BYTES)

    def whole(self) -> bytes:
        """All of it, cut at the bound of a stream."""
        most = min(MAX_STREAM_BYTES, self._walk.bytes_left)
        content = self._take(most) if most > 0 else b""
        self._walk.bytes_left -= len(content)
        if len(content) >= most:
            self._walk.see("not_whole", "it unpacks to more than was looked at")
        return content

    def _take(self, most: int) -> bytes:
        return b""


class _ZipMember(_Member):
    def __init__(self, walk: _Walk, archive: bytes, entry: ZipEntry) -> None:
        super().__init__(walk, entry.packed)
        self._archive, self._entry = archive, entry

    def _take(self, most: int) -> bytes:
        return unpack(self._archive, self._entry, most)


class _PlainMember(_Member):
    def __init__(self, walk: _Walk, content: memoryview) -> None:
        super().__init__(walk, len(content))
        self._content = content

    def _take(self, most: int) -> bytes:
        return bytes(self._content[:most])


def _members(name: str, content: bytes, walk: _Walk) -> Iterator[tuple[str, _Member]]:
    if content.startswith((listings.RAR4, listings.RAR5)):
        yield from _listed(listings.rar(content, MAX_ENTRIES), walk)
    elif content.startswith(listings.SEVEN_ZIP):
        yield from _listed(listings.seven_zip(content, MAX_ENTRIES), walk)
    elif content.startswith(listings.CABINET):
        yield from _listed(listings.cabinet(content, MAX_ENTRIES), walk)
    elif content.startswith(b"CD001", 32_769):
        yield from _listed(listings.iso9660(content, MAX_ENTRIES), walk)
    elif content.startswith((_GZIP, _BZ2, _XZ)):
        yield from _stream(name, content, walk)
    elif content.startswith(b"ustar", _TAR_MARK_OFFSET):
        yield from _tar(content, walk)
    else:
        yield from _zip(content, walk)


def _listed(listing: listings.Listing, walk: _Walk) -> Iterator[tuple[str, _Member]]:
    if listing.locked:
        walk.see("encrypted", listing.locked)
    for name in listing.names:
        yield (name, _Member(walk))


def _zip(content: bytes, walk: _Walk) -> Iterator[tuple[str, _Member]]:
    _, declared, _ = directory_of(content)
    unpacked = count = 0
    for entry in entries(content, BOMB_ENTRIES + 1):
        count += 1
        unpacked += entry.unpacked
        if entry.encrypted:
            walk.see("encrypted", entry.name)
        if count <= MAX_ENTRIES:
            yield (entry.name, _ZipMember(walk, content, entry))
    if count > BOMB_ENTRIES:
        walk.see("bomb", f"more than {BOMB_ENTRIES:,} files ({declared:,} declared)")
    _weigh(unpacked, len(content), walk)


def _tar(content: bytes, walk: _Walk) -> Iterator[tuple[str, _Member]]:
    count = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for entry in archive:
                count += 1
                if count > MAX_ENTRIES:
                    walk.see("not_whole", f"more than {MAX_ENTRIES:,} files")
                    return
                if entry.issym() or entry.islnk():
                    if entry.linkname.startswith("/") or ".." in entry.linkname.split("/"):
                        walk.see("link_out", f"{entry.name} leads to {entry.linkname}")
                elif entry.isfile():
                    start = entry.offset_data
                    yield (entry.name, _PlainMember(walk, memoryview(content)[start : start + entry.size]))
    except (tarfile.TarError, ValueError, OverflowError, struct.error):
        walk.see("broken", "the archive ends where it should not")


def _stream(name: str, content: bytes, walk: _Walk) -> Iterator[tuple[str, _Member]]:
    """One packed stream: a tar, or a file by itself."""
    most = max(1, min(MAX_STREAM_BYTES, walk.bytes_left))
    plain, used = _inflate(content, most)
    walk.bytes_left -= len(plain)
    if len(plain) >= most:
        walk.see("not_whole", "it unpacks to more than was looked at")
        if len(plain) >= BOMB_RATIO * used:
            walk.see("bomb", f"unpacks to more than {len(plain) // max(used, 1):,} times its size")
    if plain.startswith(b"ustar", _TAR_MARK_OFFSET):
        yield from _tar(plain, walk)
    else:
        yield (_stream_name(name, content), _PlainMember(walk, memoryview(plain)))


def _inflate(content: bytes, most: int) -> tuple[bytes, int]:
    """(the first ``most`` bytes of the stream, how many packed bytes gave them)"""
    try:
        if content.startswith(_GZIP):
            gzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
            plain = gzip.decompress(content, most)
            return (plain, len(content) - len(gzip.unconsumed_tail) - len(gzip.unused_data))
        stream: Decompressor
        if content.startswith(_BZ2):
            stream = bz2.BZ2Decompressor()
        else:
            stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        return _by_pieces(stream, content, most)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        return (b"", len(content))


def _by_pieces(stream: Decompressor, content: bytes, most: int) -> tuple[bytes, int]:
    plain = bytearray()
    used = 0
    piece = 1 << 14
    for used in range(0, len(content), piece):
        # What does not fit stays in the stream, to be asked for with no more input.
        plain += stream.decompress(content[used : used + piece], most - len(plain))
        if len(plain) >= most or getattr(stream, "eof", False):
            break
        while not getattr(stream, "needs_input", True) and len(plain) < most:
            plain += stream.decompress(b"", most - len(plain))
    return (bytes(plain), min(used + piece, len(content)))


def _stream_name(name: str, content: bytes) -> str:
    """The name that a gzip carries (RFC 1952 §2.3.1: flags bit 3), or the archive's without its last ending."""
    if content.startswith(_GZIP) and len(content) > 10 and content[3] & 0x0C == 0x08:
        inner = content[10:310].partition(b"\x00")[0].decode("latin-1")
        if inner:
            return inner
    stem, _, extension = name.rpartition(".")
    return f"{stem}.tar" if extension.lower() in ("tgz", "tbz2", "txz") else stem or name


def _weigh(unpacked: int, packed: int, walk: _Walk) -> None:
    if unpacked >= BOMB_BYTES and unpacked >= BOMB_RATIO * max(packed, 1):
        walk.see("bomb", f"unpacks to {unpacked >> 20:,} MB, {unpacked // max(packed, 1):,} times its size")
