"""A webhook receiver that does as little as it can: notes when a request was complete, and answers 204, or never."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self


class Receiver:
    """``async with Receiver() as receiver``: post to ``receiver.url``. With ``hanging`` nothing is ever answered.

    ``arrived`` maps (event name, Message-ID) to the loop time of the first such delivery; repeats are in ``requests``.
    """

    def __init__(self, *, hanging: bool = False) -> None:
        self.hanging = hanging
        self.requests = 0
        self.arrived: dict[tuple[str, str], float] = {}
        self._counts: dict[str, int] = {}
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Transport] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"

    def count(self, event: str) -> int:
        """Of different messages that this event came for."""
        return self._counts.get(event, 0)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self), "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.abort()

    async def until(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Wait until ``ready``, asked after each request. Raises TimeoutError."""
        if ready():
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ready, done))
        async with asyncio.timeout(timeout_seconds):
            await done

    def received(self, body: bytes, at: float) -> None:
        envelope: dict[str, Any] = json.loads(body)
        self.requests += 1
        event = envelope["event"]
        key = (event, envelope["data"].get("messageId") or "")
        if key not in self.arrived:
            self.arrived[key] = at
            self._counts[event] = self._counts.get(event, 0) + 1
        for waiting in self._waiting[:]:
            ready, done = waiting
            if done.done():
                self._waiting.remove(waiting)
            elif ready():
                done.set_result(None)


class _Link(asyncio.Protocol):
    """HTTP/1.1 as far as a webhook needs it: requests with Content-Length, one after the other."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._receiver._links.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._receiver._links.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        at = asyncio.get_running_loop().time()
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            self._receiver.received(body, at)
            if not self._receiver.hanging:
                self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
