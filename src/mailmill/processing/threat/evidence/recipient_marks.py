"""A recipient's address inside a link, as written, percent-encoded, in hexadecimal or in base64. Pure and bounded."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterable
from urllib.parse import unquote

MAX_CHARS = 2_000
_MAX_WORDS = 12
_WORD = re.compile(r"[A-Za-z0-9+_-]{8,600}={0,2}")
_SHORTEST_LOCAL = 3


def carries(text: str, addresses: Iterable[str]) -> str:
    """The first of the addresses (lower case) that a part of a URL carries, or "".

    Local part and domain count as the address where they stand apart.
    """
    readings = _readings(text[:MAX_CHARS])
    for address in addresses:
        local, _, domain = address.partition("@")
        if not local or "." not in domain:
            continue
        for reading in readings:
            if address in reading:
                return address
            if len(local) >= _SHORTEST_LOCAL and domain in reading and local in reading.replace(domain, ""):
                return address
    return ""


def _readings(text: str) -> list[str]:
    plain = unquote(unquote(text))
    readings = [plain.lower()]
    for piece in (text, plain) if plain != text else (text,):
        for word in _WORD.findall(piece)[:_MAX_WORDS]:
            readings.extend(_decoded(word))
    return readings


def _decoded(word: str) -> list[str]:
    bare = word.rstrip("=").replace("+", "-")
    found = []
    with contextlib.suppress(ValueError, binascii.Error):
        found.append(base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4)).decode("ascii", "ignore").lower())
    with contextlib.suppress(ValueError):
        found.append(bytes.fromhex(bare).decode("ascii", "ignore").lower())
    return [one for one in found if "@" in one or "." in one]
