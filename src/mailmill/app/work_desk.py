"""What people do with the queue: look, run failed work again, give work up, pause and resume a processor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog

from mailmill.app import views
from mailmill.app.message_ids import message_number
from mailmill.errors import InvalidRequestError, NotFoundError
from mailmill.store import message_queries as queries
from mailmill.store import processors, queue, queue_view
from mailmill.store.database import WakeName

if TYPE_CHECKING:
    from mailmill.app.supervisor import Application

JsonObject = dict[str, Any]

_WAKE_WORK: tuple[WakeName, ...] = ("work",)
_DROPPED_AT_ONCE = 1000

_log = structlog.get_logger("mailmill.app")


class WorkDesk:
    """One per application. Every method answers in the words of the public contract."""

    def __init__(self, application: Application) -> None:
        self._app = application

    async def rows(self, *, state: str | None, processor: str | None, limit: int) -> list[JsonObject]:
        """Work that is not done, next to be run first."""
        async with self._app.database.read() as connection:
            rows = await queue_view.list_work(connection, state=state, processor=processor, limit=limit)
        return [views.work_row(row) for row in rows]

    async def show(self, message_id: str) -> list[JsonObject]:
        """What is left to do for one message, with every error; empty where all is done. Raises NotFoundError."""
        number = message_number(message_id)
        async with self._app.database.read() as connection:
            rows = await queue_view.work_of_message(connection, number)
            if not rows:
                await queries.get_message(connection, number)
        return [views.work_row(row) for row in rows]

    async def retry(self, *, message_ids: list[str] | None, processor: str | None) -> int:
        """Run failed work again: of these messages, of this processor, or all. Returns how many rows."""
        numbers = None if message_ids is None else [message_number(each) for each in message_ids]
        async with self._app.database.write(wake=_WAKE_WORK) as connection:
            return await queue.retry(connection, message_ids=numbers, processor=processor, now=time.time())

    async def drop(
        self, *, message_ids: list[str] | None, processor: str | None, everything: bool, any_state: bool
    ) -> int:
        """Give failed work up (``any_state``: also what waits or runs): of these messages, of this processor, or all.

        Returns how many rows went. Raises InvalidRequestError where nothing is named.
        """
        if message_ids is None and processor is None and not everything:
            raise InvalidRequestError(
                "nothing is named to be dropped", hint="name messages or a processor, or say that all is meant"
            )
        numbers = None if message_ids is None else [message_number(each) for each in message_ids]
        dropped, piece = 0, _DROPPED_AT_ONCE
        # In pieces: a million rows in one transaction would keep all others from writing for minutes.
        while piece == _DROPPED_AT_ONCE:
            async with self._app.database.write(wake=_WAKE_WORK) as connection:
                piece = await queue.drop(
                    connection,
                    message_ids=numbers,
                    processor=processor,
                    only_failed=not any_state,
                    now=time.time(),
                    limit=_DROPPED_AT_ONCE,
                )
            dropped += piece
        if dropped:
            _log.warning("work was given up by hand", rows=dropped, processor=processor, messages=len(numbers or ()))
        return dropped

    async def pause(self, processor: str) -> JsonObject:
        """Have no node run this processor. Raises NotFoundError where nobody knows it."""
        await self._check(processor)
        async with self._app.database.write(wake=_WAKE_WORK) as connection:
            changed = await processors.pause(connection, processor, time.time())
        return {"processor": processor, "paused": True, "changed": changed}

    async def resume(self, processor: str) -> JsonObject:
        """Have it run again. Raises NotFoundError where nobody knows it."""
        await self._check(processor)
        async with self._app.database.write(wake=_WAKE_WORK) as connection:
            changed = await processors.resume(connection, processor)
        return {"processor": processor, "paused": False, "changed": changed}

    async def _check(self, name: str) -> None:
        """Nodes may differ in what they run: what has work or is paused is known too."""
        configured = {processor.name for processor in self._app.processors}
        if name in configured:
            return
        async with self._app.database.read() as connection:
            if name in await processors.paused(connection) or await queue_view.has_work(connection, name):
                return
        known = ", ".join(sorted(configured)) or "none"
        raise NotFoundError(f"no processor is called {name!r}", hint=f"configured: {known}")
