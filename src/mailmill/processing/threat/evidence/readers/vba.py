"""Macro sources: taken out of a module's stream ([MS-OVBA] 2.4.1), and what in them starts by itself or starts others.

Nothing is run or emulated: what is looked at is which names and calls a source holds.
"""

from __future__ import annotations

import re
import struct

MAX_SOURCE_BYTES = 1 << 20

# A module's source begins 'Attribute VB_Name'; packed, that is a flag byte, eight letters, a flag byte, and the rest.
# So it is found without the directory of the project, also in one that is broken on purpose.
PACKED_START = b"\x00Attribut\x00e"
_CHUNK_BYTES = 4_096
_CHUNK_SIGNATURE = 3

_AUTO_EXEC = re.compile(
    r"\b(?:auto_?(?:open|close|exec|exit|new)|document_?(?:open|close|new)|documentbeforeclose"
    r"|workbook_(?:open|close|beforeclose|activate)|presentation_?open|slideshow_?begin|app_documentopen"
    r"|\w{1,60}_(?:onconnecting|layout|gotfocus|mousemove|painted|onloadcomplete))\b",
    re.IGNORECASE,
)
_CALLS = re.compile(
    r"\b(?:shell(?:execute[aw]?|_?application)?(?=\s{0,5}[(\"&]|\s{1,5}\w)|wscript\.shell|shell\.application|powershell"
    r"|pwsh|cmd(?:\.exe)?\s{0,3}/c|mshta|rundll32|regsvr32|certutil|bitsadmin|wmic|winmgmts|win32_process"
    r"|urldownloadtofile[aw]?|(?:server)?xmlhttp|winhttprequest|adodb\.stream|createprocess[aw]?|createremotethread"
    r"|createthread|virtualalloc(?:ex)?|rtlmovememory|writeprocessmemory|schedule\.service|macscript"
    r"|libc\.dylib)",
    re.IGNORECASE,
)
_COMMENT_LINE = re.compile(r"^\s{0,80}(?:'|rem\s).*$", re.IGNORECASE | re.MULTILINE)


def source_of(module: bytes) -> str:
    """The source that a module's stream holds, at most ``MAX_SOURCE_BYTES`` of it; "" if there is none (left out so
    that only the compiled form is there, or no module)."""
    at = module.find(PACKED_START)
    if at < 3 or module[at - 3] != 1:
        return ""
    return decompress(module[at - 3 :], MAX_SOURCE_BYTES).decode("latin-1")


def decompress(container: bytes, most: int) -> bytes:
    """A compressed container ([MS-OVBA] 2.4.1.3), as far as it is whole, at most ``most`` bytes and a chunk."""
    out = bytearray()
    position = 1
    while position + 2 <= len(container) and len(out) < most:
        header = struct.unpack_from("<H", container, position)[0]
        if header >> 12 & 7 != _CHUNK_SIGNATURE:
            break
        end = min(position + (header & 0x0FFF) + 3, len(container))
        if header >> 15:
            _decompress_chunk(container, position + 2, end, out)
        else:
            out += container[position + 2 : position + 2 + _CHUNK_BYTES]
        position = end
    return bytes(out)


def _decompress_chunk(container: bytes, position: int, end: int, out: bytearray) -> None:
    begin = len(out)
    while position < end:
        flags = container[position]
        position += 1
        if not flags:
            out += container[position : min(position + 8, end)]
            position += 8
            continue
        for bit in range(8):
            if position >= end:
                return
            if not flags >> bit & 1:
                out.append(container[position])
                position += 1
                continue
            if position + 2 > end:
                return
            token = container[position] | container[position + 1] << 8
            position += 2
            have = len(out) - begin
            offset_bits = max(4, (have - 1).bit_length()) if have else 4
            length = (token & (0xFFFF >> offset_bits)) + 3
            offset = (token >> (16 - offset_bits)) + 1
            if offset > have or have + length > _CHUNK_BYTES:
                return
            start = len(out) - offset
            copied = out[start : start + length]
            # A copy that reads what it writes repeats itself.
            out += copied if offset >= length else (copied * (length // offset + 1))[:length]


def judge(source: str) -> dict[str, str]:
    """``auto_exec``: names that run when the file is opened or closed; ``macro_calls``: calls that start programs or
    fetch something. Comment lines say nothing."""
    source = _COMMENT_LINE.sub("", source[:MAX_SOURCE_BYTES])
    seen: dict[str, str] = {}
    for word, pattern in (("auto_exec", _AUTO_EXEC), ("macro_calls", _CALLS)):
        found = dict.fromkeys(match.group().lower().strip() for match in pattern.finditer(source))
        if found:
            seen[word] = ", ".join(list(found)[:8])
    return seen
