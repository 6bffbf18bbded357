"""The figures that counting takes: shared by all who ask within a moment.

A count reads every row it counts. A dashboard in each of twenty browsers, a scraper and a ``status --watch`` ask every
second; they get one answer, at most `KEPT_SECONDS` old, computed once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from mailmill.store import event_log, outbox, queue_view, requests
from mailmill.store import message_queries as queries
from mailmill.store.tables import mailbox, parked

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.database import Database
    from mailmill.store.outbox import DeliveryCounts
    from mailmill.store.queue_view import QueueCounts

KEPT_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted. ``messages``, ``mailboxes`` and ``open_requests`` are by account id, accounts without any left
    out.

    ``cursor`` is the event log's head from before the counting: whoever follows events from it misses nothing that the
    figures do not show.
    """

    cursor: int
    work: QueueCounts
    deliveries: DeliveryCounts
    messages: dict[int, int]
    mailboxes: dict[int, int]
    threats: dict[str, int]
    parked: int
    open_requests: dict[int, int]


class FigureCache:
    """The figures of one store. One computation at a time; who comes meanwhile waits for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = asyncio.Lock()
        self._kept: Figures | None = None
        self._kept_until = 0.0

    async def get(self) -> Figures:
        """Figures at most `KEPT_SECONDS` old. Raises StoreError."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if self._kept is None or loop.time() >= self._kept_until:
                async with self._database.read() as connection:
                    self._kept = await _count(connection)
                self._kept_until = loop.time() + KEPT_SECONDS
            return self._kept


async def _count(connection: AsyncConnection) -> Figures:
    mailboxes = await connection.execute(
        select(mailbox.c.account_id, func.count()).where(mailbox.c.deleted_at.is_(None)).group_by(mailbox.c.account_id)
    )
    return Figures(
        cursor=await event_log.head(connection),
        work=await queue_view.counts(connection),
        deliveries=await outbox.counts(connection),
        messages=await queries.count_messages(connection),
        mailboxes={row[0]: row[1] for row in mailboxes},
        threats=await queries.count_verdicts(connection),
        parked=await connection.scalar(select(func.count()).select_from(parked)) or 0,
        open_requests=await requests.count_open(connection),
    )
