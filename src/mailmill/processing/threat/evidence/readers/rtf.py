"""RTF: objects within, in the hexadecimal that Word takes however it is broken up; fields; templates from elsewhere.

Source: RTF 1.9.1 ("Objects", "Fields"); [MS-OLEDS] 2.2. The text is searched, not laid out.
"""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import accumulate
from typing import Final

from mailmill.processing.threat.evidence.attached_files import kind_of
from mailmill.processing.threat.evidence.inside import Target
from mailmill.processing.threat.evidence.names_within import seen_in_names
from mailmill.processing.threat.evidence.readers.findings import Findings

MAX_BYTES: Final = 8 << 20
MAX_OBJECTS: Final = 50
MAX_OBJECT_BYTES: Final = 1 << 20
MAX_FIELDS: Final = 1_000

_OBJECT = re.compile(rb"\\objdata\b")
_UPDATES = re.compile(rb"\\objupdate\b|\\objautlink\b", re.IGNORECASE)
_TEMPLATE = re.compile(rb"\\\*\s{0,5}\\template\s{1,5}((?:https?|ftp|\\\\\\\\)[^{}\s]{3,1000})", re.IGNORECASE)
_FIELD = re.compile(rb"\\fldinst\b([^}]{0,2000})")
_CONTROL = re.compile(rb"\\[a-z]{1,32}-?\d{0,10} ?|[{}\r\n]", re.IGNORECASE)
_CONTROL_WORD = re.compile(rb"\\[a-z]{1,32}-?\d{0,10} ?", re.IGNORECASE)
_DEPTH: Final = bytes({ord("{"): 1, ord("}"): 0xFF}.get(one, 0) for one in range(256))  # as signed numbers: 1, -1, 0
_NOT_HEX: Final = bytes(set(range(256)) - set(b"0123456789abcdefABCDEF"))
_DDE = re.compile(r"\bDDE(?:AUTO)?\s.{0,300}", re.IGNORECASE | re.DOTALL)
_URL = re.compile(r"https?://[^\s\"'<>\\]{3,1900}", re.IGNORECASE)
_UTF16_URL = re.compile(rb"h\x00t\x00t\x00p\x00(?:s\x00)?:\x00(?:[\x21-\x7e]\x00){3,500}", re.IGNORECASE)
_EQUATION = re.compile(rb"equation\.[23]|\x02\xce\x02\x00\x00\x00\x00\x00\xc0\x00", re.IGNORECASE)
_OLE_LINK = re.compile(rb"ole2link", re.IGNORECASE)
_PACKAGE = re.compile(rb"package\x00", re.IGNORECASE)
_NAME = re.compile(rb"[\w .()-]{1,200}\.[A-Za-z0-9]{1,8}(?=\x00)")


def read_rtf(content: bytes, findings: Findings) -> None:
    content = content[:MAX_BYTES]
    template = _TEMPLATE.search(content)
    if template is not None:
        findings.see("remote_template", template.group(1).decode("latin-1"))
    _fields(content, findings)
    position = objects = 0
    while objects < MAX_OBJECTS:
        match = _OBJECT.search(content, position)
        if match is None:
            break
        objects += 1
        position = _object(content, match.end(), findings)
    if objects and _UPDATES.search(content):
        findings.see("object_updates", "an object that is opened with the document")


def _fields(content: bytes, findings: Findings) -> None:
    for number, match in enumerate(_FIELD.finditer(content)):
        if number >= MAX_FIELDS:
            return
        instruction = _CONTROL.sub(b"", match.group(1)).decode("latin-1")
        command = _DDE.search(instruction)
        if command is not None:
            findings.see_dde(command.group())
        elif "HYPERLINK" in instruction.upper():
            url = _URL.search(instruction)
            if url is not None:
                findings.target(Target("office_link", url.group()))


def _object(content: bytes, start: int, findings: Findings) -> int:
    """The hexadecimal up to the end of the group, which is returned; control words and groups within it are what hides
    it."""
    piece = content[start : start + 2 * MAX_OBJECT_BYTES]
    end = start + _end_of_group(piece)
    digits = _CONTROL_WORD.sub(b"", piece[: end - start]).translate(None, _NOT_HEX)
    data = bytes.fromhex(digits[: len(digits) & ~1].decode("ascii"))
    names = [match.group().decode("latin-1") for match in re.finditer(_NAME, data[:4_096])]
    start_of_program = data.find(b"MZ", 0, 1 << 16)
    if _EQUATION.search(data[: 1 << 16]):
        findings.see("equation_editor", "an object of the old equation editor")
    if _OLE_LINK.search(data[:4_096]):
        url = _UTF16_URL.search(data)
        findings.see("outside_object", url.group().decode("utf-16-le") if url else "a link to another file")
    if _PACKAGE.search(data[:4_096]):
        told = seen_in_names(names)
        program = start_of_program > 0 and kind_of(data[start_of_program:]) == "program"
        word = "embedded_program" if program or told.keys() & {"program", "script", "shortcut"} else "embedded_file"
        findings.see(word, names[0] if names else "a file within")
    findings.see("embedded_object", f"{len(data):,} bytes")
    return end


def _end_of_group(piece: bytes) -> int:
    """Where the group that ``piece`` begins within is closed, or its length. In C's loops: a file can be all braces."""
    with suppress(ValueError):
        return list(accumulate(memoryview(piece.translate(_DEPTH)).cast("b"), initial=1)).index(0) - 1
    return len(piece)
