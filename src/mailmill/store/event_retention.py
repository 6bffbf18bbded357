"""Removing old events, and the deliveries that are over and done with, in small pieces.

Laws:

* An event goes with its deliveries, and stays as long as one of them is still to be made, or as the outbox has not
  looked at it.
* What goes is the front of the log. `marks.REMOVED` says how far, and goes forward in the transaction that removes: a
  reader that stands below is told (`event_log.read_after`), never left with a hole. Single events that are kept for a
  delivery stand below it and are nobody else's to read; they go when the delivery is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, delete, exists, select

from mailmill.store import dialect, event_log, marks
from mailmill.store.tables import delivery, event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

_OPEN = delivery.c.state.in_(("pending", "sending"))


async def prune(connection: AsyncConnection, before: ColumnElement[float] | float, limit: int) -> int:
    """Remove events from before then (epoch seconds; the database's clock, where several nodes share one).

    One small transaction's worth. Returns how many events it dealt with; fewer than ``limit``: that was all.
    """
    removed = await marks.lock(connection, marks.REMOVED)
    planned = await marks.get(connection, marks.PLANNED)
    at = event_log.position_column(connection)
    oldest = select(event.c.id, at.label("position"), (event.c.created_at < before).label("is_old"))
    if planned is not None:
        oldest = oldest.where(at <= planned)
    rows = list(await connection.execute(oldest.where(at > removed).order_by(at).limit(limit)))
    # Not the first that is young: one whose writer's clock was ahead must not keep all that follows for years.
    while rows and not rows[-1].is_old:
        rows.pop()
    if rows:
        await _remove(connection, [row.id for row in rows])
        await marks.move(connection, marks.REMOVED, rows[-1].position)
    return len(rows) + await _remove_kept(connection, removed, limit - len(rows))


async def _remove_kept(connection: AsyncConnection, removed: int, limit: int) -> int:
    """Remove what was kept for a delivery that is over by now."""
    at = event_log.position_column(connection)
    needed = exists().where(delivery.c.event_id == event.c.id, _OPEN)
    over = select(event.c.id).where(at <= removed, ~needed).order_by(at).limit(limit)
    found = list((await connection.execute(over)).scalars()) if limit else []
    await _remove(connection, found)
    return len(found)


async def _remove(connection: AsyncConnection, event_ids: Sequence[int]) -> None:
    for some in dialect.chunks(event_ids):
        needed = select(delivery.c.event_id).where(delivery.c.event_id.in_(some), _OPEN)
        kept = set((await connection.execute(needed)).scalars())
        gone = [event_id for event_id in some if event_id not in kept]
        await connection.execute(delete(delivery).where(delivery.c.event_id.in_(gone)))
        await connection.execute(delete(event).where(event.c.id.in_(gone)))
