"""Names in containers that nothing permissively licensed unpacks: RAR, 7z, CAB, and ISO 9660; by their directories.

Each reader is bounded by ``most`` names, and reads what there is where the bytes are broken. Sources: RAR technote.txt
(4.x) and the RAR 5.0 archive format of rarlab.com; 7zFormat.txt of the LZMA SDK; [MS-CAB] 2; ECMA-119.
"""

from __future__ import annotations

import lzma
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

MAX_NAME_BYTES = 1_000
_MAX_7Z_HEADER_BYTES = 4 << 20

RAR4 = b"Rar!\x1a\x07\x00"
RAR5 = b"Rar!\x1a\x07\x01\x00"
SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
CABINET = b"MSCF"

_SEVEN_ZIP_AES = b"\x06\xf1\x07\x01"
_SEVEN_ZIP_LZMA = b"\x03\x01\x01\x05"
# Names are UTF-16 with a zero behind each; the ASCII ones are enough to tell a program by.
_UTF16_NAME = re.compile(rb"(?:[\x20-\x7e]\x00){2,300}(?=\x00\x00)")


@dataclass(slots=True)
class Listing:
    """``locked`` says what is encrypted: a name, or that the names are; "" if nothing is."""

    names: list[str] = field(default_factory=list)
    locked: str = ""


def rar(content: bytes, most: int) -> Listing:
    return _rar5(content, most) if content.startswith(RAR5) else _rar4(content, most)


def _rar4(content: bytes, most: int) -> Listing:
    listing = Listing()
    position = len(RAR4)
    while position + 7 <= len(content) and len(listing.names) < most:
        kind, flags, size = struct.unpack_from("<BHH", content, position + 2)
        if size < 7:
            break
        added = 0
        if kind == 0x73 and flags & 0x80:
            listing.locked = "the names too"
            break
        if flags & 0x8000 and position + 11 <= len(content):
            added = struct.unpack_from("<L", content, position + 7)[0]
        if kind == 0x74 and position + 32 <= len(content):
            name_size = struct.unpack_from("<H", content, position + 26)[0]
            start = position + 32
            if flags & 0x100 and start + 8 <= len(content):
                added += struct.unpack_from("<L", content, start)[0] << 32
                start += 8
            raw = content[start : start + min(name_size, MAX_NAME_BYTES)].partition(b"\x00")[0]
            name = raw.decode("utf-8", "replace").replace("\\", "/")
            listing.names.append(name)
            if flags & 0x4 and not listing.locked:
                listing.locked = name
        position += size + added
    return listing


def _rar5(content: bytes, most: int) -> Listing:
    listing = Listing()
    position = len(RAR5)
    try:
        while position + 6 <= len(content) and len(listing.names) < most:
            size, start = _vint(content, position + 4)
            end = start + size
            kind, at = _vint(content, start)
            flags, at = _vint(content, at)
            extra = data = 0
            if flags & 1:
                extra, at = _vint(content, at)
            if flags & 2:
                data, at = _vint(content, at)
            if kind == 4:
                listing.locked = "the names too"
                break
            if kind == 5 or size == 0:
                break
            if kind == 2:
                file_flags, at = _vint(content, at)
                for _ in range(2):  # unpacked size, attributes
                    _, at = _vint(content, at)
                at += 4 * bool(file_flags & 2) + 4 * bool(file_flags & 4)
                for _ in range(2):  # compression, host
                    _, at = _vint(content, at)
                length, at = _vint(content, at)
                name = content[at : at + min(length, MAX_NAME_BYTES)].decode("utf-8", "replace")
                listing.names.append(name)
                if not listing.locked and _has_encryption_record(content, end - extra, end):
                    listing.locked = name
            position = end + data
    except ValueError:
        pass
    return listing


def _has_encryption_record(content: bytes, at: int, end: int) -> bool:
    while 0 < at < min(end, len(content)):
        size, start = _vint(content, at)
        kind, _ = _vint(content, start)
        if kind == 1:
            return True
        at = start + size
        if size == 0:
            break
    return False


def _vint(content: bytes, at: int) -> tuple[int, int]:
    """RAR 5's integer: seven bits a byte, the highest says that more follow. (value, where it ends)"""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise ValueError("the archive ends in a number")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return (value, at)
    raise ValueError("a number of more than ten bytes")


