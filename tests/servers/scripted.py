"""An IMAP server that plays a script: what real servers do not do on demand.

A script is a coroutine that talks to one client::

    async def cut_in_a_fetch(talk: Talk) -> None:
        fetch = await talk.expect(rb"UID FETCH (\\S+)")          # logins and the like before it are answered as usual
        await talk.cut(b"* 1 FETCH (UID 1 FLAGS ())\\r\\n", at=20)

    async with ScriptedServer(cut_in_a_fetch) as server:
        connection = await ImapConnection.open(server.endpoint(), settings)

``expect`` answers routine commands (CAPABILITY, LOGIN, AUTHENTICATE, ID, ENABLE, NOOP, SELECT, EXAMINE, UNSELECT,
LOGOUT) by itself unless they are what is expected; anything else is a failure of the test, raised when the server's
block ends. Order a script and its test by ``asyncio.Event``, never by time.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mailmill.model import Endpoint, Tls
from servers.ports import LOOPBACK
from servers.tls import CertificateFiles

CAPABILITIES = "IMAP4rev1 SASL-IR AUTH=PLAIN ID ENABLE IDLE UIDPLUS ESEARCH CONDSTORE QRESYNC LIST-STATUS SPECIAL-USE"

_LITERAL = re.compile(rb"\{(\d+)(\+?)\}\r\n$")


@dataclass(frozen=True, slots=True)
class Command:
    """What the client sent. ``line`` has no tag and no line end; literals stand in it as they came, announcement and
    all.

    ``match`` is what the expected pattern found.
    """

    tag: bytes
    line: bytes
    match: re.Match[bytes]

    @property
    def verb(self) -> bytes:
        """``b"FETCH"``, or ``b"UID FETCH"``: upper case."""
        words = self.line.upper().split(b" ")
        return b" ".join(words[:2]) if words[0] == b"UID" else words[0]


Script = Callable[["Talk"], Awaitable[None]]


class Talk:
    """One connection, seen from the server.

    ``greeting``, ``capabilities`` and ``selected`` (the untagged part of the answer to SELECT) may be changed by a
    script before they are used; ``received`` holds every line the client sent.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, certificates: CertificateFiles | None
    ) -> None:
        self.capabilities = CAPABILITIES
        self.selected = (
            b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] valid\r\n* OK [UIDNEXT 4] next\r\n* OK [HIGHESTMODSEQ 9] mod\r\n"
        )
        self.received: list[bytes] = []
        self._reader = reader
        self._writer = writer
        self._certificates = certificates
        self._greeted = False

    # -- listening ----------------------------------------------------------------------------------------------------

    async def expect(self, pattern: bytes) -> Command:
        """The next command that ``pattern`` matches (at its start, any case), with literals read in full."""
        await self.greet()
        while True:
            command = await self._read_command(pattern)
            if command is not None:
                return command

    async def read_line(self) -> bytes:
        """The next line as it came, line end included. Raises ConnectionError when the client has hung up."""
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the client hung up")
        self.received.append(line)
        return line

    async def read_exactly(self, size_bytes: int) -> bytes:
        try:
            return await self._reader.readexactly(size_bytes)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the client hung up") from error

    async def silence(self) -> bytes:
        """Answer nothing more, for ever; returns what the client sent until it hung up."""
        try:
            return await self._reader.read(-1)
        except ConnectionError:
            return b""

    # -- speaking -----------------------------------------------------------------------------------------------------

    async def greet(self, line: bytes | None = None) -> None:
        """Greet once; ``expect`` does it by itself. ``line`` replaces the usual greeting."""
        if not self._greeted:
            self._greeted = True
            await self.send(line or b"* OK [CAPABILITY " + self.capabilities.encode() + b"] scripted\r\n")

    async def send(self, data: bytes) -> None:
        """Raw bytes, in one write where the system takes them."""
        self._writer.write(data)
        await self._writer.drain()

    async def drip(self, data: bytes, size_bytes: int = 1) -> None:
        """The same in pieces, with a turn of the loop after each, so that the client sees the cuts."""
        for begin in range(0, len(data), size_bytes):
            await self.send(data[begin : begin + size_bytes])
            await asyncio.sleep(0)

    async def cut(self, data: bytes, at: int) -> None:
        """Send ``data[:at]`` and hang up."""
        await self.send(data[:at])
        await self.hang_up()

    async def hang_up(self) -> None:
        """Close in good order: the client reads all that was sent, then the end."""
        self._writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        """Drop the connection without another byte."""
        self._writer.transport.abort()

    async def ok(self, command: Command, text: str = "done") -> None:
        await self.tagged(command, "OK", text)

    async def no(self, command: Command, text: str = "no") -> None:
        await self.tagged(command, "NO", text)

    async def bad(self, command: Command, text: str = "what?") -> None:
        await self.tagged(command, "BAD", text)

    async def tagged(self, command: Command, status: str, text: str) -> None:
        await self.send(command.tag + f" {status} {text}\r\n".encode())

    async def bye(self, text: str = "so long") -> None:
        """BYE, then the end, as a server that shuts down does."""
        await self.send(f"* BYE {text}\r\n".encode())
        await self.hang_up()

    async def flood(self, size_bytes: int, filler: bytes = b"x" * 65536) -> int:
        """Send up to ``size_bytes`` of filler and stop when the client hangs up; returns how many bytes it took."""
        sent = 0
        try:
            while sent < size_bytes and not self._reader.at_eof():
                await self.send(filler[: size_bytes - sent])
                sent += min(len(filler), size_bytes - sent)
        except ConnectionError:
            pass
        return sent

    # -- usual exchanges ----------------------------------------------------------------------------------------------

    async def refuse_login(self, text: str = "[AUTHENTICATIONFAILED] Authentication failed.") -> None:
        """Answer the next LOGIN or AUTHENTICATE with NO."""
        command = await self.expect(rb"LOGIN|AUTHENTICATE")
        await self._read_initial_response(command)
        await self.no(command, text)

    async def idle(self) -> Command:
        """Wait for IDLE and accept it."""
        command = await self.expect(rb"IDLE$")
        await self.send(b"+ idling\r\n")
        return command

    async def done(self, idle: Command) -> None:
        """Wait for DONE and end the IDLE. The client may have sent its next command in the same write."""
        line = await self.read_line()
        assert line.strip().upper() == b"DONE", f"expected DONE, got {line!r}"
        await self.ok(idle, "idle ended")

    async def start_tls(self, *, before: bytes = b"", after: bytes = b"") -> None:
        """Accept STARTTLS and do the handshake.

        ``before`` goes out ahead of the tagged OK; ``after`` behind it in the same write: bytes in the clear that an
        attacker would have the client take for the protected part.
        """
        assert self._certificates is not None, "ScriptedServer(certificates=…)"
        command = await self.expect(rb"STARTTLS$")
        await self.send(before + command.tag + b" OK go ahead\r\n" + after)
        await self._writer.start_tls(_context(self._certificates))

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _read_command(self, pattern: bytes) -> Command | None:
        whole = await self.read_line()
        while literal := _LITERAL.search(whole):
            if not literal[2]:
                await self.send(b"+ go on\r\n")
            whole += await self.read_exactly(int(literal[1]))
            whole += await self.read_line()
        tag, _, line = whole.removesuffix(b"\r\n").partition(b" ")
        if match := re.match(pattern, line, re.IGNORECASE | re.DOTALL):
            return Command(tag, line, match)
        routine = re.match(rb"", line)
        assert routine is not None
        await self._answer(Command(tag, line, routine), pattern)
        return None

    async def _answer(self, command: Command, expected: bytes) -> None:
        verb = command.verb
        if verb == b"CAPABILITY":
            await self.send(b"* CAPABILITY " + self.capabilities.encode() + b"\r\n")
        elif verb == b"AUTHENTICATE":
            await self._read_initial_response(command)
        elif verb == b"ENABLE":
            await self.send(b"* ENABLED" + command.line[len("ENABLE") :] + b"\r\n")
        elif verb == b"ID":
            await self.send(b'* ID ("name" "scripted")\r\n')
        elif verb in (b"SELECT", b"EXAMINE"):
            await self.send(self.selected)
        elif verb == b"LOGOUT":
            await self.send(b"* BYE so long\r\n")
        elif verb not in (b"LOGIN", b"NOOP", b"UNSELECT"):
            raise AssertionError(f"the script expected {expected!r}, the client sent {command.line!r}")
        if verb in (b"LOGIN", b"AUTHENTICATE"):
            await self.ok(command, f"[CAPABILITY {self.capabilities}] welcome")
        else:
            await self.ok(command)

    async def _read_initial_response(self, command: Command) -> None:
        """AUTHENTICATE without an initial response (RFC 4959) sends it after a continuation."""
        if command.verb == b"AUTHENTICATE" and len(command.line.split()) == 2:
            await self.send(b"+ \r\n")
            await self.read_line()


