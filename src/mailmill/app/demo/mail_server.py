"""pymap in a child process, and putting mail into it. For the demo only."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from mailmill.errors import ConfigurationError, ConnectError

USERNAME = "alex"
_START_SECONDS = 20.0
_APPEND_SECONDS = 10.0
_STOP_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class DemoServer:
    """A server on loopback with one user. Its mail is in memory and goes with it."""

    host: str
    port: int
    password: str

    async def append(self, mailbox: str, raw: bytes) -> None:
        """Deliver ``raw`` to ``mailbox``, made if it is not there."""
        async with asyncio.timeout(_APPEND_SECONDS * 2):
            await asyncio.to_thread(self._append, mailbox, raw)

    def _append(self, mailbox: str, raw: bytes) -> None:
        with imaplib.IMAP4(self.host, self.port, timeout=_APPEND_SECONDS) as client:
            client.login(USERNAME, self.password)
            if mailbox != "INBOX":
                client.create(mailbox)
            client.append(mailbox, "", imaplib.Time2Internaldate(time.time()), raw)


@contextlib.asynccontextmanager
async def demo_server() -> AsyncIterator[DemoServer]:
    """Run the server for the length of the block. Raises ConfigurationError where pymap is not installed."""
    with contextlib.suppress(ImportError):
        import pymap  # noqa: F401  # only to know whether it is there
    if "pymap" not in sys.modules:
        raise ConfigurationError(
            "the demo needs the pymap package", hint="pip install 'mailmill[demo]', or `make demo`"
        )
    server = DemoServer("127.0.0.1", _free_port(), secrets.token_urlsafe(12))
    command = [sys.executable, "-c", "from pymap.main import main; main()"]
    command += ["--host", server.host, "--port", str(server.port), "--no-tls"]
    command += ["--no-service", "admin", "--no-service", "managesieve"]
    command += ["dict", "--demo-user", USERNAME, "--demo-password", server.password]
    # In a session of its own: Ctrl-C is for us, and we end it in our order.
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await _wait_listening(server, process)
        yield server
    finally:
        await asyncio.shield(_end(process))


async def _wait_listening(server: DemoServer, process: asyncio.subprocess.Process) -> None:
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


async def _end(process: asyncio.subprocess.Process) -> None:
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
