"""What the queue looks like from outside: counts and listings, read-only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, union_all

from mailmill.store import work_errors
from mailmill.store.tables import account, message, result, work
from mailmill.store.work_errors import WorkError
from mailmill.store.work_state import FAILED, NOT_PENDING, PENDING, PROCESSING, THROTTLED, WAITING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sqlalchemy import RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

_HEAD_ROWS: Final = 100
_BY_NAME: Final = {
    "pending": PENDING,
    "waiting": WAITING,
    "throttled": THROTTLED,
    "processing": PROCESSING,
    "failed": FAILED,
}


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Rows by state (``pending`` includes those that wait for another try or for their account's turn; ``completed``
    counts recorded results).

    ``oldest_at`` is when the row that has waited longest was enqueued, looked for among the next of each lane; None
    where nothing waits.
    """

    pending: int
    processing: int
    completed: int
    failed: int
    oldest_at: float | None


@dataclass(frozen=True, slots=True)
class WorkRow:
    """A row as ``queue list`` and ``queue show`` show it; ``errors`` oldest first."""

    message_id: int
    account: str
    subject: str
    processor: str
    version: int
    state: str
    priority: int
    attempt: int
    crashes: int
    run_at: float
    enqueued_at: float
    error: str
    worker_id: str = ""
    errors: tuple[WorkError, ...] = ()


async def counts(connection: AsyncConnection) -> QueueCounts:
    """How much there is in each state."""
    lanes = (
        await connection.execute(
            select(work.c.processor, work.c.priority, func.count())
            .where(PENDING)
            .group_by(work.c.processor, work.c.priority)
        )
    ).all()
    others: dict[str, int] = {
        row[0]: row[1]
        for row in await connection.execute(
            select(work.c.state, func.count()).where(NOT_PENDING).group_by(work.c.state)
        )
    }
    completed = await connection.scalar(select(func.count()).select_from(result))
    return QueueCounts(
        pending=sum(lane[2] for lane in lanes) + others.get("waiting", 0) + others.get("throttled", 0),
        processing=others.get("processing", 0),
        completed=completed or 0,
        failed=others.get("failed", 0),
        oldest_at=await _oldest(connection, [(lane[0], lane[1]) for lane in lanes]),
    )


async def list_work(
    connection: AsyncConnection, *, state: str | None = None, processor: str | None = None, limit: int = 100
) -> list[WorkRow]:
    """Rows of the queue, next to be claimed first, with the account and subject of their messages."""
    wanted = _shown().order_by(work.c.priority, work.c.vt, work.c.message_id).limit(limit)
    if state is not None:
        wanted = wanted.where(_BY_NAME.get(state, work.c.state == state))
    if processor is not None:
        wanted = wanted.where(work.c.processor == processor)
    return [_work_row(row) for row in (await connection.execute(wanted)).mappings()]


async def work_of_message(connection: AsyncConnection, message_id: int) -> list[WorkRow]:
    """What is left to do for one message, by processor."""
    wanted = _shown().where(work.c.message_id == message_id).order_by(work.c.processor)
    return [_work_row(row) for row in (await connection.execute(wanted)).mappings()]


async def has_work(connection: AsyncConnection, processor: str) -> bool:
    """Whether there is work for a processor of this name, in whatever state."""
    states = (PENDING, NOT_PENDING)
    found = [
        await connection.scalar(select(work.c.message_id).where(state, work.c.processor == processor).limit(1))
        for state in states
    ]
    return any(one is not None for one in found)


def _shown() -> Select[Any]:
    return (
        select(
            work.c.message_id,
            account.c.name.label("account"),
            message.c.subject,
            work.c.processor,
            work.c.version,
            work.c.state,
            work.c.priority,
            work.c.attempt,
            work.c.crashes,
            work.c.run_at,
            work.c.enqueued_at,
            work.c.last_error.label("error"),
            work.c.worker_id,
            work.c.errors,
        )
        .join(message, message.c.id == work.c.message_id)
        .join(account, account.c.id == work.c.account_id)
    )


def _work_row(row: RowMapping) -> WorkRow:
    return WorkRow(**{**row, "errors": work_errors.read(row["errors"])})


async def _oldest(connection: AsyncConnection, lanes: Sequence[tuple[str, int]]) -> float | None:
    """The oldest among the next rows of each lane: looking at all would read the whole backlog."""
    if not lanes:
        return None
    heads = []
    for processor, priority in lanes:
        head = (
            select(work.c.enqueued_at)
            .where(PENDING, work.c.processor == processor, work.c.priority == priority)
            .order_by(work.c.vt)
            .limit(_HEAD_ROWS)
            .subquery()
        )
        heads.append(select(func.min(head.c.enqueued_at).label("oldest")))
    every = union_all(*heads).subquery()
    oldest: float | None = await connection.scalar(select(func.min(every.c.oldest)))
    return oldest
