"""The walk over the parts of a message (RFC 2046) and their transfer encodings (RFC 2045 §6): one pass, no recursion.

The walk keeps a stack of open multiparts and goes from one delimiter line to the next. A delimiter is a line ``--b`` or
``--b--`` where ``b`` is the boundary of any open multipart, so an inner multipart that never ends cannot swallow its
parent's parts. Each byte is looked at once, whatever the nesting.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mailmill.message_parser.fields import Field, find_block, skip_block, split_fields
from mailmill.message_parser.structured import parse_parameters
from mailmill.message_parser.values import Caps

MAX_BOUNDARY_BYTES: Final = 250
"""RFC 2046 §5.1.1 says 70; real mail goes beyond."""

PART_HEADER_BYTES: Final = 64 << 10
"""How far the blank line after a part's header is looked for, once per part."""

MAX_PADDED_SEGMENTS: Final = 10_000

_NOT_BASE64: Final = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_FIRST_DASHES: Final = re.compile(rb"[\r\n]{0,4}--([^\r\n]{1,250})\r?\n")
_CONTENT_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")


@dataclass(slots=True)
class Part:
    """A leaf as found: where its body lies in the raw bytes and what its header says. ``path`` is IMAP's part path."""

    path: str
    start: int
    end: int
    content_type: str
    parameters: dict[str, str]
    encoding: str
    disposition: str
    disposition_parameters: dict[str, str]
    content_id: str
    parent: str  # the subtype of the multipart it stands in, or empty

    @property
    def filename(self) -> str:
        return self.disposition_parameters.get("filename") or self.parameters.get("name", "")

    @property
    def charset(self) -> str:
        return self.parameters.get("charset", "")


@dataclass(slots=True)
class _Multipart:
    path: str
    subtype: str
    boundary: bytes
    shadowed: int | None  # the level this one's boundary stood for before: a message may use one twice
    part: Part  # itself, should it turn out to have no delimiter at all
    children: int = 0


def find_parts(raw: bytes, fields: list[Field], body: int, caps: Caps, defects: list[str]) -> list[Part]:
    """The leaves of a message in order, given its top header ``fields`` and where its ``body`` begins."""
    return list(_Walk(raw, caps, defects).leaves(fields, body))


