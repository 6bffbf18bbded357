"""ZIP by our own few lines: the directory entry by entry, and the beginning of an entry's content (APPNOTE 6.3.10).

``zipfile`` makes an object of every entry before one can stop it, so a 32 MB directory costs it seconds, and it unpacks
whole blocks. Here every step is bounded by the caller, and nothing raises for what the bytes are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_NAME_BYTES = 1_000

_END_OF_DIRECTORY = b"PK\x05\x06"
_DIRECTORY_ENTRY = b"PK\x01\x02"
_LOCAL_ENTRY = b"PK\x03\x04"
_END_WINDOW_BYTES = 65_557  # a comment of 65,535 bytes behind the record of 22 (4.3.16)
# Signature, flags, method, sizes packed and unpacked, lengths of name, extra field and comment, offset (4.3.12).
_ENTRY = struct.Struct("<4s4xHH8xLL3H8xL")
_LOCAL = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field (4.3.7)
_ENCRYPTED = 0x1
_NAME_IS_UTF8 = 0x800
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One entry of a central directory; ``packed`` and ``unpacked`` are its sizes in bytes as declared."""

    name: str
    encrypted: bool
    method: int
    packed: int
    unpacked: int
    offset: int


def directory_of(content: bytes) -> tuple[int, int, int]:
    """(where the directory begins, how many entries it declares, by how much offsets are to be moved); begins at -1
    where there is none.

    Counted back from its end, the directory is found also where something was put before the archive.
    """
    end = content.rfind(_END_OF_DIRECTORY, max(0, len(content) - _END_WINDOW_BYTES))
    if end < 0 or end + 22 > len(content):
        return (-1, 0, 0)
    count, size, offset = struct.unpack_from("<HLL", content, end + 10)
    if 0 < size <= end and content.startswith(_DIRECTORY_ENTRY, end - size):
        return (end - size, count, end - size - offset)
    return (content.find(_DIRECTORY_ENTRY), count, 0)


def entries(content: bytes, most: int) -> Iterator[ZipEntry]:
    """The first ``most`` entries of the central directory, as far as it is whole."""
    position, _, moved = directory_of(content)
    for _ in range(most):
        if position < 0 or position + _ENTRY.size > len(content):
            return
        signature, flags, method, packed, unpacked, name_length, extra_length, comment_length, offset = (
            _ENTRY.unpack_from(content, position)
        )
        if signature != _DIRECTORY_ENTRY:
            return
        start = position + _ENTRY.size
        raw = content[start : start + min(name_length, MAX_NAME_BYTES)]
        name = raw.decode("utf-8" if flags & _NAME_IS_UTF8 else "cp437", "replace")
        yield ZipEntry(name, bool(flags & _ENCRYPTED), method, packed, unpacked, offset + moved)
        position = start + name_length + extra_length + comment_length


def unpack(content: bytes, entry: ZipEntry, most: int) -> bytes:
    """The first ``most`` bytes of an entry; what there is of it where it is broken; b"" where it is locked or packed
    in a way not known here (neither stored nor deflated)."""
    if entry.encrypted or not content.startswith(_LOCAL_ENTRY, max(0, entry.offset)):
        return b""
    if entry.offset < 0 or entry.offset + _LOCAL.size > len(content):
        return b""
    _, name_length, extra_length = _LOCAL.unpack_from(content, entry.offset)
    start = entry.offset + _LOCAL.size + name_length + extra_length
    # A size of 0xFFFFFFFF says that the true one stands in a ZIP64 field; then the stream says where it ends.
    # What is packed is hardly ever larger than what comes of it, and what is not needed would be copied.
    packed = memoryview(content)[start : start + min(entry.packed, most + (most >> 8) + 1_024)]
    if entry.method == _STORED:
        return bytes(packed[:most])
    if entry.method != _DEFLATED:
        return b""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
    except zlib.error:
        return b""
