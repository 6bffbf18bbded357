"""IMAP with nothing between: a connection that idles and notes when EXISTS came, and one that appends.

What mailmill is measured from must not be mailmill.
"""

from __future__ import annotations

import asyncio
from typing import Self

_TIMEOUT_SECONDS = 30


class BareImap:
    """One plain connection on loopback, logged in. ``async with await BareImap.open(…)``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int, user: str, password: str) -> Self:
        connection = cls(*await asyncio.open_connection(host, port))
        await connection._line()
        await connection.command(f"LOGIN {user} {password}")
        return connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def command(self, command: str) -> None:
        self._writer.write(f"a {command}\r\n".encode())
        await self._tagged(command)

    async def append(self, mailbox: str, raw: bytes) -> None:
        """APPEND with a non-synchronising literal (LITERAL+): one round trip."""
        self._writer.write(f"a APPEND {mailbox} {{{len(raw)}+}}\r\n".encode() + raw + b"\r\n")
        await self._tagged("APPEND")

    async def idle(self, mailbox: str) -> None:
        """Enter IDLE on ``mailbox``; from here on `exists` waits."""
        await self.command(f"EXAMINE {mailbox}")
        self._writer.write(b"a IDLE\r\n")
        while not (await self._line()).startswith(b"+"):
            pass

    async def exists(self, count: int) -> float:
        """Loop time at which the server told that there are ``count`` messages; waits for it."""
        while True:
            words = (await self._line()).split()
            if words[2:3] == [b"EXISTS"] and int(words[1]) >= count:
                return asyncio.get_running_loop().time()

    async def _tagged(self, command: str) -> None:
        while not (line := await self._line()).startswith(b"a "):
            pass
        if not line.startswith(b"a OK"):
            raise RuntimeError(f"{command.split()[0]}: {line.decode(errors='replace')}")

    async def _line(self) -> bytes:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            line = await self._reader.readline()
        if not line:
            raise RuntimeError("the IMAP server hung up")
        return line
