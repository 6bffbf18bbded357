"""Answers that take their time, and what ends the wait: the answer, a client that hung up, a service that stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The work's result; None, with the work cancelled, once the client has hung up or the service stops.

    To be called when the request's body is read.
    """
    working = asyncio.create_task(work)
    leaving = [
        asyncio.create_task(_hung_up(request)),
        asyncio.create_task(request.app.state.stopping.wait()),
    ]
    try:
        await asyncio.wait([working, *leaving], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, *leaving):
            task.cancel()
        await asyncio.gather(working, *leaving, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
