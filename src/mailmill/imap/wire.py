"""Framing: bytes in, complete responses out. No meaning, no I/O.

What comes out is either one response or a *run*: some plain lines, each a response, still in one piece. A response is a
list of *parts*: text, literal, text, literal, …, text. The text parts carry neither the ``{n}`` marker of the literal
that follows nor the line end, so ``len(parts)`` is always odd and ``parts[1::2]`` are the literals.

Laws of this file:

- One pass over the bytes. What was searched for a line end is not searched again, so a response dripped byte by byte
  costs as much as one that comes at once.
- A literal follows only where the grammar has one: the human text of a status response may end in ``{3}`` and means
  nothing by it (RFC 9051 §7.1), so status, tagged and continuation lines are never followed by a literal.
- Every cap is checked before the bytes are held; a breach raises `LimitError` and the framer is dead. Where a breach
  lies does not depend on how the stream was cut.
- Plain lines come by the hundred thousand, so those that lie in the buffer together come out together, and whoever
  reads them splits and understands them in one go. A run is never so long that reading it would hold up the loop.
- A literal above ``stream_above_bytes`` goes chunk by chunk into a sink; its part is what ``finish`` returned.

The buffer is made for ``asyncio.BufferedProtocol``: the transport writes into `get_buffer` and calls `received`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from mailmill.errors import LimitError
from mailmill.imap.limits import DEFAULT_LIMITS, Limits


class Spooled(Protocol):
    """What stands in a response for a literal that went to a sink: ``size_bytes`` bytes, kept elsewhere."""

    @property
    def size_bytes(self) -> int: ...

    def discard(self) -> None:
        """Nobody wants it: free what holds it. May be called more than once; never raises."""


class LiteralSink(Protocol):
    """Takes one literal in chunks. ``write`` must not block; the chunks are its own to keep."""

    def write(self, chunk: bytes) -> None: ...

    def finish(self) -> Spooled: ...

    def abort(self) -> None: ...


Part = bytes | Spooled
Parts = list[Part]
Framed = Parts | bytes
"""One response, or a run: whole lines, none with a literal, each with its line end (LF, with or without CR)."""
OpenSink = Callable[[int], LiteralSink]

_SMALL_BUFFER_BYTES = 8 * 1024
_RUN_BYTES = 16 * 1024
_LITERAL_MARK = re.compile(rb"~?\{(\d{1,20})\+?\}\Z")
_NO_LITERAL = re.compile(
    rb"(?:\*[ ]+(?:OK|NO|BAD|BYE|PREAUTH)(?:[ ]|\Z)|\+|[^* ]+[ ]+(?:OK|NO|BAD)(?:[ ]|\Z))", re.IGNORECASE
)
_QUOTED = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


class Framer:
    """Turns the byte stream of one connection into responses. Not reusable after an error."""

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        *,
        open_sink: OpenSink | None = None,
        stream_above_bytes: int | None = None,
    ) -> None:
        self._limits = limits
        self._open_sink = open_sink
        self._stream_above = (
            limits.literal_bytes if stream_above_bytes is None or open_sink is None else stream_above_bytes
        )
        self._buffer = bytearray(min(_SMALL_BUFFER_BYTES, limits.receive_buffer_bytes))
        self._view = memoryview(self._buffer)
        self._start = 0
        self._scan = 0
        self._end = 0
        self._parts: Parts = []
        self._held_bytes = 0
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._missing = -1
        self._sink: LiteralSink | None = None
        self._literal: list[bytes] = []
        self._blank_forgiven = False

    @property
    def mid_response(self) -> bool:
        """Whether bytes are held that are not part of a response already returned."""
        return bool(self._parts or self._line or self._end > self._start)

    def get_buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._start == self._end:
            self._start = self._scan = self._end = 0
        capacity = len(self._buffer)
        if capacity - self._end < capacity // 4:
            self._move_to_front()
        return self._view[self._end :]

    def received(self, count: int) -> list[Framed]:
        """``count`` bytes were written into the last `get_buffer`. Returns what is now complete, in order.

        Raises LimitError, and drops what came complete in the same read: the connection is worth nothing then. Sinks
        of an unfinished literal are freed by `abort`, which the caller owes on every error.
        """
        filled_up = count == len(self._buffer) - self._end
        self._end += count
        framed: list[Framed] = []
        try:
            self._frame(framed)
        except LimitError:
            for each in framed:
                discard(each)
            raise
        if filled_up and len(self._buffer) < self._limits.receive_buffer_bytes:
            self._resize(self._limits.receive_buffer_bytes)
        return framed

    def _frame(self, framed: list[Framed]) -> None:
        while True:
            if self._missing >= 0:
                if not self._take_literal():
                    break
                continue
            newline = self._buffer.find(b"\n", self._scan, self._end)
            if newline < 0:
                self._scan = self._end
                self._hold_line()
                break
            if not self._parts and not self._line and self._take_run(newline, framed):
                continue
            stop = newline - 1 if newline > self._start and self._buffer[newline - 1] == 13 else newline
            line = bytes(self._view[self._start : stop])
            split_line_end = newline == self._start
            self._start = self._scan = newline + 1
            if self._line or len(line) > self._limits.line_bytes:
                line = self._join_line(line, split_line_end=split_line_end)
            if self._take_line(line):
                framed.append(self._parts)
                self._parts = []
                self._held_bytes = 0
                self._blank_forgiven = False

    def feed(self, data: bytes) -> list[Framed]:
        """`get_buffer` and `received` for bytes that are already at hand. After a LimitError none of it stands."""
        framed: list[Framed] = []
        position = 0
        while position < len(data):
            room = self.get_buffer()
            count = min(len(room), len(data) - position)
            room[:count] = data[position : position + count]
            try:
                framed += self.received(count)
            except LimitError:
                for each in framed:
                    discard(each)
                raise
            position += count
        return framed

    def shrink(self) -> None:
        """Give back the large buffer where nothing is held: an idle connection costs a few KiB."""
        if self._start == self._end and len(self._buffer) > _SMALL_BUFFER_BYTES:
            self._resize(_SMALL_BUFFER_BYTES)

    def abort(self) -> None:
        """The stream ended. Frees the sink of a literal under way and what unfinished responses hold in others."""
        if self._sink is not None:
            self._sink.abort()
            self._sink = None
        discard(self._parts)
        self._parts = []

    # -- lines ---------------------------------------------------------------------------------------------------------

    def _take_run(self, newline: int, framed: list[Framed]) -> bool:
        """Take the lines from here to the first that may announce a literal, if they are several. ``newline`` ends the
        first of them.
        """
        most = min(_RUN_BYTES, self._limits.line_bytes, self._limits.response_bytes)
        end = min(self._end, self._start + most)
        brace = self._buffer.find(b"}", self._start, end)
        stop = self._buffer.rfind(b"\n", newline + 1, end if brace < 0 else brace) + 1
        if not stop:
            return False
        framed.append(bytes(self._view[self._start : stop]))
        self._start = self._scan = stop
        return True

    def _take_line(self, line: bytes) -> bool:
        """A whole line has come. True if it ends its response."""
        parts = self._parts
        if not line:
            if not parts:
                return False
            # Some servers count the line end that follows a literal into nothing: a blank line, then the rest.
            if not self._blank_forgiven and _open_lists(parts) > 0:
                self._blank_forgiven = True
                return False
        self._hold(len(line))
        if line.endswith(b"}"):
            mark = _LITERAL_MARK.search(line, max(0, len(line) - 24))
            if mark is not None and (parts or not _NO_LITERAL.match(line)):
                self._begin_literal(line[: mark.start()], int(mark[1]))
                return False
        parts.append(line)
        return True

    def _hold(self, count: int) -> None:
        self._held_bytes += count
        if self._held_bytes > self._limits.response_bytes:
            raise LimitError(f"the server sent a response of more than {self._limits.response_bytes} bytes")

    def _hold_line(self) -> None:
        held = self._end - self._start
        # One more than the cap: the last may be the CR of a line end.
        if self._line_bytes + held > self._limits.line_bytes + 1:
            raise LimitError(f"the server sent a line of more than {self._limits.line_bytes} bytes")
        if held > len(self._buffer) // 2:
            self._line.append(bytes(self._view[self._start : self._end]))
            self._line_bytes += held
            self._start = self._scan = self._end

    def _join_line(self, rest: bytes, *, split_line_end: bool) -> bytes:
        """``split_line_end``: the LF came alone, so that its CR still stands at the end of the earlier piece."""
        self._line.append(rest)
        line = b"".join(self._line)
        self._line = []
        self._line_bytes = 0
        if split_line_end:
            line = line.removesuffix(b"\r")
        if len(line) > self._limits.line_bytes:
            raise LimitError(f"the server sent a line of more than {self._limits.line_bytes} bytes")
        return line

    # -- literals ------------------------------------------------------------------------------------------------------

    def _begin_literal(self, text: bytes, size: int) -> None:
        limits = self._limits
        if size > limits.literal_bytes:
            raise LimitError(f"the server announced a literal of {size} bytes; the limit is {limits.literal_bytes}")
        self._hold(size)
        if len(self._parts) >= 2 * limits.literals:
            raise LimitError(f"the server sent a response of more than {limits.literals} literals")
        self._parts.append(text)
        self._missing = size
        self._blank_forgiven = False
        if size > self._stream_above and self._open_sink is not None:
            self._sink = self._open_sink(size)

    def _take_literal(self) -> bool:
        """Take what is there of the literal under way. True when it is complete."""
        available = self._end - self._start
        missing = self._missing
        if self._sink is None and not self._literal and available >= missing:
            stop = self._start + missing
            self._end_literal(bytes(self._view[self._start : stop]), stop)
            return True
        if available < missing and available <= len(self._buffer) // 2:
            return False
        stop = self._start + min(available, missing)
        chunk = bytes(self._view[self._start : stop])
        self._start = self._scan = stop
        self._missing -= len(chunk)
        if self._sink is not None:
            self._sink.write(chunk)
        else:
            self._literal.append(chunk)
        if self._missing:
            return False
        if self._sink is not None:
            sink, self._sink = self._sink, None
            self._end_literal(sink.finish(), stop)
        else:
            self._end_literal(b"".join(self._literal), stop)
            self._literal = []
        return True

    def _end_literal(self, part: Part, stop: int) -> None:
        self._parts.append(part)
        self._start = self._scan = stop
        self._missing = -1

    # -- buffer --------------------------------------------------------------------------------------------------------

    def _move_to_front(self) -> None:
        # Less than a quarter was free, so at least half of what is moved has been read or stored since the last move
        # (held lines and literals leave the buffer once they fill half of it): amortised constant per byte.
        held = self._end - self._start
        self._view[:held] = bytes(self._view[self._start : self._end])
        self._scan -= self._start
        self._start = 0
        self._end = held

    def _resize(self, capacity: int) -> None:
        held = self._end - self._start
        buffer = bytearray(max(capacity, held))
        buffer[:held] = self._view[self._start : self._end]
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._scan -= self._start
        self._start = 0
        self._end = held


def split_run(run: bytes) -> list[Parts]:
    """The responses of a run. Blank lines are none."""
    lines = (line.removesuffix(b"\r") for line in run.split(b"\n"))
    return [[line] for line in lines if line]


def discard(framed: Framed) -> None:
    """Free what a response that nobody will use keeps in files."""
    if not isinstance(framed, bytes):
        for part in framed[1::2]:
            if not isinstance(part, bytes):
                part.discard()


def _open_lists(parts: Parts) -> int:
    text = _QUOTED.sub(b"", b" ".join(part for part in parts[::2] if isinstance(part, bytes)))
    return text.count(b"(") - text.count(b")")
