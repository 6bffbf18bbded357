"""Modified UTF-7, the encoding of mailbox names (RFC 3501 §5.1.3)."""

from __future__ import annotations

import binascii
import re

_SHIFTED = re.compile(rb"&([^-]*)-")
_TO_SHIFT = re.compile(r"&|[^\x20-\x7e]+")


def encode(name: str) -> bytes:
    """The name as it goes on the wire: printable ASCII whatever ``name`` holds, control characters included."""

    def shift(match: re.Match[str]) -> str:
        text = match[0]
        if text == "&":
            return "&-"
        packed = binascii.b2a_base64(text.encode("utf-16-be"), newline=False)
        return "&" + packed.rstrip(b"=").replace(b"/", b",").decode("ascii") + "-"

    return _TO_SHIFT.sub(shift, name).encode("ascii")


def decode(raw: bytes) -> str:
    """The name that ``raw`` encodes; raw UTF-8 (RFC 6855) is taken too. Raises ValueError on anything else."""
    if b"&" not in raw:
        return raw.decode("utf-8")
    text: list[str] = []
    end = 0
    for match in _SHIFTED.finditer(raw):
        text.append(_plain(raw[end : match.start()]))
        text.append(_unshift(match[1]) if match[1] else "&")
        end = match.end()
    text.append(_plain(raw[end:]))
    return "".join(text)


def _plain(raw: bytes) -> str:
    if b"&" in raw:
        raise ValueError("a shift sequence is not closed")
    return raw.decode("utf-8")


def _unshift(packed: bytes) -> str:
    if b"/" in packed or b"=" in packed:
        raise ValueError("not modified base64")
    padded = packed.replace(b",", b"/") + b"=" * (-len(packed) % 4)
    return binascii.a2b_base64(padded, strict_mode=True).decode("utf-16-be")
