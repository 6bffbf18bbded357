"""Stands before an object store and gives the answers that moto never does; all else it forwards.

::

    async with S3Answers(s3.host, s3.port) as answers:
        answers.give(r"PUT .*\\.seg", 409, "ConditionalRequestConflict")       # to the next such request, which is not
        segments = ObjectSegments(s3.location(bucket, port=answers.port))      # forwarded; ``times=None``: to all
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from servers.ports import LOOPBACK

_REASONS = {404: "Not Found", 409: "Conflict", 412: "Precondition Failed"}
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(slots=True)
class _Answer:
    wanted: re.Pattern[str]
    status: int
    code: str
    left: int | None


class S3Answers:
    """Listens on ``port``. ``given`` are the requests that were answered here, as ``METHOD TARGET``."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.given: list[str] = []
        self._target = (host, port)
        self._answers: list[_Answer] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        # Not the coroutine itself: a task that is cancelled in there is complained about.
        self._server = await asyncio.start_server(lambda *link: self._tasks.add(self._begin(*link)), LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def give(self, request: str, status: int, code: str, *, times: int | None = 1) -> None:
        """To requests whose ``METHOD TARGET`` the pattern ``request`` matches."""
        self._answers.append(_Answer(re.compile(request), status, code, times))

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> asyncio.Task[None]:
        task = asyncio.create_task(self._serve(reader, writer))
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request for each connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1])) if length else b""
        request = head.partition(b" HTTP/")[0].decode()
        answer = self._next(request)
        writer.write(await self._forwarded(head, body) if answer is None else _rendered(answer, request))
        await writer.drain()

    def _next(self, request: str) -> _Answer | None:
        for answer in self._answers:
            if answer.left != 0 and answer.wanted.match(request):
                if answer.left is not None:
                    answer.left -= 1
                self.given.append(request)
                return answer
        return None

    async def _forwarded(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._target)
        try:
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
            writer.write(b"\r\n".join([lines[0], b"Connection: close", *lines[1:]]) + body)
            return await reader.read()
        finally:
            writer.close()


def _rendered(answer: _Answer, request: str) -> bytes:
    body = f"<Error><Code>{answer.code}</Code><Message>as told</Message></Error>".encode()
    if request.startswith("HEAD "):
        body = b""
    status = f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}"
    return f"{status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
