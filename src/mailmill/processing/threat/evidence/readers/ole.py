"""OLE2 files (doc, xls, ppt, msg, vbaProject.bin, objects within others), by olefile and our own small readers.

Sources: [MS-CFB] by olefile; [MS-DOC] 2.5, [MS-XLS] 2.4, [MS-PPT] 2.3, [MS-OFFCRYPTO] 2.3, [MS-OLEDS] 2.3.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from itertools import islice

import olefile

from mailmill.processing.threat.evidence.attached_files import kind_of
from mailmill.processing.threat.evidence.inside import Target
from mailmill.processing.threat.evidence.names_within import seen_in_names
from mailmill.processing.threat.evidence.readers import outlook, vba
from mailmill.processing.threat.evidence.readers.findings import Findings
from mailmill.processing.threat.evidence.readers.streams import Streams

MAX_STREAM_BYTES = 16 << 20
MAX_MODULES = 100
MAX_MODULE_BYTES = 1 << 20
_MAX_RECORDS = 200_000
_MAX_FIELDS = 2_000

_EQUATION_CLASSES = ("0002CE02-0000-0000-C000-000000000046", "0002CE03-0000-0000-C000-000000000046")
_HEADER_BYTES = 512
_PROJECT, _ENCRYPTED_PACKAGE, _EQUATION = (
    name.encode("utf-16-le") for name in ("_VBA_PROJECT", "EncryptedPackage", "Equation Native")
)
_NO_MODULES = frozenset({"dir", "_vba_project", "project", "projectwm"})
# A field begins with 0x13; its instruction is in one byte or two a letter.
_FIELD = re.compile(rb"\x13\x00?[^\x13-\x15]{3,2000}")
_DDE = re.compile(r"\s{0,20}DDE(?:AUTO)?\s", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s\"'<>\x00-\x1f\\]{3,1900}", re.IGNORECASE)

_BIFF_EOF, _FILEPASS, _NAME, _BOUNDSHEET, _SUPBOOK = 0x0A, 0x2F, 0x18, 0x85, 0x1AE
_READ_RECORDS = frozenset({_FILEPASS, _NAME, _BOUNDSHEET, _SUPBOOK})
_RECORD = struct.Struct("<HH")
_MACRO_SHEET, _VERY_HIDDEN = 1, 2
_BUILT_IN, _AUTO_OPEN, _AUTO_CLOSE = 0x20, 0x01, 0x02
_PPT_ENCRYPTED = b"\xdf\xc4\xd1\xf3"


def read_ole(content: bytes, findings: Findings) -> None:
    """See what an OLE2 file holds; one that olefile cannot open is searched as bytes, and ``broken``."""
    try:
        _directory(_whole(content), findings)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - olefile's own errors, and those of its arithmetic on a stranger's numbers
        findings.see("broken", f"no sound OLE2 file ({type(error).__name__})")
    if "macros" not in findings.seen:
        _search(content, findings)


def _whole(content: bytes) -> bytes:
    """The file with its last sector filled up: Office opens one that was cut there, olefile does not.

    Raises ValueError where the sizes of sectors are none of those there are ([MS-CFB] 2.2): olefile takes any power of
    two, and computes with it.
    """
    if len(content) < _HEADER_BYTES:
        raise ValueError("shorter than its header")
    sector: int
    sector, small_sector = struct.unpack_from("<HH", content, 30)
    if sector not in (9, 12) or small_sector != 6:
        raise ValueError("sectors of another size")
    return content + b"\x00" * (-len(content) % (1 << sector))


def _search(content: bytes, findings: Findings) -> None:
    """What can be told without the directory: macro sources (in one piece as a rule), and names of streams."""
    position = content.find(vba.PACKED_START)
    for _ in range(MAX_MODULES):
        if position < 0:
            break
        source = vba.source_of(content[max(0, position - 3) : position + MAX_MODULE_BYTES])
        if source:
            findings.see_macros(source)
        position = content.find(vba.PACKED_START, position + 1)
    if _PROJECT in content:
        findings.see("macros", "a VBA project")
    if _ENCRYPTED_PACKAGE in content:
        findings.see("encrypted", "the whole document")
    if _EQUATION in content:
        findings.see("equation_editor", "an object of the old equation editor")


def _directory(content: bytes, findings: Findings) -> None:
    with olefile.OleFileIO(io.BytesIO(content)) as ole:
        streams = Streams(ole, len(content))
        if str(ole.root.clsid).upper() in _EQUATION_CLASSES:
            findings.see("equation_editor", "an object of the old equation editor")
        if outlook.is_message(streams.paths):
            outlook.read_message(streams, findings)
            return
        _streams(streams, findings)


def _streams(streams: Streams, findings: Findings) -> None:
    modules = 0
    for path in streams.paths:
        name = path[-1].lower()
        if name in ("encryptedpackage", "encryptedsummary"):
            findings.see("encrypted", "the whole document")
        elif name == "equation native":
            findings.see("equation_editor", "an object of the old equation editor")
        elif name == "\x01ole10native":
            read_package(streams.read(path, MAX_STREAM_BYTES), findings)
        elif len(path) >= 2 and path[-2].lower() == "vba":
            if name not in _NO_MODULES and not name.startswith("__srp_") and modules < MAX_MODULES:
                modules += 1
                findings.see_macros(vba.source_of(streams.read(path, MAX_STREAM_BYTES)))
        elif name in ("workbook", "book"):
            _workbook(streams.read(path, MAX_STREAM_BYTES), findings)
        elif name == "worddocument":
            _word(streams.read(path, MAX_STREAM_BYTES), findings)
        elif name == "current user" and streams.read(path, MAX_STREAM_BYTES)[12:16] == _PPT_ENCRYPTED:
            findings.see("encrypted", "the whole presentation")


def read_package(native: bytes, findings: Findings) -> None:
    """A file that somebody put into the document as an icon: its name and first bytes."""
    pieces = native[6:3_000].split(b"\x00", 2)
    names = [piece.decode("latin-1")[:300] for piece in pieces[:2]]
    name = next((one for one in names if "." in one), names[0] if names else "")
    told = seen_in_names([one.replace("\\", "/").rpartition("/")[2] for one in names if one])
    start = native.find(b"MZ", 6, 3_000)
    if told.keys() & {"program", "script", "shortcut"} or (start > 0 and kind_of(native[start:]) == "program"):
        findings.see("embedded_program", name)
    else:
        findings.see("embedded_file", name)


def _word(stream: bytes, findings: Findings) -> None:
    if len(stream) > 12 and struct.unpack_from("<H", stream, 10)[0] & 0x0100:
        findings.see("encrypted", "the whole document")
        return
    for match in islice(_FIELD.finditer(stream), _MAX_FIELDS):
        instruction = match.group()[1:].replace(b"\x00", b"").decode("latin-1")
        if _DDE.match(instruction):
            findings.see_dde(instruction)
        elif instruction.lstrip().upper().startswith("HYPERLINK"):
            url = _URL.search(instruction)
            if url is not None:
                findings.target(Target("office_link", url.group()))


def _workbook(stream: bytes, findings: Findings) -> None:
    for kind, body in _records(stream):
        if kind == _FILEPASS:
            findings.see("encrypted", "the whole workbook")
            return
        if kind == _BOUNDSHEET and len(body) >= 8:
            visibility, sheet = body[4] & 3, body[5]
            name = body[8 : 8 + 62].replace(b"\x00", b"").decode("latin-1")[: body[6]]
            if sheet == _MACRO_SHEET:
                findings.see("xlm_macros", name)
            if visibility == _VERY_HIDDEN:
                findings.see("hidden_sheet", name)
        elif kind == _NAME and len(body) >= 16 and struct.unpack_from("<H", body)[0] & _BUILT_IN:
            # What is built in is named by one number, behind a byte that says how it is written (BIFF 8) or not (5).
            if {_AUTO_OPEN, _AUTO_CLOSE} & set(body[14:16]) and body[3] == 1:
                findings.see("auto_exec", "Auto_Open")
        elif kind == _SUPBOOK and b"\x03" in body[4:300]:
            findings.see_dde(body[4:300].replace(b"\x00", b"").replace(b"\x03", b" ").decode("latin-1"))


def _records(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, beginning of its body) of the records that say something here; most are cells."""
    position = 0
    for _ in range(_MAX_RECORDS):
        if position + 4 > len(stream):
            return
        kind, length = _RECORD.unpack_from(stream, position)
        position += 4
        if kind in _READ_RECORDS:
            yield (kind, stream[position : position + min(length, 400)])
        position += length
