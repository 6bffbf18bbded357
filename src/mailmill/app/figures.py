"""The figures that counting takes: shared by all who ask within a moment.

A count reads an entry of an index for every row it counts. A dashboard in each of twenty browsers, a scraper and a
``status --watch`` ask every second; they get one answer, computed once. It is kept for `KEPT_SECONDS`, and longer the
longer it took: counting has no more than one part in `SHARE` of the time, however large the store is. What is counted
of mail (which reads rows) and what is counted of work (which does not) are kept apart, so that the depth of the queue
stays fresh in a store of millions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from sqlalchemy import func, select

from mailmill.store import event_log, leases, message_counts, operating_figures, outbox, queue_view, requests
from mailmill.store.accounts import SHARDS
from mailmill.store.tables import mailbox, parked

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.database import Database
    from mailmill.store.leases import Fleet
    from mailmill.store.operating_figures import DeliveryBacklog, Depth, EventLag
    from mailmill.store.outbox import DeliveryCounts
    from mailmill.store.queue_view import QueueCounts

KEPT_SECONDS: Final = 0.5
SHARE: Final = 10
LONGEST_KEPT_SECONDS: Final = 60.0

Counted = TypeVar("Counted")


@dataclass(frozen=True, slots=True)
class WorkFigures:
    """What was counted of queue, outbox and event log. ``open_requests`` is by account id. ``fleet`` is None where one
    process is alone."""

    cursor: int
    work: QueueCounts
    deliveries: DeliveryCounts
    open_requests: dict[int, int]
    depths: list[Depth]
    quarantined: dict[str, int]
    backlogs: list[DeliveryBacklog]
    event_lag: EventLag
    fleet: Fleet | None


@dataclass(frozen=True, slots=True)
class MailFigures:
    """What was counted of mail. ``messages`` and ``mailboxes`` are by account id, accounts without any left out."""

    cursor: int
    messages: dict[int, int]
    mailboxes: dict[int, int]
    threats: dict[str, int]
    parked: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Both. ``cursor`` is the event log's head from before the counting: whoever follows events from it misses nothing
    that the figures do not show.
    """

    of_work: WorkFigures
    of_mail: MailFigures

    @property
    def cursor(self) -> int:
        return min(self.of_work.cursor, self.of_mail.cursor)

    @property
    def work(self) -> QueueCounts:
        return self.of_work.work

    @property
    def deliveries(self) -> DeliveryCounts:
        return self.of_work.deliveries

    @property
    def open_requests(self) -> dict[int, int]:
        return self.of_work.open_requests

    @property
    def messages(self) -> dict[int, int]:
        return self.of_mail.messages

    @property
    def mailboxes(self) -> dict[int, int]:
        return self.of_mail.mailboxes

    @property
    def threats(self) -> dict[str, int]:
        return self.of_mail.threats

    @property
    def parked(self) -> int:
        return self.of_mail.parked


class FigureCache:
    """The figures of one store."""

    def __init__(self, database: Database) -> None:
        self._work = Kept(database, _count_work)
        self._mail = Kept(database, _count_mail)

    async def get(self) -> Figures:
        """Figures at most `KEPT_SECONDS` old, older only where counting takes long. Raises StoreError."""
        # One after the other: a dashboard is not worth two of the readers.
        return Figures(await self._work.get(), await self._mail.get())


class Kept(Generic[Counted]):
    """One count, for all who ask. One at a time; who comes meanwhile waits for it."""

    def __init__(self, database: Database, count: Callable[[AsyncConnection], Awaitable[Counted]]) -> None:
        self._database = database
        self._count = count
        self._turn = asyncio.Lock()
        self._kept: Counted | None = None
        self._until = 0.0

    async def get(self, *, fresh: bool = False) -> Counted:
        """``fresh``: counted after the call began. Raises StoreError."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if self._kept is None or fresh or loop.time() >= self._until:
                began = loop.time()
                async with self._database.read() as connection:
                    self._kept = await self._count(connection)
                now = loop.time()
                self._until = now + min(LONGEST_KEPT_SECONDS, max(KEPT_SECONDS, SHARE * (now - began)))
            return self._kept


async def _count_work(connection: AsyncConnection) -> WorkFigures:
    return WorkFigures(
        cursor=await event_log.head(connection),
        work=await queue_view.counts(connection),
        deliveries=await outbox.counts(connection),
        open_requests=await requests.count_open(connection),
        depths=await operating_figures.depths(connection),
        quarantined=await operating_figures.quarantined(connection),
        backlogs=await operating_figures.delivery_backlogs(connection),
        event_lag=await operating_figures.event_lag(connection),
        fleet=await _fleet(connection),
    )


async def _count_mail(connection: AsyncConnection) -> MailFigures:
    mailboxes = await connection.execute(
        select(mailbox.c.account_id, func.count()).where(mailbox.c.deleted_at.is_(None)).group_by(mailbox.c.account_id)
    )
    return MailFigures(
        cursor=await event_log.head(connection),
        messages=await message_counts.count_messages(connection),
        mailboxes={row[0]: row[1] for row in mailboxes},
        threats=await message_counts.count_verdicts(connection),
        parked=await connection.scalar(select(func.count()).select_from(parked)) or 0,
    )


async def _fleet(connection: AsyncConnection) -> Fleet | None:
    """SQLite has no rows of shards: one process owns them all."""
    fleet = await leases.read_fleet(connection)
    return fleet if len(fleet.shards) == SHARDS else None
