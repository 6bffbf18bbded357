"""A webhook receiver that answers as it is told: a plain asyncio HTTP/1.1 server on loopback.

``answer`` is called for each request and returns what to do with it; a test may replace it at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came. ``connection`` numbers the TCP connection it came on, from 1."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers.get("webhook-id", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets.

    ``hang``: nothing, until the other side goes away. ``drip``: a body that never ends, a byte at a time. ``cut``: the
    connection is closed without an answer. ``after``: the answer waits until this is set.
    """

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: bool = False
    drip: bool = False
    cut: bool = False
    after: asyncio.Event | None = None


OK = Answer()


class WebhookReceiver:
    """``async with WebhookReceiver() as receiver``: ``receiver.url`` is where to post."""

    def __init__(self, answer: Callable[[Received], Answer] = lambda _request: OK) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self.connections = 0
        self.open_requests = 0
        self.most_open_requests = 0
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/hook"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for(self, ready: Callable[[list[Received]], bool], timeout_seconds: float = 20) -> list[Received]:
        """All requests so far, as soon as they are as ``ready`` wants them."""
        async with asyncio.timeout(timeout_seconds), self._arrived:
            await self._arrived.wait_for(lambda: ready(self.received))
            return list(self.received)

    async def wait_count(self, count: int) -> list[Received]:
        return await self.wait_for(lambda received: len(received) >= count)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        number = self.connections
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._serve(reader, writer, number):
                pass
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:]) if name}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Received(head[0].split(" ")[1], headers, body, number)
        answer = self.answer(request)
        self.open_requests += 1
        self.most_open_requests = max(self.most_open_requests, self.open_requests)
        async with self._arrived:
            self.received.append(request)
            self._arrived.notify_all()
        try:
            return await self._answer(reader, writer, answer)
        finally:
            self.open_requests -= 1

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> bool:
        if answer.after is not None:
            await answer.after.wait()
        if answer.cut:
            return False
        if answer.hang:
            await reader.read()
            return False
        lines = [f"HTTP/1.1 {answer.status} X", *(f"{name}: {value}" for name, value in answer.headers.items())]
        if answer.drip:
            writer.write("\r\n".join([*lines, "content-length: 1000000", "", ""]).encode())
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        if answer.status != 204:
            lines.append(f"content-length: {len(answer.body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + answer.body)
        await writer.drain()
        return True
