"""A stream of messages through the threat engine, by several processes, in the order in which they came."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from mailmill.app.mail_files import Mail, NoMail
from mailmill.app.threat_scanner import JsonObject, Order, Scanner, Scope, scan_in_child
from mailmill.errors import ProcessorError
from mailmill.processing.children import Children
from mailmill.processing.registry import Context

MESSAGE_SECONDS: Final = 120.0
"""What takes longer is given up: every part of a scan has a bound of its own, far below."""

_WAITING_PER_JOB: Final = 4
_WAITING_BYTES: Final = 64 << 20
_WORTH_A_CHILD_BYTES: Final = 1 << 20


def jobs_worth(wanted: int | None, size_bytes: int | None) -> int:
    """How many processes to use: as ``wanted``; else none for what is done before one has started, else all cores."""
    if wanted is not None:
        return wanted
    if size_bytes is not None and size_bytes < _WORTH_A_CHILD_BYTES:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


async def scan_each(
    items: Iterator[Mail | NoMail], scope: Scope, *, jobs: int = 1
) -> AsyncGenerator[tuple[Mail | NoMail, JsonObject]]:
    """Every item with the record of its message, in their order; of no mail the record is empty.

    A message that could not be scanned has the record ``{"error": {"code", "message"}}``. With ``jobs`` above 1 that
    many child processes work; a message that breaks one costs itself alone. Some messages are read ahead, at most
    ``_WAITING_BYTES`` and one. Raises ConfigurationError for options that make no sense.
    """
    # Made here also where children work, which make their own: what is wrong with the options is told once.
    scanner = await asyncio.to_thread(Scanner, scope)
    children = Children(jobs) if jobs > 1 else None
    waiting: deque[tuple[Mail | NoMail, asyncio.Task[JsonObject]]] = deque()
    held_bytes = 0

    async def record(item: Mail | NoMail) -> JsonObject:
        if isinstance(item, NoMail):
            return {}
        try:
            if children is not None:
                return await _ask(children, item.raw, scope)
            return await asyncio.to_thread(scanner.record, item.raw)
        except ProcessorError as error:
            return {"error": {"code": error.code, "message": str(error)}}
        except Exception as error:  # noqa: BLE001 - a fault of ours costs one message, and is shown
            return {"error": {"code": "internal", "message": f"{type(error).__name__}: {error}"}}

    try:
        more = True
        while more or waiting:
            full = len(waiting) >= (jobs * _WAITING_PER_JOB if jobs > 1 else 1) or held_bytes > _WAITING_BYTES
            if more and not full:
                item = await asyncio.to_thread(next, items, None)
                more = item is not None
                if item is not None:
                    held_bytes += _size(item)
                    waiting.append((item, asyncio.create_task(record(item))))
                continue
            first, task = waiting[0]
            found = await task
            waiting.popleft()
            held_bytes -= _size(first)
            yield first, found
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)
        if children is not None:
            await children.close()
        await asyncio.to_thread(scanner.close)


async def _ask(children: Children, raw: bytes, scope: Scope) -> JsonObject:
    context = Context("", scope.own_address, 0, (), scope.authserv_id, 1, historical=True)
    answer = await children.run(
        scan_in_child, Order(raw, scope), context, timeout_seconds=MESSAGE_SECONDS, size_bytes=len(raw)
    )
    found: JsonObject = json.loads(answer)
    return found


def _size(item: Mail | NoMail) -> int:
    return len(item.raw) if isinstance(item, Mail) else 0