class ScriptedServer:
    """Plays ``scripts[n]`` to the n-th client, the last one to all that follow.

    With ``certificates`` a script can offer STARTTLS; with ``implicit_tls`` as well, the server speaks TLS from the
    first byte. At the end of the block all connections are closed and the first failure of a script is raised; a client
    that hangs up early is none.
    """

    def __init__(
        self, *scripts: Script, certificates: CertificateFiles | None = None, implicit_tls: bool = False
    ) -> None:
        assert scripts, "a script is needed"
        self.host = LOOPBACK
        self.port = 0
        self.connections = 0
        self._scripts = scripts
        self._certificates = certificates
        self._implicit_tls = implicit_tls
        self._server: asyncio.Server | None = None
        self._playing: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []

    async def __aenter__(self) -> Self:
        context = _context(self._certificates) if self._implicit_tls and self._certificates else None
        self._server = await asyncio.start_server(self._accept, self.host, 0, ssl=context, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._playing:
            task.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)
        if self._failures and kind is None:
            raise self._failures[0]

    def endpoint(self, tls: Tls = Tls.NONE) -> Endpoint:
        ca_file = str(self._certificates.ca_file) if self._certificates and tls is not Tls.NONE else None
        return Endpoint(self.host, self.port, tls, ca_file=ca_file)

    async def finished(self) -> None:
        """Wait until all scripts that play have come to their end; raises the first failure."""
        await asyncio.gather(*self._playing, return_exceptions=True)
        if self._failures:
            raise self._failures.pop(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._playing.add(task)
        try:
            await script(Talk(reader, writer, self._certificates))
        except (ConnectionError, ssl.SSLError):
            pass  # the client hung up
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's stream server reports a cancelled handler as an error
        except Exception as failure:  # noqa: BLE001 - whatever it is, the test's block raises it
            self._failures.append(failure)
        finally:
            self._playing.discard(task)
            writer.transport.abort() if self._failures else writer.close()


def _context(certificates: CertificateFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate_file, certificates.key_file)
    return context
