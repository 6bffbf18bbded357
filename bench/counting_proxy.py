"""A TCP proxy as light as one can be, for thousands of connections: it forwards, and counts round trips.

``python -m bench.counting_proxy HOST PORT`` announces ``{"port": …}`` and answers each line on stdin with what it has
counted so far: ``connections``, and ``round_trips``, one number for each connection in the order they came. A round
trip is that the client spoke after the server had had its say: commands written together are one.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop


class _Link:
    """Both halves of one connection and its count."""

    def __init__(self) -> None:
        self.round_trips = 0
        self.client_spoke_last = False


class _Half(asyncio.Protocol):
    """Forwards to its twin. ``up`` is the half that faces the client."""

    def __init__(self, link: _Link, *, up: bool) -> None:
        self._link = link
        self._up = up
        self._waiting: list[bytes] = []
        self._twin: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is one in all but its bases

    def join(self, twin: asyncio.Transport) -> None:
        self._twin = twin
        for data in self._waiting:
            twin.write(data)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        link = self._link
        if self._up and not link.client_spoke_last:
            link.round_trips += 1
        link.client_spoke_last = self._up
        if self._twin is None:
            self._waiting.append(data)
        else:
            self._twin.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._twin is not None:
            self._twin.close()


class CountingProxy:
    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self.links: list[_Link] = []

    def accept(self) -> asyncio.Protocol:
        link = _Link()
        self.links.append(link)
        client = _Half(link, up=True)
        task = asyncio.get_running_loop().create_task(self._join(link, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return client

    async def _join(self, link: _Link, client: _Half) -> None:
        server = _Half(link, up=False)
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(lambda: server, *self._where)
        except OSError:
            if client.transport is not None:
                client.transport.abort()
            return
        client.join(transport)
        assert client.transport is not None
        server.join(client.transport)


async def main(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    proxy = CountingProxy(host, port)
    listening = await loop.create_server(proxy.accept, "127.0.0.1", 0, backlog=4096)
    print(json.dumps({"port": listening.sockets[0].getsockname()[1]}), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        counted = {"connections": len(proxy.links), "round_trips": [link.round_trips for link in proxy.links]}
        print(json.dumps(counted), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
