"""The transport side of a connection: bytes through the framer into the session, waiting, silence, back-pressure.

A `Link` has one owner and at most one coroutine waiting on it. It dies once: the first error is kept, every later call
raises it, and whatever was under way is never taken up again.

Silence is measured, not elapsed time: an exchange may take as long as bytes keep coming. One timer for each connection,
set only while somebody waits, and moved lazily: it costs nothing for each byte.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

from mailmill.clock import boot_seconds
from mailmill.errors import ConnectionLostError, ImapError, InsecureError, MailmillError, ProtocolError
from mailmill.imap.limits import Limits
from mailmill.imap.responses import parse, parse_run
from mailmill.imap.session import Exchange, Session
from mailmill.imap.spool import SpoolFile
from mailmill.imap.wire import Framed, Framer, discard, split_run

# What is read in one turn of the loop. The event loop's library reads on as long as bytes keep coming: without this one
# busy server would hold up all other accounts.
_TURN_BYTES = 4 * 1024 * 1024
_TURN_RESPONSES = 2_000
_TURN = "turn"
# What no command asked for is only a hint, and one says as much as a thousand. A server that never stops hinting is
# read at this rate, or the loop would serve nobody else; the burst is for mass changes by another client.
_UNASKED_PER_SECOND = 10_000
_UNASKED_BURST = 20_000
_FLOOD = "flood"
# A message on its way out is handed over in pieces: what waits in memory is one of them and not the message.
_PIECE_BYTES = 64 * 1024
# Silence bounds a server that is gone; this one that keeps talking and never comes to the end, or never takes a piece.
LONGEST_ANSWER_SECONDS = 600.0


class Link(asyncio.BufferedProtocol):
    """One connection's protocol object. ``name`` is how errors call it (``host:port``)."""

    def __init__(
        self,
        name: str,
        session: Session,
        limits: Limits,
        *,
        silence_seconds: float,
        spool_dir: Path | None,
        stream_above_bytes: int,
    ) -> None:
        self.session = session
        self.error: MailmillError | None = None
        self.bytes_received = 0
        self.bytes_sent = 0
        self.spool_dir = spool_dir
        self._name = name
        self._limits = limits
        self._stream_above = stream_above_bytes
        self._framer = self._new_framer()
        self._framed: deque[Framed] = deque()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._closed = self._loop.create_future()
        self._waiter: asyncio.Future[None] | None = None
        self._condition: Callable[[], bool] | None = None
        self._pauses: set[object] = set()
        self.silence_seconds = silence_seconds
        self._heard_at = 0.0
        self.heard_at_boot = boot_seconds()
        self._patience_ends_at = math.inf
        self._clogged = False
        self._unsent_bytes = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._starttls: Exchange | None = None
        self._handshaking = False
        self._turn_bytes = 0
        self._turn_responses = 0
        self._next_turn: asyncio.Handle | None = None
        self._unasked_before = 0
        self._unasked_credit = float(_UNASKED_BURST)
        self._credit_at = self._loop.time()
        self.on_closed: Callable[[], None] = lambda: None

    # -- asyncio.BufferedProtocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._framer.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.bytes_received += nbytes
        self._heard_at = self._loop.time()
        self.heard_at_boot = boot_seconds()
        if self.error is not None:
            return
        self._turn_bytes += nbytes
        try:
            self._framed += self._framer.received(nbytes)
        except ImapError as error:
            self.lose(error)
            return
        self._take_turn()

    def _take_turn(self) -> None:
        """Take in what was framed, as much as one turn may. What is left over comes before all that is read later."""
        receive = self.session.receive
        framed, limits = self._framed, self._limits
        try:
            while framed and self._turn_responses < _TURN_RESPONSES:
                response = framed.popleft()
                if self._handshaking:
                    discard(response)
                    raise InsecureError(f"{self._name}: the server sent data between STARTTLS and the handshake")
                if isinstance(response, bytes):
                    if self._starttls is not None:
                        # One by one: after its OK no other word may be heard.
                        framed.extendleft(reversed(split_run(response)))
                        continue
                    events = parse_run(response, limits)
                    self._turn_responses += len(events)
                    for event in events:
                        receive(event)
                    continue
                self._turn_responses += 1
                receive(parse(response, limits))
                if self._starttls is not None:
                    self._stop_before_handshake(self._starttls)
        except ImapError as error:
            self.lose(error)
            return
        self._wake()
        if self._turn_bytes > _TURN_BYTES or self._turn_responses >= _TURN_RESPONSES:
            self.pause(_TURN)
        if self._next_turn is None:
            self._next_turn = self._loop.call_soon(self._begin_turn)
        if self.session.unasked != self._unasked_before:
            self._charge_unasked()

    def _charge_unasked(self) -> None:
        """Stop reading for as long as the server has talked unasked too fast."""
        now, unasked = self._loop.time(), self.session.unasked
        earned = (now - self._credit_at) * _UNASKED_PER_SECOND
        self._unasked_credit = min(_UNASKED_BURST, self._unasked_credit + earned) - (unasked - self._unasked_before)
        self._credit_at, self._unasked_before = now, unasked
        if self._unasked_credit < 0 and _FLOOD not in self._pauses:
            self.pause(_FLOOD)
            self._loop.call_later(-self._unasked_credit / _UNASKED_PER_SECOND, self.resume, _FLOOD)

    def _begin_turn(self) -> None:
        self._next_turn = None
        self._turn_bytes = self._turn_responses = 0
        if self._framed and self.error is None:
            self._take_turn()
        if not self._framed:
            self.resume(_TURN)

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        while self._framed:
            # Its last words: a BYE, the end of an answer. No more than came with one read.
            self._turn_responses = 0
            self._take_turn()
        reason = f": {exc.strerror}" if isinstance(exc, OSError) and exc.strerror else ""
        self.lose(ConnectionLostError(self._bye_text() or f"{self._name}: the connection was lost{reason}"))
        if not self._closed.done():
            self._closed.set_result(None)

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self.error is not None

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def check(self) -> None:
        """Raises the error that ended the connection, if one did."""
        if self.error is not None:
            raise self.error

    def lose(self, error: MailmillError) -> None:
        """The end: keep the first error, cut the connection, wake who waits."""
        if self.error is not None:
            return
        self.error = error
        self.on_closed()
        self._framer.abort()
        # What was framed behind it is read by nobody: its large literals lie on disk.
        for response in self._framed:
            discard(response)
        self._framed.clear()
        self._set_alarm(None)
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    async def close(self, timeout_seconds: float) -> None:
        """Close politely (TLS close_notify), or abort after ``timeout_seconds``."""
        if self.error is None:
            self.error = ConnectionLostError(f"{self._name}: the connection is closed")
            self.on_closed()
            self._framer.abort()
            self._set_alarm(None)
            self._wake()
        if self._transport is None:
            return
        self._transport.close()
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self._transport.abort()

    # -- writing and waiting -------------------------------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> None:
        self.check()
        self.bytes_sent += len(data)
        self.transport.write(data)

    async def upload(self, data: bytes, ended: Callable[[], bool]) -> None:
        """Write ``data`` as fast as the server takes it, until ``ended`` holds: what is left then stays unsent.

        Cancelled, it cuts the connection. What leaves counts against silence as what comes does.
        """
        view = memoryview(data)
        try:
            for begin in range(0, len(view), _PIECE_BYTES):
                if ended():
                    return
                self.write(view[begin : begin + _PIECE_BYTES])
                if self._clogged:
                    self._unsent_bytes = self.transport.get_write_buffer_size()
                    await self.wait(lambda: not self._clogged or ended(), longest_seconds=LONGEST_ANSWER_SECONDS)
                else:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.lose(ConnectionLostError(f"{self._name}: an exchange was cancelled"))
            raise
        self._unsent_bytes = self.transport.get_write_buffer_size()

    async def wait(
        self, condition: Callable[[], bool], *, silence: bool = True, longest_seconds: float = math.inf
    ) -> None:
        """Until ``condition`` holds. Raises what ended the connection; with ``silence`` also ends it for silence, and
        where all of this takes (about) ``longest_seconds``.

        Cancelled, or left by any exception, the connection is cut: nobody would know what the next bytes belong to.
        A wait without ``silence`` (IDLE) may be cancelled safely.
        """
        self._patience_ends_at = self._loop.time() + longest_seconds
        while not condition():
            self.check()
            if self._waiter is not None:
                raise ProtocolError(f"{self._name}: two users of one connection")
            self._waiter = self._loop.create_future()
            self._condition = condition
            if silence:
                self._heard_at = self._loop.time()
                self._set_alarm(self.silence_seconds)
            try:
                await self._waiter
            except asyncio.CancelledError:
                if silence:
                    self.lose(ConnectionLostError(f"{self._name}: an exchange was cancelled"))
                raise
            finally:
                self._waiter = None
                self._condition = None
                self._set_alarm(None)

    def pause(self, reason: object) -> None:
        """Stop reading until every ``reason`` has been withdrawn."""
        if not self._pauses and not self.closed:
            self.transport.pause_reading()
        self._pauses.add(reason)

    def resume(self, reason: object) -> None:
        if reason in self._pauses:
            self._pauses.discard(reason)
            self._heard_at = self._loop.time()
            if not self._pauses and not self.closed:
                self.transport.resume_reading()

    def rest(self) -> None:
        """Nothing large is expected for a while: give the receive buffer back."""
        self._framer.shrink()

    # -- TLS -----------------------------------------------------------------------------------------------------------

    def expect_handshake(self, starttls: Exchange) -> None:
        """After the OK to ``starttls`` every further byte in the clear is an attack, and ends the connection."""
        self._starttls = starttls

    def _stop_before_handshake(self, starttls: Exchange) -> None:
        if starttls.tagged is not None and starttls.tagged.status == "OK":
            self._handshaking = True
            self.transport.pause_reading()
            if self._framed or self._framer.mid_response:
                raise InsecureError(f"{self._name}: the server sent data between STARTTLS and the handshake")

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """The handshake, after the OK to STARTTLS. Raises OSError (ssl.SSLError) where it fails."""
        self.check()  # the OK came, and in the same read what must not
        transport = await self._loop.start_tls(self.transport, self, context, server_hostname=server_hostname)
        self.check()
        assert transport is not None
        self._transport = transport
        self._framer = self._new_framer()
        self._starttls = None
        self._handshaking = False

    # -- inside --------------------------------------------------------------------------------------------------------

    def _new_framer(self) -> Framer:
        return Framer(
            self._limits,
            open_sink=None if self.spool_dir is None else self._open_sink,
            stream_above_bytes=self._stream_above,
        )

    def _open_sink(self, size: int) -> SpoolFile:
        assert self.spool_dir is not None
        reason = object()
        return SpoolFile(self.spool_dir, size, lambda pressed: self.pause(reason) if pressed else self.resume(reason))

    def _wake(self) -> None:
        waiter, condition = self._waiter, self._condition
        if waiter is None or condition is None or waiter.done():
            return
        if self.error is not None or condition():
            waiter.set_result(None)

    def _set_alarm(self, seconds: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if seconds is not None:
            self._alarm = self._loop.call_later(seconds, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        silent_seconds = self._loop.time() - self._heard_at
        unsent_bytes = self.transport.get_write_buffer_size()
        if self._loop.time() >= self._patience_ends_at:
            self.lose(ConnectionLostError(f"{self._name}: an exchange took longer than ten minutes"))
        elif self._pauses or unsent_bytes < self._unsent_bytes:
            # We do not read, so the silence is ours; or a long message still leaves over a slow line.
            self._unsent_bytes = unsent_bytes
            self._set_alarm(self.silence_seconds)
        elif silent_seconds >= self.silence_seconds:
            self.lose(ConnectionLostError(f"{self._name}: no answer for {self.silence_seconds:g} seconds"))
        else:
            self._set_alarm(self.silence_seconds - silent_seconds)

    def _bye_text(self) -> str:
        bye = self.session.bye
        return f"{self._name}: the server said goodbye: {bye.text}" if bye is not None else ""
