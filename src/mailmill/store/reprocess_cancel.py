"""What was asked to be processed again, taken back: nothing more of it is queued, and what has not begun is not run.

::

    mark (state cancelling)  ──▶  take_back …  ──▶  close (state cancelled)

Laws:

- The state is what stops it: a piece is queued only while it says running (``reprocess_pieces.put_piece``). A crash
  between two pieces of taking back loses nothing: whichever process goes on finds what is left by what it is.
- What has begun goes on: a row that runs, or that was tried since it was queued. Its result is as good as any.
- A row is taken back for what it is (of this processor, at the backlog's priority, queued since, and after its message
  was stored), for no row says who queued it. Another reprocessing that was at work meanwhile may have passed over a
  message because its row was there: it looks at all of its messages again.
- So all that are to be cancelled are marked in one transaction, before anything is taken back: one that is left out
  would bring the rows of the others back. ``queued`` of one may fall below 0 by what another queued; the sum is right.
- What had failed before is failed again, with the errors that it had, and as if it had been queued before them.
- A transaction is one piece of one of `STEPS`: each locks messages of its own, upwards, before their work. Two in one
  transaction would lock lower messages while they hold the work of higher ones, and wait in a circle with a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, exists, literal_column, or_, select, update

from mailmill.store import dialect, queue_operation, reprocess, work_errors
from mailmill.store.queue_outcomes import lock_messages
from mailmill.store.queue_rows import BACKLOG
from mailmill.store.tables import message, work
from mailmill.store.tables import reprocess as asked
from mailmill.store.work_state import PENDING, THROTTLED

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Row, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.reprocess import ReprocessRow

PIECE_ROWS: Final = 500

_UNTRIED: Final = work.c.errors == literal_column("'[]'")


class Step(NamedTuple):
    """Which rows one transaction takes back: in this state, and those that had failed before or those that had not."""

    state: ColumnElement[bool]
    had_failed: bool


# State by state: each has an index of its own, and both together have none.
STEPS: Final = tuple(Step(state, had_failed) for state in (PENDING, THROTTLED) for had_failed in (False, True))
"""All that there is to be taken back, step by step."""


async def mark(connection: AsyncConnection, reprocess_ids: Collection[int]) -> list[ReprocessRow]:
    """From now on nothing more of these is queued. As they are then, those that there are, the oldest first."""
    these = asked.c.id.in_(reprocess_ids)
    await connection.execute(dialect.lock(connection, select(asked.c.id).where(these).order_by(asked.c.id), of=asked))
    await connection.execute(update(asked).where(these, asked.c.state != "cancelled").values(state="cancelling"))
    return [reprocess.row_of(row) for row in await connection.execute(select(asked).where(these).order_by(asked.c.id))]


async def take_back(
    connection: AsyncConnection, row: ReprocessRow, step: Step, now: float, limit: int = PIECE_ROWS
) -> int:
    """Up to ``limit`` rows of ``step`` that have not begun; returns how many, those that others hold not among them.

    In a transaction that does nothing else.
    """
    mine = select(asked.c.id).where(asked.c.id == row.id)
    await connection.execute(dialect.lock(connection, mine, of=asked))
    if step.had_failed:
        taken = await _fail_again(connection, row, step.state, limit)
    else:
        taken = await queue_operation.forget(connection, [*_queued_by(row, step.state), _UNTRIED], now, limit)
    if taken:
        left = update(asked).where(asked.c.id == row.id).values(queued=asked.c.queued - taken)
        await connection.execute(left)
    return taken


async def is_left(connection: AsyncConnection, row: ReprocessRow) -> bool:
    """Whether there are rows still that `take_back` would take: others held them."""
    for step in STEPS:
        if step.had_failed:
            if await _failed_before(connection, row, step.state, 1):
                return True
        elif await connection.scalar(select(work.c.message_id).where(*_queued_by(row, step.state), _UNTRIED).limit(1)):
            return True
    return False


async def close(connection: AsyncConnection, row: ReprocessRow, now: float) -> ReprocessRow:
    """It is cancelled. Others for the same processor that were at work meanwhile look again."""
    meanwhile = or_(asked.c.finished_at.is_(None), asked.c.finished_at >= row.created_at)
    others = (asked.c.processor == row.processor, asked.c.id != row.id, asked.c.state.in_(("running", "done")))
    upwards = select(asked.c.id).where(or_(and_(*others, meanwhile), asked.c.id == row.id)).order_by(asked.c.id)
    await connection.execute(dialect.lock(connection, upwards, of=asked))
    await connection.execute(
        update(asked).where(*others, meanwhile).values(state="running", position=0, busy_from=None, finished_at=None)
    )
    await connection.execute(
        update(asked).where(asked.c.id == row.id).values(state="cancelled", finished_at=now, busy_from=None)
    )
    return await reprocess.get(connection, row.id)


def _queued_by(row: ReprocessRow, state: ColumnElement[bool]) -> list[ColumnElement[bool]]:
    """Rows that it queued, as far as a row tells, and that nobody has tried."""
    # What is stored is queued in the same transaction, by the same clock. Reprocessing comes later.
    queued_later = exists().where(message.c.id == work.c.message_id, message.c.stored_at < work.c.enqueued_at)
    these = [
        state,
        work.c.processor == row.processor,
        work.c.priority == BACKLOG,
        work.c.attempt == 0,
        work.c.enqueued_at >= row.created_at,
        work.c.message_id <= row.last_id,
        queued_later,
    ]
    if row.wanted.account_ids:
        these.append(work.c.account_id.in_(row.wanted.account_ids))
    return these


def _with_errors(row: ReprocessRow, state: ColumnElement[bool]) -> Select[tuple[int, str, float]]:
    return (
        select(work.c.message_id, work.c.errors, work.c.enqueued_at)
        .where(*_queued_by(row, state), ~_UNTRIED)
        .order_by(work.c.message_id)
    )


def _had_failed(row: Row[tuple[int, str, float]]) -> bool:
    """Whether all that went wrong with it was before it was queued again."""
    return all(error.at < row.enqueued_at for error in work_errors.read(row.errors))


async def _failed_before(
    connection: AsyncConnection, row: ReprocessRow, state: ColumnElement[bool], limit: int
) -> list[int]:
    """Messages whose row had failed; between them may stand some whose worker died since."""
    found: list[int] = []
    after = 0
    while len(found) < limit:
        some = _with_errors(row, state).where(work.c.message_id > after).limit(PIECE_ROWS)
        rows = (await connection.execute(some)).all()
        found += [each.message_id for each in rows if _had_failed(each)]
        if len(rows) < PIECE_ROWS:
            break
        after = rows[-1].message_id
    return found[:limit]


async def _fail_again(connection: AsyncConnection, row: ReprocessRow, state: ColumnElement[bool], limit: int) -> int:
    ids = await _failed_before(connection, row, state, limit)
    await lock_messages(connection, ids)
    failed_again = 0
    for some in dialect.chunks(ids):
        mine = _with_errors(row, state).where(work.c.message_id.in_(some))
        rows = await connection.execute(dialect.skip_locked(connection, mine, of=work))
        free = [_as_it_was(each) for each in rows if _had_failed(each)]
        if free:
            await connection.execute(
                update(work)
                .where(work.c.message_id == bindparam("of_message"), work.c.processor == row.processor)
                .values(
                    state="failed",
                    attempt=bindparam("attempts"),
                    last_error=bindparam("error"),
                    enqueued_at=bindparam("failed_at"),
                ),
                free,
            )
        failed_again += len(free)
    return failed_again


def _as_it_was(row: Row[tuple[int, str, float]]) -> dict[str, float | str]:
    errors = work_errors.read(row.errors)
    attempts = sum(error.kind == "attempt" for error in errors)
    return {"of_message": row.message_id, "attempts": attempts, "error": errors[-1].error, "failed_at": errors[-1].at}
