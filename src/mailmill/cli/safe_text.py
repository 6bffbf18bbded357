"""Text from mail and servers, made harmless and short for a terminal. Pure.

A terminal obeys what it prints: escape sequences can move the cursor, set the title or fake a prompt, and bidirectional
controls reorder what is read. None of them passes.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

_C0 = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
_REPLACED = "\ufffd"
_DANGEROUS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f"  # C0 but tab and newline, and DEL
    "\x80-\x9f"  # C1: 0x9b is CSI in one character
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line separators and bidirectional controls
    "\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"  # surrogates, annotations, tags
)


def neutral(text: str) -> str:
    """``text`` with every control character but newline and tab shown as a picture of itself or as U+FFFD."""
    text = text.replace("\r\n", "\n")
    return _DANGEROUS.sub(lambda match: _C0.get(ord(match[0]), _REPLACED), text)


def one_line(text: str, limit: int | None = None) -> str:
    """``neutral`` on one line, runs of blanks made one; cut with an ellipsis at ``limit`` characters."""
    line = " ".join(neutral(text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def json_escaped(document: str) -> str:
    """A JSON document with the same characters as ``\\uXXXX``. They can only stand inside its strings."""

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        if character in "\n\r":  # between tokens; inside strings the encoder has escaped them
            return character
        return "".join(f"\\u{int.from_bytes(pair, 'big'):04x}" for pair in _utf16_units(character))

    return _DANGEROUS.sub(escape, document)


def _utf16_units(character: str) -> list[bytes]:
    encoded = character.encode("utf-16-be", "surrogatepass")
    return [encoded[start : start + 2] for start in range(0, len(encoded), 2)]


def size(size_bytes: float | None) -> str:
    """``1536`` → ``1.5 KiB``; None → ``-``."""
    if size_bytes is None:
        return "-"
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: float | None) -> str:
    """``0.0123`` → ``12 ms``, ``75`` → ``1 min``; None → ``-``."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit_seconds, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit_seconds * (1 if unit != "d" else 2):
            return f"{seconds / unit_seconds:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(iso: str | None) -> str:
    """An ISO 8601 time as local ``2026-05-04 13:37``; what is none is shown as it is."""
    parsed = _parse(iso)
    return parsed.astimezone().strftime("%Y-%m-%d %H:%M") if parsed else one_line(iso or "-")


def ago(iso: str | None, now: float | None = None) -> str:
    """How long ago an ISO 8601 time was: ``3.0 s ago``; ``never`` for None."""
    parsed = _parse(iso)
    if parsed is None:
        return "never" if not iso else one_line(iso)
    seconds = (time.time() if now is None else now) - parsed.timestamp()
    return "now" if seconds < 1 else f"{duration(seconds)} ago"


def _parse(iso: str | None) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(iso or "")
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
