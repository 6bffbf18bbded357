"""A TCP proxy between a client and a server of ours: counts round trips, and delays, stalls or cuts.

::

    async with Proxy(dovecot.host, dovecot.port) as proxy:
        proxy.delay_seconds = 0.01                      # each way
        ... connect to proxy.port ...
        before = proxy.round_trips
        ... one pass ...
        assert proxy.round_trips - before == 1
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
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def abort(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and forwards to a server.

    ``round_trips`` counts how often a client spoke after the server had had its say (or for the first time), over all
    connections: commands written together are one, the server's greeting is none. ``bytes_up`` and ``bytes_down`` count
    what was forwarded to the server and to the client. ``connections`` counts all, ``open_connections`` those alive.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = LOOPBACK
        self.port = 0
        self.delay_seconds = 0.0
        self.refusing = False
        self.cut_after_bytes_down: int | None = None
        self.connections = 0
        self.round_trips = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._target = (host, port)
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
            if not data:
                if writer.can_write_eof() and not writer.transport.is_closing():
                    writer.write_eof()
                return
            last = False
            if up:
                self.bytes_up += len(data)
            else:
                if self.cut_after_bytes_down is not None:
                    left = self.cut_after_bytes_down - self.bytes_down
                    last = len(data) >= left
                    data = data[: max(0, left)]
                self.bytes_down += len(data)
                link.client_spoke_last = False
            self._changed.set()
            writer.write(data)
            try:
                await writer.drain()
            except ConnectionError:
                link.abort()
                return
            if last:
                writer.close()  # what was forwarded so far still arrives
                link.server.transport.abort()
                return
