"""The planner (event log → outbox) and one pump per destination (outbox → out).

::

    event ──planner──▶ delivery rows ──pump A──▶ destination A
                                     └─pump B──▶ destination B        each on its own

Hints wake them within a moment of a commit; a jittered poll stands behind each.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import func, select

from mailmill.alerts.envelopes import Envelopes
from mailmill.alerts.pump import Pump, pause_after, stopped_within, trace_of
from mailmill.alerts.rules import matching
from mailmill.alerts.senders import make_sender
from mailmill.errors import MailmillError
from mailmill.store import dialect, outbox, queue
from mailmill.store.tables import account

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

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Everything from the event log to the destinations.

    ``worker_id`` names this process and is never used again by another; ``observe`` gets (histogram, seconds).
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        destinations: Sequence[Destination],
        worker_id: str,
        observe: Callable[[str, float], None] = lambda _stage, _seconds: None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._destinations = tuple(destinations)
        self._worker_id = worker_id
        self._observe = observe
        self._accounts: dict[int, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. Can be cancelled.

        Raises ConfigurationError for a destination that cannot be. What fails later is logged and done again after a
        while.

        Stopping takes at most ``pump.STOP_SECONDS`` for what is on its way and as much for writing it down.
        """
        # In a thread: a client reads the trusted certificates from disk.
        senders = await asyncio.to_thread(lambda: [make_sender(destination) for destination in self._destinations])
        envelopes = Envelopes(self._database, self._blobs)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._plan_until(stop), name="planner")
            for destination, sender in zip(self._destinations, senders, strict=True):
                pump = Pump(destination, sender, self._database, envelopes, self._worker_id, self._observe)
                group.create_task(pump.run(stop), name=f"destination {destination.name}")

    async def _plan_until(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        with self._database.wake.events.subscribe() as hint:
            stopper = asyncio.create_task(_notify_when(stop, hint.notify))
            recovered_at: float | None = None
            failures = 0
            try:
                while not stop.is_set():
                    try:
                        if recovered_at is None or loop.time() - recovered_at >= HEARTBEAT_SECONDS:
                            await self._recover(first=recovered_at is None)
                            recovered_at = loop.time()
                        planned = await self._plan()
                        failures = 0
                    except Exception as error:  # noqa: BLE001 - the boundary of the planner: the pumps go on
                        failures += 1
                        pause = pause_after(failures)
                        if isinstance(error, MailmillError):
                            _log.warning("planning waits for the store", error=str(error), hint=error.hint)
                        else:
                            _log.error("planning failed in an unforeseen way", exception=trace_of(error))
                        await stopped_within(stop, pause)
                        continue
                    if planned < PLAN_BATCH:
                        await hint.wait(POLL_SECONDS * random.uniform(0.5, 1))  # noqa: S311 - jitter
            finally:
                stopper.cancel()

    async def _plan(self) -> int:
        """Plan one batch of events; how many were looked at."""
        async with self._database.write() as connection:
            await self._learn_accounts(connection)
            return await outbox.plan_deliveries(connection, PLAN_BATCH, self._match, time.time())

    def _match(self, event: EventRow) -> list[str]:
        name = self._accounts.get(event.account_id) if event.account_id is not None else None
        return matching(event, self._destinations, name)

    async def _learn_accounts(self, connection: AsyncConnection) -> None:
        """Account names, where a destination asks for some: read again only when there are new ones."""
        if not any(destination.accounts for destination in self._destinations):
            return
        newest = await connection.scalar(select(func.max(account.c.id)))
        if newest is not None and newest not in self._accounts:
            rows = await connection.execute(select(account.c.id, account.c.name))
            self._accounts = {row.id: row.name for row in rows}

    async def _recover(self, *, first: bool = False) -> None:
        """Show that we live, and take back what the dead held.

        On SQLite we hold the data folder, so at the start whoever else held a delivery is dead.
        """
        now = time.time()
        async with self._database.write() as connection:
            await queue.heartbeat(connection, self._worker_id, now)
            alone = first and not dialect.is_postgresql(connection)
            before = now if alone else now - DEAD_AFTER_SECONDS
            recovered = await outbox.recover(connection, heartbeat_before=before, now=now)
        if recovered:
            self._database.wake.deliveries.notify()
            _log.info("deliveries taken back from a process that is gone", deliveries=recovered)


async def _notify_when(stop: asyncio.Event, notify: Callable[[], None]) -> None:
    await stop.wait()
    notify()
