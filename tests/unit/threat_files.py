"""Files for the tests of the threat engine, made by hand: archives, Office documents, and what passes for them."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping

from mailmill.message_parser import Attachment

DOS = b"MZ\x90\x00\x03\x00" + b"\x00" * 100
_SECTOR = 512
_END, _FAT_SECTOR, _FREE, _NONE = 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFF, 0xFFFFFFFF
_SMALLEST_STREAM = 4_096  # below it a stream would stand in the small sectors, which this writer has none of


def attachment(name: str, content: bytes, content_type: str = "application/octet-stream") -> Attachment:
    return Attachment("1", name, content_type, len(content), len(content), False, "", content)


def zip_of(members: Mapping[str, bytes | str], *, locked: bool = False, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The same bytes whenever it is made. ``locked`` sets the flag of the first entry: the standard library cannot
    encrypt."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for name, content in members.items():
            target.writestr(zipfile.ZipInfo(name), content, method)
    content = bytearray(buffer.getvalue())
    if locked:
        content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def tar_of(members: Mapping[str, bytes], mode: str = "w") -> bytes:
    """The same bytes whenever it is made."""
    if mode == "w:gz":
        return gzip.compress(tar_of(members), mtime=0)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as target:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def ole_of(streams: Mapping[str, bytes]) -> bytes:
    """An OLE2 file ([MS-CFB] 2) of streams by path (``Macros/VBA/ThisDocument``); small ones are padded with zeros."""
    sectors: list[bytes] = []
    fat: list[int] = []

    def add(data: bytes) -> tuple[int, int]:
        padded = data.ljust(_SMALLEST_STREAM, b"\x00")
        first, count = len(sectors), -(-len(padded) // _SECTOR)
        for number in range(count):
            sectors.append(padded[number * _SECTOR : (number + 1) * _SECTOR].ljust(_SECTOR, b"\x00"))
            fat.append(len(sectors) if number + 1 < count else _END)
        return (first, len(padded))

    tree: dict[str, list[str]] = {"": []}
    for path in streams:
        parts = path.split("/")
        for depth in range(len(parts)):
            parent, child = "/".join(parts[:depth]), "/".join(parts[: depth + 1])
            if child not in tree.setdefault(parent, []):
                tree[parent].append(child)
    order = [""]
    for path in order:
        order.extend(tree.get(path, ()))
    number_of = {path: number for number, path in enumerate(order)}
    directory = b""
    for path in order:
        name = (path.rpartition("/")[2] if path else "Root Entry").encode("utf-16-le")
        siblings = next((children for children in tree.values() if path in children), [path])
        following = siblings[siblings.index(path) + 1 :]
        kind = 5 if not path else (2 if path in streams else 1)
        first, size = add(streams[path]) if path in streams else (_END if not path else 0, 0)
        directory += struct.pack(
            "<64sHBBLLL16sLQQLQ",
            name,
            len(name) + 2,
            kind,
            1,
            _NONE,
            number_of[following[0]] if following else _NONE,
            number_of[tree[path][0]] if tree.get(path) else _NONE,
            b"",
            0,
            0,
            0,
            first,
            size,
        )
    padded_directory = directory + (b"\x00" * 68 + b"\xff" * 12 + b"\x00" * 48) * (-len(directory) % _SECTOR // 128)
    directory_start = len(sectors)
    for number in range(len(padded_directory) // _SECTOR):
        sectors.append(padded_directory[number * _SECTOR : (number + 1) * _SECTOR])
        fat.append(len(sectors) if (number + 1) * _SECTOR < len(padded_directory) else _END)
    fat_start = len(sectors)
    fat_sectors = 1
    while (len(fat) + fat_sectors) * 4 > fat_sectors * _SECTOR:
        fat_sectors += 1
    fat += [_FAT_SECTOR] * fat_sectors
    table = struct.pack(f"<{len(fat)}L", *fat).ljust(fat_sectors * _SECTOR, b"\xff")
    header = struct.pack(
        "<8s16sHHHHH6sLLLLLLLLL",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"",
        0x3E,
        3,
        0xFFFE,
        9,
        6,
        b"",
        0,
        fat_sectors,
        directory_start,
        0,
        4_096,
        _END,
        0,
        _END,
        0,
    )
    places = [fat_start + number for number in range(fat_sectors)]
    header += struct.pack(f"<{fat_sectors}L", *places) + b"\xff" * (4 * (109 - fat_sectors))
    return header + b"".join(sectors) + table


def vba_module(source: str) -> bytes:
    """A module's stream: some compiled bytes, then the source, packed as literals only ([MS-OVBA] 2.4.1)."""
    data = f'Attribute VB_Name = "M"\r\n{source}'.encode("latin-1")
    packed = b"\x01"
    for start in range(0, len(data), 3_000):
        piece = data[start : start + 3_000]
        body = b"".join(b"\x00" + piece[at : at + 8] for at in range(0, len(piece), 8))
        packed += struct.pack("<H", 0xB000 | (len(body) - 1)) + body
    return b"\x99" * 40 + packed


def vba_project(source: str) -> bytes:
    """``vbaProject.bin`` with one module."""
    return ole_of({"VBA/dir": b"x", "VBA/_VBA_PROJECT": b"\xcc\x61", "VBA/M": vba_module(source), "PROJECT": b"ID=1"})


def biff(*records: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HH", kind, len(body)) + body for kind, body in records)


def ooxml(parts: Mapping[str, bytes | str]) -> bytes:
    return zip_of({"[Content_Types].xml": "<Types/>", **parts})
