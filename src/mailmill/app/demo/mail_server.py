"""pymap in a child process, and putting mail into it. For the demo only."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec

from mailmill import programs
from mailmill.errors import ConfigurationError, ConnectError
from mailmill.programs import Program

USERNAME = "alex"
# Where `mailmill message delete` puts what it deletes.
_TRASH = "Trash"
_START_SECONDS = 20.0
_APPEND_SECONDS = 10.0
_STOP_SECONDS = 3.0

# Its standard input is a pipe whose other end is ours: when we are gone, however that came about, so is the server.
_PROGRAM = """
import os, sys, threading
def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=end_with_parent, daemon=True).start()
from pymap.main import main
main()
"""


@dataclass(slots=True)
class DemoServer:
    """A server on loopback with one user. Its mail is in memory and goes with it. One caller at a time."""

    host: str
    port: int
    password: str = field(repr=False)
    _client: imaplib.IMAP4 | None = field(default=None, repr=False)
    _made: set[str] = field(default_factory=lambda: {"INBOX"}, repr=False)

    async def append(self, mailbox: str, received_at: datetime, raw: bytes) -> None:
        """Deliver ``raw`` to ``mailbox``, made if it is not there. Raises ConnectError; the next call connects anew."""
        try:
            async with asyncio.timeout(_APPEND_SECONDS * 2):
                await asyncio.to_thread(self._append, mailbox, received_at, raw)
        except (OSError, imaplib.IMAP4.error) as error:
            self.hang_up()
            raise ConnectError("the demo's mail server does not take its mail") from error

    def _append(self, mailbox: str, received_at: datetime, raw: bytes) -> None:
        # One connection for all: checking a password costs the server longer than anything else here.
        if self._client is None:
            client = imaplib.IMAP4(self.host, self.port, timeout=_APPEND_SECONDS)
            client.login(USERNAME, self.password)
            client.create(_TRASH)  # NO where it is there
            self._client = client
        if mailbox not in self._made:
            self._client.create(mailbox)
            self._made.add(mailbox)
        self._client.append(mailbox, "", imaplib.Time2Internaldate(received_at), raw)

    def hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError):
                client.shutdown()


@contextlib.asynccontextmanager
async def demo_server() -> AsyncIterator[DemoServer]:
    """Run the server for the length of the block. Raises ConfigurationError where pymap is not installed."""
    if find_spec("pymap") is None:
        raise ConfigurationError(
            "the demo needs the pymap package", hint="pip install 'mailmill[demo]', or `make demo`"
        )
    # Hexadecimal: a password that begins with a dash would pass for an option.
    server = DemoServer("127.0.0.1", _free_port(), secrets.token_hex(12))
    # -P: what lies in the working directory is none of its modules.
    command = [sys.executable, "-P", "-c", _PROGRAM]
    command += ["--host", server.host, "--port", str(server.port), "--no-tls"]
    command += ["--no-service", "admin", "--no-service", "managesieve"]
    command += ["dict", "--demo-user", USERNAME, "--demo-password", server.password]
    process = await programs.start(command, stdin=programs.PIPE)
    try:
        await _wait_listening(server, process)
        yield server
    finally:
        server.hang_up()
        await asyncio.shield(_end(process))


async def _wait_listening(server: DemoServer, process: Program) -> None:
    try:
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                try:
                    _reader, writer = await asyncio.open_connection(server.host, server.port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                return
    except TimeoutError:
        pass
    raise ConnectError("the demo's mail server did not start", hint="try again; `mailmill doctor` checks the set-up")


async def _end(process: Program) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