def seven_zip(content: bytes, most: int) -> Listing:
    """The names, and whether the AES coder is used for the names or the files."""
    if len(content) < 32:
        return Listing()
    offset, size = struct.unpack_from("<QQ", content, 12)
    header = content[32 + offset : 32 + offset + min(size, _MAX_7Z_HEADER_BYTES)]
    if header.startswith(b"\x17"):
        if _SEVEN_ZIP_AES in header:
            return Listing(locked="the names too")
        header = _packed_header(content, header)
    names = [match.group().decode("utf-16-le") for match in islice(_UTF16_NAME.finditer(header), most)]
    return Listing(names, "its files" if _SEVEN_ZIP_AES in header else "")


def _packed_header(content: bytes, header: bytes) -> bytes:
    """The header that this one says where to find: one stream, packed by LZMA."""
    coder = header.find(_SEVEN_ZIP_LZMA)
    if coder < 0 or len(header) < coder + 9 or header[1:2] != b"\x06":
        return b""
    try:
        position, at = _seven_zip_number(header, 2)
        _, at = _seven_zip_number(header, at)
        properties = header[coder + 4 : coder + 9]
        # The stream in the ".lzma" form: properties, then a size of -1 for "not known".
        stream = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=128 << 20)
        packed = content[32 + position : 32 + position + _MAX_7Z_HEADER_BYTES]
        return stream.decompress(properties + b"\xff" * 8 + packed, _MAX_7Z_HEADER_BYTES)
    except (lzma.LZMAError, ValueError, IndexError):
        return b""


def _seven_zip_number(data: bytes, at: int) -> tuple[int, int]:
    """The ones at the top of the first byte count the bytes that follow; its other bits are the highest of the
    number."""
    first = data[at]
    value, mask = 0, 0x80
    for index in range(8):
        if not first & mask:
            return (value | (first & (mask - 1)) << (8 * index), at + 1 + index)
        value |= data[at + 1 + index] << (8 * index)
        mask >>= 1
    return (value, at + 9)


def cabinet(content: bytes, most: int) -> Listing:
    listing = Listing()
    if len(content) < 36:
        return listing
    at = struct.unpack_from("<L", content, 16)[0]
    count = struct.unpack_from("<H", content, 28)[0]
    for _ in range(min(count, most)):
        end = content.find(b"\x00", at + 16, at + 16 + MAX_NAME_BYTES)
        if end < 0:
            break
        listing.names.append(content[at + 16 : end].decode("utf-8", "replace").replace("\\", "/"))
        at = end + 1
    return listing


def iso9660(content: bytes, most: int) -> Listing:
    """By the Joliet directory where there is one (true names), else by the primary one."""
    root = joliet = b""
    for sector in range(16, 48):
        descriptor = content[sector * 2_048 : (sector + 1) * 2_048]
        if descriptor[1:6] != b"CD001" or len(descriptor) < 190 or descriptor[0] == 255:
            break
        if descriptor[0] == 1:
            root = root or descriptor[156:190]
        elif descriptor[0] == 2 and descriptor[88:91] in (b"%/@", b"%/C", b"%/E"):
            joliet = descriptor[156:190]
    listing = Listing()
    folders, seen = [("", joliet or root)], set[int]()
    while folders and len(listing.names) < most:
        path, record = folders.pop()
        if len(record) < 33:
            continue
        sector, _, size = struct.unpack_from("<LLL", record, 2)
        if sector in seen:
            continue
        seen.add(sector)
        for entry in _iso_entries(content, sector * 2_048, min(size, 1 << 20), most - len(listing.names)):
            raw = entry[33 : 33 + entry[32]]
            name = path + raw.decode("utf-16-be" if joliet else "latin-1", "replace").partition(";")[0]
            if entry[25] & 2:
                folders.append((f"{name[:300]}/", entry))
            else:
                listing.names.append(name)
    return listing


def _iso_entries(content: bytes, start: int, size: int, most: int) -> Iterator[bytes]:
    """The records of a directory, but for itself and its parent."""
    at, end, found = start, min(start + size, len(content)), 0
    while at + 34 <= end and found < most:
        length = content[at]
        if length == 0:  # records don't cross sectors: the rest of this one is empty
            at = (at // 2_048 + 1) * 2_048
            continue
        record = content[at : at + length]
        itself_or_parent = record[32:34] in (b"\x01\x00", b"\x01\x01")
        if len(record) >= 34 and not itself_or_parent:
            found += 1
            yield record
        at += length
