"""A TCP proxy between a client and a server of ours: counts round trips, and delays, drips, stalls, cuts or half-opens.

::

    async with Proxy(dovecot.host, dovecot.port) as proxy:
        proxy.delay_seconds = 0.01                      # each way
        ... connect to proxy.port ...
        before = proxy.round_trips
        ... one pass ...
        assert proxy.round_trips - before == 1

Harm is done to what is connected (`cut`, `cut_soon`, `lose_server`, `lose_client`), to whatever flows until it is
undone (`delay_seconds`, `drip_bytes`, `stall`), or to who connects (`refusing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from servers.ports import LOOPBACK

_CHUNK_BYTES = 256 * 1024
_QUEUED_CHUNKS = 64


@dataclass(eq=False)
class _Link:
    """One client's connection and its twin to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    client_spoke_last: bool = False
    lost: asyncio.StreamWriter | None = None
    client_left: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not (self.client_left or self.client.transport.is_closing() or self.server.transport.is_closing())

    def abort(self) -> None:
        self.over.set()
        self.client.transport.abort()
        self.server.transport.abort()

    def lose(self, side: asyncio.StreamWriter) -> None:
        """One side is gone; the other is not told, and what it says goes nowhere."""
        self.lost = side
        side.transport.abort()


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and forwards to a server.

    ``round_trips`` counts how often a client spoke after the server had had its say (or for the first time), over all
    connections: commands written together are one, the server's greeting is none. ``bytes_up`` and ``bytes_down`` count
    what was forwarded to the server and to the client. ``connections`` counts all, ``open_connections`` those alive,
    ``hung_up`` those whose client went away, by itself or not.

    ``delay_seconds`` is added each way. ``drip_bytes`` is how much is written to a client at a time, each piece on a
    turn of the loop of its own, so that it arrives in pieces. ``refusing`` hangs up on who connects.
    ``cut_after_bytes_down`` cuts every connection that would get more than that, counted over all.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = LOOPBACK
        self.port = 0
        self.delay_seconds = 0.0
        self.drip_bytes: int | None = None
        self.refusing = False
        self.cut_after_bytes_down: int | None = None
        self.connections = 0
        self.hung_up = 0
        self.round_trips = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._target = (host, port)
        self._cut_at: int | None = None
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [task for link in self._links for task in link.tasks]
        self.cut()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def open_connections(self) -> int:
        return len(self._links)

    @property
    def whole_connections(self) -> int:
        """Those alive on both of their sides."""
        return sum(link.is_whole for link in self._links)

    # -- harm ---------------------------------------------------------------------------------------------------------

    def stall(self) -> None:
        """Deliver nothing more in either direction; connections stay open, as behind a NAT that forgot them."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        """Drop all connections, both sides."""
        for link in list(self._links):
            link.abort()

    def cut_soon(self, bytes_down: int) -> None:
        """Once, after so many more bytes to clients: drop the connection that gets them, amid a response."""
        self._cut_at = self.bytes_down + bytes_down

    def lose_server(self) -> None:
        """Half-open: the server has hung up, and clients never hear of it. What they write is swallowed."""
        for link in list(self._links):
            link.lose(link.server)

    def lose_client(self) -> None:
        """Half-open the other way: clients see a reset, the server goes on as if they were there."""
        for link in list(self._links):
            link.lose(link.client)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the proxy can see: ``await proxy.until(lambda: proxy.open_connections == 0)``."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, server_writer)
        link.tasks = [
            asyncio.create_task(self._pump(reader, server_writer, link, up=True)),
            asyncio.create_task(self._pump(server_reader, writer, link, up=False)),
        ]
        self._links.add(link)
        self.connections += 1
        self._changed.set()
        try:
            await asyncio.gather(*link.tasks, return_exceptions=True)
        finally:
            link.abort()
            self._links.discard(link)
            self._changed.set()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, *, up: bool) -> None:
        """Read and write are two tasks, so that a delay adds latency and takes no throughput."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_CHUNKS)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(reader, queue, link, up=up))
            group.create_task(self._write(writer, queue, link, up=up))

    async def _read(
        self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]], link: _Link, *, up: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            try:
                data = await reader.read(_CHUNK_BYTES)
            except ConnectionError:
                data = b""
            if data and up and not link.client_spoke_last:
                link.client_spoke_last = True
                self.round_trips += 1
                self._changed.set()
            if up and not data:
                link.client_left = True
                self.hung_up += 1
                self._changed.set()
            await queue.put((loop.time() + self.delay_seconds, data))

    async def _write(
        self, writer: asyncio.StreamWriter, queue: asyncio.Queue[tuple[float, bytes]], link: _Link, *, up: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            await self._flowing.wait()
            if link.lost is not None:
                if data:
                    continue
                # A half-open link lasts until the side that is still there hangs up.
                if link.lost is (link.client if up else link.server):
                    await link.over.wait()
                link.abort()
                return
            if not data:
                if writer.can_write_eof() and not writer.transport.is_closing():
                    writer.write_eof()
                return
            try:
                if up:
                    await self._forward_up(writer, data)
                elif not await self._forward_down(writer, data, link):
                    return
            except ConnectionError:
                if link.lost is None:
                    link.abort()
                    return

    async def _forward_up(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.bytes_up += len(data)
        self._changed.set()
        writer.write(data)
        await writer.drain()

    async def _forward_down(self, writer: asyncio.StreamWriter, data: bytes, link: _Link) -> bool:
        """False where the connection was cut on the way."""
        link.client_spoke_last = False
        while data:
            piece = data[: self.drip_bytes] if self.drip_bytes else data
            data = data[len(piece) :]
            ends = [end for end in (self.cut_after_bytes_down, self._cut_at) if end is not None]
            left = min(ends, default=self.bytes_down + len(piece) + 1) - self.bytes_down
            last = len(piece) >= left
            piece = piece[: max(0, left)]
            self.bytes_down += len(piece)
            self._changed.set()
            writer.write(piece)
            await writer.drain()
            if last:
                self._cut_at = None
                writer.close()  # what was forwarded so far still arrives
                link.server.transport.abort()
                return False
            if self.drip_bytes:
                await asyncio.sleep(0)
        return True
