"""The work queue: one row for each processor that has yet to run over a message.

States of a row::

    enqueue ──▶ pending ──claim──▶ processing ──finish──▶ (row deleted, result recorded)
                ▲ ▲ ▲ │              │   │
                │ │ │ └─▶ throttled  │   │      its account has enough in processing; let in again ──▶ pending
                │ │ └◀───release─────┘   ├────── failed, to be tried again (attempt + 1) ──▶ waiting ──▶ pending
                │ └◀──reap (crashes + 1) │
                └──────retry────────── failed ◀─ failed for good, or died too often ──drop──▶ (row deleted, no result)

Laws:

- A claim raises the fence. Finish, fail and release touch a row only where the fence and the worker are still those of
  the claim, so a worker that was given up for dead and comes back writes nothing.
- The row goes, and its result and events come, in one transaction: a crash leaves both or neither.
- ``attempt`` counts what the processor did (raised, timed out), ``crashes`` workers that died. A row that crashed
  is claimed alone, by a worker that runs nothing else of its processor, so that the next death names the culprit.
- Times that nodes compare (leases, deadlines, when to try again) go by the database's clock.
- Functions run inside the caller's transaction and name at most :data:`dialect.MAX_ROWS` rows in one statement
  (on PostgreSQL arrays may hold more).

The steps are in modules of their own: ``queue_claims``, ``account_limits``, ``queue_outcomes``, ``queue_exchange``
(a worker's round), ``queue_liveness``, ``queue_operation`` (what people do to it) and ``queue_view``; their names are
to be had from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, tuple_, update

from mailmill.store import dialect
from mailmill.store.account_limits import claim_limited, let_in, let_in_all, take_turns
from mailmill.store.bulk_insert import BulkInsert
from mailmill.store.fair_order import Tags, read_tags
from mailmill.store.queue_claims import Ask, crashed_processors, release, release_all, release_unknown
from mailmill.store.queue_exchange import Exchange
from mailmill.store.queue_liveness import heartbeat, reap, retire
from mailmill.store.queue_operation import drop, drop_unconfigured, retry
from mailmill.store.queue_rows import (
    BACKLOG,
    MAX_CRASHES,
    NEW_MAIL,
    Claim,
    Failed,
    Finished,
    FinishReport,
    Moment,
    NewWork,
    moment,
)
from mailmill.store.queue_view import QueueCounts, WorkRow, counts, list_work
from mailmill.store.tables import work
from mailmill.store.work_state import WAITING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.fair_order import Lane

__all__ = [
    "BACKLOG",
    "MAX_CRASHES",
    "NEW_MAIL",
    "Ask",
    "Claim",
    "Exchange",
    "Failed",
    "FinishReport",
    "Finished",
    "Moment",
    "NewWork",
    "QueueCounts",
    "WorkRow",
    "claim_limited",
    "counts",
    "crashed_processors",
    "drop",
    "drop_unconfigured",
    "enqueue",
    "heartbeat",
    "let_in",
    "let_in_all",
    "list_work",
    "promote_due",
    "reap",
    "release",
    "release_all",
    "release_unknown",
    "retire",
    "retry",
    "take_turns",
]

_insert_work: Final = BulkInsert[tuple[Any, ...]](
    work,
    (
        "message_id",
        "processor",
        "version",
        "account_id",
        "shard",
        "state",
        "priority",
        "vt",
        "run_at",
        "fence",
        "enqueued_at",
    ),
    keep_existing=True,
)


async def enqueue(
    connection: AsyncConnection, rows: Sequence[NewWork], now: float, *, tags: Tags | None = None
) -> None:
    """Add ``rows`` as pending, in their order; a message's row for a processor that is there already stays as it is.

    ``tags``: where the transaction has read them, for these rows and others.
    """
    if not rows:
        return
    # A row that is dropped and queued again must not meet the fences of its former life.
    first_fence = int(now * 1_000_000)
    if tags is None:
        tags = await read_tags(connection, ((lane_of(row), row.message_id) for row in rows), now)
    await _insert_work(
        connection,
        [
            (
                row.message_id,
                row.processor,
                row.version,
                row.account_id,
                row.shard,
                "pending",
                row.priority,
                tags.next(lane_of(row)),
                now,
                first_fence,
                now,
            )
            for row in rows
        ],
    )


def lane_of(row: NewWork) -> Lane:
    return row.processor, row.priority, row.account_id


async def promote_due(connection: AsyncConnection, now: Moment) -> tuple[int, float | None]:
    """Make the waiting rows whose time has come pending.

    Returns how many, and in how many seconds the next one is due by the clock that ``now`` is of (None: none waits).
    """
    is_due = (WAITING, work.c.run_at <= moment(now))
    # Nodes do this at the same time: rows that another one is at are left to it, or two could wait for each other.
    due = dialect.skip_locked(connection, select(work.c.message_id, work.c.processor).where(*is_due), of=work).cte(
        "due"
    )
    these = tuple_(work.c.message_id, work.c.processor).in_(select(due.c.message_id, due.c.processor))
    due_now = update(work).where(*is_due, these).values(state="pending").returning(work.c.message_id)
    came_due = (await connection.execute(due_now)).all()
    due_in: float | None = await connection.scalar(select(func.min(work.c.run_at) - moment(now)).where(WAITING))
    return len(came_due), due_in
