"""The far end of the demo's webhook: takes what is posted, checks the signature, says what it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

_READ_SECONDS = 5.0
_MOST_BYTES = 1024 * 1024


@contextlib.asynccontextmanager
async def receiver(secret: str, on_event: Callable[[dict[str, Any]], None]) -> AsyncIterator[str]:
    """Listen on loopback for the length of the block; yields the URL to post to."""
    webhook = Webhook(secret)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError
        ):
            while True:
                first = await reader.readuntil(b"\r\n\r\n")
                headers = _headers(first)
                async with asyncio.timeout(_READ_SECONDS):
                    body = await reader.readexactly(min(int(headers.get("content-length", "0")), _MOST_BYTES))
                try:
                    webhook.verify(body, headers)
                except WebhookVerificationError:
                    writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
                else:
                    on_event(json.loads(body))
                    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        server.close()


def _headers(block: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name}
