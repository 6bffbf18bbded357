"""The planner (event log → outbox) and one pump per destination (outbox → out).

::

    event ──planner──▶ delivery rows ──pump A──▶ destination A
                                     └─pump B──▶ destination B        each on its own

Hints wake them within a moment of a commit; a jittered poll stands behind each.

Any number of processes may do this side by side: they plan one after the other and share the rows of each destination,
so ``concurrency`` and health are those of one process. A third task proves that this one lives, or the others would
take back what it claimed.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import func, select

from mailmill.alerts.envelopes import Envelopes
from mailmill.alerts.pump import STOP_SECONDS, Pump
from mailmill.alerts.rules import matching
from mailmill.alerts.senders import make_sender
from mailmill.alerts.turning import turn_until
from mailmill.store import dialect, outbox, queue
from mailmill.store.tables import account
from mailmill.store.wakeups import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.alerts.rules import Destination
    from mailmill.store.blobs import BlobStore
    from mailmill.store.database import Database
    from mailmill.store.event_log import EventRow

PLAN_BATCH: Final = 500
POLL_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 10.0
DEAD_AFTER_SECONDS: Final = 60.0

_ID_CHARACTERS: Final = 70  # of 80 that there are; what makes it one of a kind stands at its end

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Everything from the event log to the destinations.

    ``worker_id`` names this process and is never used again by another; ``observe`` gets (histogram, seconds);
    ``clock`` tells seconds since the epoch, best the database's: a receiver refuses what is signed hours off.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        destinations: Sequence[Destination],
        worker_id: str,
        observe: Callable[[str, float], None] = lambda _stage, _seconds: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._destinations = tuple(destinations)
        # Not the worker's own: that one ends its proof of life when the processors have stopped, which is before us.
        self._worker_id = f"{worker_id[-_ID_CHARACTERS:]}/alerts"
        self._known = asyncio.Event()
        self._observe = observe
        self._clock = clock
        self._accounts: dict[int, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. Can be cancelled.

        Raises ConfigurationError for a destination that cannot be. What fails later is logged and done again after a
        while.

        Stopping takes at most ``pump.STOP_SECONDS`` for what is on its way and as much for writing it down.
        """
        # In a thread: a client reads the trusted certificates from disk.
        senders = await asyncio.to_thread(lambda: [make_sender(each, self._clock) for each in self._destinations])
        envelopes = Envelopes(self._database, self._blobs)
        ended = asyncio.Event()
        alive = asyncio.create_task(self._live_until(ended), name="proof of life")
        try:
            # Before it is known that we live, what we claim could be taken back from us.
            await _either(self._known, stop)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._plan_until(stop), name="planner")
                for destination, sender in zip(self._destinations, senders, strict=True):
                    pump = Pump(
                        destination, sender, self._database, envelopes, self._worker_id, self._observe, self._clock
                    )
                    group.create_task(pump.run(stop), name=f"destination {destination.name}")
        finally:
            # Also while the pumps wind down: what they still hold is theirs.
            ended.set()
            await alive

    async def _live_until(self, stop: asyncio.Event) -> None:
        async def turn() -> float:
            await self._show_life(first=not self._known.is_set())
            self._known.set()
            return HEARTBEAT_SECONDS

        await turn_until(stop, turn, Subscription(), "the proof of life", _log)
        try:
            async with asyncio.timeout(STOP_SECONDS), self._database.write() as connection:
                await queue.retire(connection, self._worker_id)
        except Exception as error:  # noqa: BLE001 - it is found dead after a while
            _log.warning("deliveries that were not closed wait for their recovery", error=str(error))

    async def _show_life(self, *, first: bool) -> None:
        """Show that we live, and take back what the dead held.

        Where nobody else has this database open, whoever held a delivery before us is dead.
        """
        dead_after_seconds = 0.0 if first and self._database.alone else DEAD_AFTER_SECONDS
        async with self._database.write() as connection:
            await queue.heartbeat(connection, self._worker_id, dialect.now(connection))
            recovered = await outbox.recover(
                connection, dead_after_seconds=dead_after_seconds, now=dialect.now(connection)
            )
        if recovered:
            self._database.wake.deliveries.notify()
            _log.info("deliveries taken back from a process that is gone", deliveries=recovered)

    async def _plan_until(self, stop: asyncio.Event) -> None:
        with self._database.wake.events.subscribe() as hint:
            await turn_until(stop, self._plan, hint, "planning", _log)

    async def _plan(self) -> float:
        """Plan one batch of events. Returns how long to wait for a hint; 0: there may be more."""
        if not self._database.alone:
            # The lock below costs a commit even where there is nothing to plan, and every process is told of an event.
            async with self._database.read() as connection:
                if await outbox.is_planned(connection):
                    return _poll_seconds()
        async with self._database.write() as connection:
            await self._learn_accounts(connection)
            planned = await outbox.plan_deliveries(connection, PLAN_BATCH, self._match, dialect.now(connection))
        return 0.0 if planned == PLAN_BATCH else _poll_seconds()

    def _match(self, event: EventRow) -> list[str]:
        # Of an account that was deleted the event itself has the name.
        name = self._accounts.get(event.account_id) if event.account_id is not None else event.data.get("account")
        return matching(event, self._destinations, name)

    async def _learn_accounts(self, connection: AsyncConnection) -> None:
        """Account names, where a destination asks for some: read again only when there are new ones."""
        if not any(destination.accounts for destination in self._destinations):
            return
        newest = await connection.scalar(select(func.max(account.c.id)))
        if newest is not None and newest not in self._accounts:
            rows = await connection.execute(select(account.c.id, account.c.name))
            self._accounts = {row.id: row.name for row in rows}


def _poll_seconds() -> float:
    return POLL_SECONDS * random.uniform(0.5, 1)  # noqa: S311 - jitter


async def _either(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