class _Walk:
    def __init__(self, raw: bytes, caps: Caps, defects: list[str]) -> None:
        self.raw = raw
        self.caps = caps
        self.defects = defects
        self.stack: list[_Multipart] = []
        self.levels: dict[bytes, int] = {}
        self.candidates = 0
        self.found = 0

    def leaves(self, fields: list[Field], body: int) -> Iterator[Part]:
        part: Part | None = self._describe(fields, "", "", body)
        if part is not None and not self._open(part):
            part.path = "1"
            part.end = len(self.raw)
            yield part
            return
        part = None  # now in the preamble of the multipart that was opened
        position = body
        while self.stack:
            line, level, closing, after = self._next_delimiter(position)
            if part is not None:
                part.end = max(part.start, _before_line_end(self.raw, line))
                yield part
                part = None
            while len(self.stack) > level + 1:
                yield from self._close("a multipart has no closing delimiter")
            if level < 0:
                return
            if closing:
                yield from self._close("")
                position = after
                continue
            if self.found >= self.caps.parts:
                self.defects.append(f"more than {self.caps.parts} parts: the rest was not read")
                return
            part, position = self._begin(self.stack[level], after)

    def _begin(self, parent: _Multipart, start: int) -> tuple[Part | None, int]:
        """Read the header of a child of ``parent``: the leaf it begins, or None for a multipart, now open."""
        self.found += 1
        parent.children += 1
        raw = self.raw
        block = find_block(raw, start, len(raw), min(self.caps.header_bytes, PART_HEADER_BYTES))
        end, body = block.end, block.body
        if block.truncated or raw.find(b"--", start, end) >= 0:
            # A header that runs into a delimiter has no body: the delimiter must not be read as a field.
            line, level, _, _ = self._next_delimiter(start, None if block.truncated else end)
            if block.truncated and line > end:
                self.defects.append("a part's header is too long: the rest of it was not read")
                body = skip_block(raw, end, line)
            elif level >= 0:
                end = body = line
        fields, _ = split_fields(raw[start:end], self.caps.header_fields)
        path = f"{parent.path}.{parent.children}" if parent.path else str(parent.children)
        part = self._describe(fields, path, parent.subtype, body)
        return (None if self._open(part) else part), body

    def _describe(self, fields: list[Field], path: str, parent: str, body: int) -> Part:
        content_type = "message/rfc822" if parent == "digest" else "text/plain"  # RFC 2046 §5.1.5
        part = Part(path, body, len(self.raw), content_type, {}, "", "", {}, "", parent)
        seen: set[str] = set()
        for name, value in fields:
            key = name.lower()
            if not key.startswith("content-") or key in seen:
                continue
            seen.add(key)
            if key == "content-type":
                stated, part.parameters = parse_parameters(value)
                if _CONTENT_TYPE.fullmatch(stated):
                    part.content_type = stated[:200]
                elif stated != "text":
                    self.defects.append("a content type is malformed: taken as text/plain")  # RFC 2045 §5.2
            elif key == "content-transfer-encoding":
                part.encoding = value.partition(";")[0].partition("(")[0].strip().lower()
            elif key == "content-disposition":
                part.disposition, part.disposition_parameters = parse_parameters(value)
            elif key == "content-id":
                part.content_id = value[:998]
        return part

    def _open(self, part: Part) -> bool:
        """Open ``part`` if it is a multipart that can be walked. Else it stays a leaf: nothing is hidden."""
        if not part.content_type.startswith("multipart/"):
            return False
        boundary = part.parameters.get("boundary", "").encode("utf-8", "surrogateescape").rstrip()
        if not boundary and (guess := _FIRST_DASHES.match(self.raw, part.start, part.start + 2_000)) is not None:
            self.defects.append("a multipart names no boundary: taken from its first line")
            boundary = guess[1].rstrip()
        if not boundary or len(boundary) > MAX_BOUNDARY_BYTES:
            self.defects.append("a multipart names no usable boundary: read as text")
            part.content_type = "text/plain"
            return False
        if len(self.stack) >= self.caps.depth:
            self.defects.append(f"multiparts nested deeper than {self.caps.depth}: kept as an attachment")
            return False
        shadowed = self.levels.get(boundary)
        self.levels[boundary] = len(self.stack)
        self.stack.append(_Multipart(part.path, part.content_type[10:], boundary, shadowed, part))
        return True

    def _close(self, odd: str) -> Iterator[Part]:
        """Close the innermost multipart. One that never had a part is text as a whole."""
        multipart = self.stack.pop()
        if multipart.shadowed is None:
            del self.levels[multipart.boundary]
        else:
            self.levels[multipart.boundary] = multipart.shadowed
        if odd:
            self.defects.append(odd)
        if multipart.children == 0:
            part = multipart.part
            line, _, _, _ = self._next_delimiter(part.start)
            part.end = max(part.start, _before_line_end(self.raw, line))
            part.content_type = "text/plain"
            part.path = part.path or "1"
            self.defects.append("a multipart has no part: read as text")
            yield part

    def _next_delimiter(self, position: int, stop: int | None = None) -> tuple[int, int, bool, int]:
        """The next delimiter line at or after the line ``position`` begins: (start, level, closing, after the line).

        Level -1 means there is none: start is then the end of the message.
        """
        raw = self.raw
        size = len(raw) if stop is None else stop
        at = position if raw.startswith(b"--", position) else _next_dashes(raw, position, size)
        while 0 <= at < size:
            self.candidates += 1
            if self.candidates > self.caps.delimiters:
                self.defects.append("too many lines look like delimiters: the rest was not read")
                break
            end = raw.find(b"\n", at)
            if end < 0:
                end = len(raw)
            if end - at <= MAX_BOUNDARY_BYTES + 20:
                token = raw[at + 2 : end].rstrip(b" \t\r")
                level = self.levels.get(token)
                if level is not None:
                    return at, level, False, min(end + 1, len(raw))
                if token.endswith(b"--") and (level := self.levels.get(token[:-2].rstrip(b" \t"))) is not None:
                    return at, level, True, min(end + 1, len(raw))
            at = _next_dashes(raw, end, size)
        return len(raw), -1, False, len(raw)


def _next_dashes(raw: bytes, position: int, stop: int) -> int:
    """The start of the next line after ``position`` that begins with ``--``, or -1."""
    at = raw.find(b"\n--", max(0, position - 1), stop)
    return at + 1 if at >= 0 else -1


def _before_line_end(raw: bytes, line: int) -> int:
    """The end of the content before a delimiter line: the line break before it belongs to the delimiter (§5.1.1)."""
    if line >= len(raw) or raw[line : line + 2] != b"--":
        return line
    if raw.endswith(b"\r\n", 0, line):
        return line - 2
    return line - 1 if raw.endswith(b"\n", 0, line) else line


def decode_transfer(data: bytes, encoding: str) -> tuple[bytes, str | None]:
    """Undo a content transfer encoding; what was odd in words, or None. An unknown encoding leaves the bytes alone."""
    if encoding == "base64":
        return _decode_base64(data)
    if encoding in ("quoted-printable", "quoted_printable"):
        return binascii.a2b_qp(data), None
    if encoding in ("", "7bit", "8bit", "binary", "none"):
        return data, None
    return data, "unknown content transfer encoding: kept as it came"


def _decode_base64(data: bytes) -> tuple[bytes, str | None]:
    """Everything that can be had from base64, however broken.

    Padding in the middle does not end the data here, though it does for ``binascii``: two encoded pieces put together
    are both shown, so that a part cannot hide its second half behind an ``=``.
    """
    kept = data.translate(None, _NOT_BASE64)
    if len(kept) % 4 == 0 and kept.find(b"=", 0, len(kept) - 2) < 0:
        try:
            return binascii.a2b_base64(kept), None
        except binascii.Error:
            pass
    decoded = bytearray()
    for segment in kept.split(b"=", MAX_PADDED_SEGMENTS)[:MAX_PADDED_SEGMENTS]:
        if len(segment) % 4 == 1:
            segment = segment[:-1]
        decoded += binascii.a2b_base64(segment + b"=" * (-len(segment) % 4))
    return bytes(decoded), "base64 is corrupt: what could be read was kept"
