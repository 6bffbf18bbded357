"""Which messages one that was asked for is about, and how much of its work the queue holds.

Law: what is left of one is what its processor has in the queue for its messages, whoever queued it, until its own last
row was there. So one that passed over rows because they were queued waits for them too, and not for what came later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, exists, func, literal_column, select

from mailmill.store.tables import mailbox, message, place, work
from mailmill.store.work_state import NOT_PENDING, PENDING

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.reprocess import ReprocessRow, Wanted


def of_messages(wanted: Wanted) -> list[ColumnElement[bool]]:
    """Accounts, dates and mailboxes, as conditions on rows of ``message``."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.account_ids:
        conditions.append(message.c.account_id.in_(wanted.account_ids))
    if wanted.since is not None:
        conditions.append(message.c.internal_date >= wanted.since)
    if wanted.until is not None:
        conditions.append(message.c.internal_date < wanted.until)
    if wanted.mailboxes:
        conditions.append(
            exists().where(
                place.c.message_id == message.c.id,
                place.c.expunged_at.is_(None),
                mailbox.c.id == place.c.mailbox_id,
                mailbox.c.path.in_(wanted.mailboxes),
            )
        )
    return conditions


async def left(connection: AsyncConnection, row: ReprocessRow) -> int:
    """Rows of work for its messages that wait or run; of one that is cancelled, those alone that were queued since."""
    # Pending or not: each has an index of its own, and both together have none.
    not_over = (PENDING, NOT_PENDING & (work.c.state != literal_column("'failed'")))
    counted = [
        await connection.scalar(select(func.count()).select_from(work).where(state, *_queued_for(row)))
        for state in not_over
    ]
    return sum(each or 0 for each in counted)


def _queued_for(row: ReprocessRow) -> list[ColumnElement[bool]]:
    these = [work.c.processor == row.processor, work.c.message_id <= row.last_id]
    if row.finished_at is not None:
        these.append(work.c.enqueued_at <= row.finished_at)
    if row.wanted.failed or row.cancelled:
        these.append(work.c.enqueued_at >= row.created_at)
    scope = of_messages(row.wanted)
    if scope:
        these.append(exists().where(message.c.id == work.c.message_id, *scope))
    return these
