"""What an operator watches, counted by index: how deep queue and outbox are, and how long their oldest have waited.

Law: every count walks an index and reads no mail; ages are looked for among the next in line. (SQLite 3.40 looks at the
row of work behind each entry of a partial index too: a few times the cost, which the caller's cache bounds.)
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, literal, literal_column, select, union_all

from mailmill.store import dialect, event_log, marks
from mailmill.store.queue_rows import BACKLOG
from mailmill.store.tables import delivery, event, work
from mailmill.store.work_state import FAILED, NOT_PENDING, PENDING, PROCESSING

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_HEAD_ROWS: Final = 100
_DELIVERY_PENDING: Final = delivery.c.state == literal_column("'pending'")  # a literal, as in `work_state`


@dataclass(frozen=True, slots=True)
class Depth:
    """Rows of one processor in one state: that of the row, but ``backlog`` for pending ones that stand behind new mail.

    ``oldest_at``: when the oldest was enqueued, of pending ones and the backlog among the next in line, of processing
    ones among all; None in other states.
    """

    processor: str
    state: str
    rows: int
    oldest_at: float | None


@dataclass(frozen=True, slots=True)
class DeliveryBacklog:
    """Deliveries that wait for one destination, and when the oldest of them was planned (epoch seconds)."""

    destination: str
    pending: int
    oldest_at: float | None


@dataclass(frozen=True, slots=True)
class EventLag:
    """Events that the outbox has not looked at yet, and when the oldest of them was written; None where there is
    none."""

    events: int
    oldest_at: float | None


async def depths(connection: AsyncConnection) -> list[Depth]:
    """By processor and state; what there is none of is left out."""
    lanes = (
        await connection.execute(
            select(work.c.processor, work.c.priority, func.count())
            .where(PENDING)
            .group_by(work.c.processor, work.c.priority)
        )
    ).all()
    oldest = await _oldest(connection, [(lane[0], lane[1]) for lane in lanes])
    held: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for (processor, priority, count), oldest_at in zip(lanes, oldest, strict=True):
        held[processor, "backlog" if priority >= BACKLOG else "pending"].append((count, oldest_at))
    found = [
        Depth(processor, state, sum(count for count, _ in parts), min(oldest_at for _, oldest_at in parts))
        for (processor, state), parts in sorted(held.items())
    ]
    since = {
        row[0]: row[1]
        for row in await connection.execute(
            select(work.c.processor, func.min(work.c.enqueued_at)).where(PROCESSING).group_by(work.c.processor)
        )
    }
    others = await connection.execute(
        select(work.c.processor, work.c.state, func.count())
        .where(NOT_PENDING)
        .group_by(work.c.state, work.c.processor)
        .order_by(work.c.state, work.c.processor)
    )
    for processor, state, count in others:
        found.append(Depth(processor, state, count, since.get(processor) if state == "processing" else None))
    return found


async def quarantined(connection: AsyncConnection) -> dict[str, int]:
    """Processor → failed rows that had killed a worker, or a child that they were run in after that."""
    rows = await connection.execute(
        select(work.c.processor, func.count()).where(FAILED, work.c.crashes > 0).group_by(work.c.processor)
    )
    return {row[0]: row[1] for row in rows}


async def delivery_backlogs(connection: AsyncConnection) -> list[DeliveryBacklog]:
    """By destination; those that nothing waits for are left out. Ids follow the order of planning."""
    waiting = (
        select(delivery.c.destination, func.count().label("pending"), func.min(delivery.c.id).label("first_id"))
        .where(_DELIVERY_PENDING)
        .group_by(delivery.c.destination)
        .subquery()
    )
    rows = await connection.execute(
        select(waiting.c.destination, waiting.c.pending, delivery.c.created_at)
        .join(delivery, delivery.c.id == waiting.c.first_id)
        .order_by(waiting.c.destination)
    )
    return [DeliveryBacklog(*row) for row in rows]


async def event_lag(connection: AsyncConnection) -> EventLag:
    """How far the outbox is behind the event log. On PostgreSQL what has no number yet is behind too."""
    at = event_log.position_column(connection)
    planned = marks.column(marks.PLANNED)
    behind = await connection.scalar(select(func.count()).select_from(event).where(at > planned)) or 0
    first: float | None = await connection.scalar(select(event.c.created_at).where(at > planned).order_by(at).limit(1))
    if dialect.is_postgresql(connection):
        unnumbered = event.c.seq.is_(None)
        behind += await connection.scalar(select(func.count()).select_from(event).where(unnumbered)) or 0
        if first is None:
            first = await connection.scalar(select(event.c.created_at).where(unnumbered).order_by(event.c.id).limit(1))
    return EventLag(behind, first)


async def _oldest(connection: AsyncConnection, lanes: list[tuple[str, int]]) -> list[float]:
    """When the oldest among the next rows of each lane (processor, priority) was enqueued."""
    if not lanes:
        return []
    heads = []
    for number, (processor, priority) in enumerate(lanes):
        head = (
            select(work.c.enqueued_at)
            .where(PENDING, work.c.processor == processor, work.c.priority == priority)
            .order_by(work.c.vt)
            .limit(_HEAD_ROWS)
            .subquery()
        )
        heads.append(select(literal(number).label("lane"), func.min(head.c.enqueued_at).label("oldest")))
    rows = await connection.execute(union_all(*heads))
    oldest = {row.lane: row.oldest for row in rows}
    # On PostgreSQL a lane may have been emptied between the two statements.
    return [math.inf if oldest[number] is None else oldest[number] for number in range(len(lanes))]
