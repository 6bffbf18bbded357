"""Framing as the grammar says it, over a whole stream at once: slow, plain, and written without a look at ``wire``.

What `Framer` must agree with, wherever the stream was cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mailmill.imap.limits import Limits

_STATUS_WORDS = (b"OK", b"NO", b"BAD")
_UNTAGGED_STATUS_WORDS = (*_STATUS_WORDS, b"BYE", b"PREAUTH")


@dataclass(slots=True)
class Framed:
    """``responses`` are parts as of `Framer`. ``rest`` is where the unfinished response begins, or the end.

    ``breached`` says that a cap was; the responses are then those before it.
    """

    responses: list[list[bytes]] = field(default_factory=list)
    rest: int = 0
    breached: bool = False


def frame(stream: bytes, limits: Limits) -> Framed:
    """Every byte before ``rest`` is in a response, in a literal's mark, in a line end, or a blank line."""
    framed = Framed()
    position = 0
    parts: list[bytes] = []
    held = 0
    forgiven = False
    while True:
        newline = stream.find(b"\n", position)
        if newline < 0:
            framed.breached = len(stream) - position > limits.line_bytes + 1
            return framed
        line = stream[position:newline].removesuffix(b"\r")
        position = newline + 1
        if len(line) > limits.line_bytes:
            framed.breached = True
            return framed
        if not line and not parts:
            framed.rest = position
            continue
        if not line and not forgiven and _depth(b" ".join(parts[::2])) > 0:
            forgiven = True
            continue
        held += len(line)
        if held > limits.response_bytes:
            framed.breached = True
            return framed
        mark = _mark(line)
        if mark is None or (not parts and _speaks_to_people(line)):
            framed.responses.append([*parts, line])
            framed.rest = position
            parts, held, forgiven = [], 0, False
            continue
        start, size = mark
        held += size
        if size > limits.literal_bytes or held > limits.response_bytes or len(parts) >= 2 * limits.literals:
            framed.breached = True
            return framed
        if position + size > len(stream):
            return framed
        parts += [line[:start], stream[position : position + size]]
        position += size
        forgiven = False


def _mark(line: bytes) -> tuple[int, int] | None:
    """Where ``{n}``, ``{n+}`` or ``~{n}`` at the end of a line begins, and its n."""
    if not line.endswith(b"}"):
        return None
    start = line.rfind(b"{")
    digits = line[start + 1 : -1].removesuffix(b"+")
    if start < 0 or not 1 <= len(digits) <= 20 or any(byte not in b"0123456789" for byte in digits):
        return None
    return (start - 1 if line[start - 1 : start] == b"~" else start), int(digits)


def _speaks_to_people(line: bytes) -> bool:
    """Whether a line is a status, a tagged or a continuation one: its end is free text."""
    if line.startswith(b"+"):
        return True
    first, space, rest = line.partition(b" ")
    word = rest.lstrip(b" ").partition(b" ")[0].upper()
    if not space or not first:
        return False
    if first == b"*":
        return word in _UNTAGGED_STATUS_WORDS
    return b"*" not in first and word in _STATUS_WORDS


def _depth(text: bytes) -> int:
    """How many lists are open where quoted strings do not count. A quote that is never closed quotes nothing."""
    depth = position = 0
    while position < len(text):
        byte = text[position : position + 1]
        if byte == b'"':
            end = _end_of_quoted(text, position + 1)
            if end is not None:
                position = end
                continue
        depth += (byte == b"(") - (byte == b")")
        position += 1
    return depth


def _end_of_quoted(text: bytes, position: int) -> int | None:
    while position < len(text):
        byte = text[position : position + 1]
        if byte == b'"':
            return position + 1
        position += 2 if byte == b"\\" else 1
    return None
