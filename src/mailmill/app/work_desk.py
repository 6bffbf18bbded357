"""What people do with the queue: look, run failed work again, give work up, pause and resume a processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from mailmill.app import views
from mailmill.app.maintenance import Progress
from mailmill.app.message_ids import message_number
from mailmill.app.queue_sweep import Change, Selection, sweep
from mailmill.errors import InvalidRequestError, NotFoundError
from mailmill.settings.problems import nearest
from mailmill.store import message_queries as queries
from mailmill.store import processors, queue, queue_operation, queue_view
from mailmill.store.database import WakeName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.app.application import Application

JsonObject = dict[str, Any]

_WAKE_WORK: tuple[WakeName, ...] = ("work",)

_log = structlog.get_logger("mailmill.app")


class WorkDesk:
    """One per application. Every method answers in the words of the public contract."""

    def __init__(self, application: Application) -> None:
        self._app = application
        self._sweeps: list[Progress] = []

    async def rows(self, *, state: str | None, processor: str | None, limit: int) -> list[JsonObject]:
        """Work that is not done, next to be run first. Raises NotFoundError where nobody knows the processor."""
        if processor is not None:
            await self._check(processor)
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

    async def retry(self, *, message_ids: list[str] | None, processor: str | None) -> JsonObject:
        """Run failed work again: of these messages, of this processor, or all. Answers with how many rows, and which of
        the named messages are unknown or have nothing that failed. Raises NotFoundError where nobody knows the
        processor.

        In pieces: what is done when the wait is given up stays done, and who asks again gets the rest. What fails
        again meanwhile stays failed.
        """

        async def change(connection: AsyncConnection, some: Sequence[int]) -> int:
            return await queue.retry(connection, message_ids=some, processor=processor, now=self._app.clock())

        wanted, without = await self._select(message_ids, processor, only_failed=True)
        return {"retried": await self._sweep("retry", wanted, change), **without}

    async def drop(
        self, *, message_ids: list[str] | None, processor: str | None, everything: bool, any_state: bool
    ) -> JsonObject:
        """Give failed work up (``any_state``: also what waits or runs): of these messages, of this processor, or all.

        Answers as `retry` does. Raises InvalidRequestError where nothing is named, NotFoundError where nobody knows the
        processor.
        """
        if message_ids is None and processor is None and not everything:
            raise InvalidRequestError(
                "nothing is named to be dropped", hint="name messages or a processor, or say that all is meant"
            )

        async def change(connection: AsyncConnection, some: Sequence[int]) -> int:
            return await queue.drop(
                connection, message_ids=some, processor=processor, only_failed=not any_state, now=self._app.clock()
            )

        wanted, without = await self._select(message_ids, processor, only_failed=not any_state)
        dropped = await self._sweep("drop", wanted, change)
        if dropped:
            named = len(wanted.message_ids or ())
            _log.warning("work was given up by hand", rows=dropped, processor=processor, messages=named)
        return {"dropped": dropped, **without}

    def operation(self) -> JsonObject:
        """``{"running": null}``, or how far what was asked last is: ``total`` is 0 where messages were named."""
        running = self._sweeps[-1] if self._sweeps else None
        if running is None:
            return {"running": None}
        return {"running": {"task": running.task, "phase": running.phase, "done": running.done, "total": running.total}}

    async def pause(self, processor: str) -> JsonObject:
        """Have no node run this processor. Raises NotFoundError where nobody knows it."""
        await self._check(processor)
        async with self._app.database.write(wake=_WAKE_WORK) as connection:
            changed = await processors.pause(connection, processor, self._app.clock())
        return {"processor": processor, "paused": True, "changed": changed}

    async def resume(self, processor: str) -> JsonObject:
        """Have it run again. Raises NotFoundError where nobody knows it."""
        await self._check(processor)
        async with self._app.database.write(wake=_WAKE_WORK) as connection:
            changed = await processors.resume(connection, processor)
        return {"processor": processor, "paused": False, "changed": changed}

    async def _select(
        self, message_ids: list[str] | None, processor: str | None, *, only_failed: bool
    ) -> tuple[Selection, JsonObject]:
        """What is meant, and what of it there is not. Raises NotFoundError, InvalidRequestError."""
        numbers = None if message_ids is None else [message_number(each) for each in message_ids]
        if processor is not None:
            await self._check(processor)
        without = queue_operation.Without((), ())
        if numbers is not None:
            async with self._app.database.read() as connection:
                without = await queue_operation.messages_without_work(
                    connection, numbers, processor=processor, only_failed=only_failed
                )
        told = {
            "unknown": [str(each) for each in without.unknown],
            "unaffected": [str(each) for each in without.unaffected],
        }
        return Selection(numbers, processor, only_failed), told

    async def _sweep(self, task: str, wanted: Selection, change: Change) -> int:
        progress = Progress(task, phase=task)
        self._sweeps.append(progress)
        try:
            return await sweep(self._app.database, wanted, change, progress, takes_away=task == "drop")
        finally:
            self._sweeps = [each for each in self._sweeps if each is not progress]

    async def _check(self, name: str) -> None:
        """Nodes may differ in what they run: what has work or is paused is known too."""
        configured = sorted(processor.name for processor in self._app.processors)
        if name in configured:
            return
        async with self._app.database.read() as connection:
            if name in await processors.paused(connection) or await queue_view.has_work(connection, name):
                return
        raise NotFoundError(
            f"no processor is called {name!r}{nearest(name, configured)}",
            hint=f"configured: {', '.join(configured) or 'none'}",
        )
