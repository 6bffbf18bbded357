"""What was asked to be processed again, put into the queue in pieces: which messages it is about, and their rows.

Laws:

- A piece is one short transaction: it queues at most :data:`PIECE_MESSAGES` messages, notes how far it has looked, and
  counts. A crash between two pieces loses nothing and repeats nothing, whichever process goes on.
- A row that is in the queue stays where it is. One that waits for an older version becomes the new one's; one that an
  older version is just running is looked at again when it is over.
- Nothing is taken away: a result stays, and is the one that is shown, until a newer one is recorded. A result of the
  same version is replaced only by one that succeeded.
- What the new version has tried and failed at stays failed, unless everything or what failed is asked for.
- What reprocessing queues runs behind new mail, and what it raises is history (``queue_outcomes``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, case, exists, func, literal_column, or_, select, update

from mailmill.store import dialect, queue
from mailmill.store.fair_order import Tags, read_tags
from mailmill.store.queue_rows import BACKLOG, NewWork
from mailmill.store.reprocess import row_of
from mailmill.store.reprocess_scope import of_messages
from mailmill.store.tables import account, message, reprocess, result, work
from mailmill.store.work_state import FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.reprocess import ReprocessRow

PIECE_MESSAGES: Final = 250
"""Messages that one transaction queues: it bounds how long the writer is held, and new mail with it."""

WINDOW_MESSAGES: Final = 5000
"""Messages that one look goes over, wanted or not: it bounds how long a snapshot is held."""

_RUNNING = reprocess.c.state == literal_column("'running'")


class Look(NamedTuple):
    """The ids of messages to be queued, in order, among those up to ``reached``."""

    message_ids: list[int]
    reached: int


async def look(connection: AsyncConnection, row: ReprocessRow, after: int, *, limit: int = PIECE_MESSAGES) -> Look:
    """Up to ``limit`` messages to be queued with an id above ``after``, within one window. ``reached == row.last_id``
    means that there is no more to look at."""
    ids = (
        select(message.c.id)
        .where(message.c.id > after, message.c.id <= row.last_id)
        .order_by(message.c.id)
        .limit(WINDOW_MESSAGES)
        .subquery()
    )
    end: int | None = await connection.scalar(select(func.max(ids.c.id)).having(func.count() == WINDOW_MESSAGES))
    bound = row.last_id if end is None else end
    span = and_(message.c.id > after, message.c.id <= bound)
    found = select(message.c.id).where(span, _wanted(row)).order_by(message.c.id).limit(limit)
    message_ids = list((await connection.execute(_with_work(found, row.processor))).scalars())
    return Look(message_ids, message_ids[-1] if len(message_ids) == limit else bound)


async def put_piece(connection: AsyncConnection, row: ReprocessRow, found: Look, now: float) -> ReprocessRow | None:
    """Queue what a :func:`look` from ``row.position`` found, as far as it is still to be queued, and move on.

    Returns the row as it is then; None where another process has it in hand, has moved it on or has extended it.
    """
    unmoved = (reprocess.c.position == row.position, reprocess.c.last_id == row.last_id)
    mine = select(reprocess).where(reprocess.c.id == row.id, _RUNNING, *unmoved)
    if (await connection.execute(dialect.skip_locked(connection, mine, of=reprocess))).first() is None:
        return None
    if dialect.is_postgresql(connection):
        # Against a worker that finishes the last row of one of them meanwhile, and takes it for processed.
        locked = select(message.c.id).where(message.c.id.in_(found.message_ids)).order_by(message.c.id)
        await connection.execute(dialect.lock(connection, locked, of=message))
    ending = await _ending(connection, found.message_ids)
    queued = await _queue(connection, row, [each for each in found.message_ids if each not in ending], now)
    busy_from = await _take_over(connection, row, found.reached)
    first_busy = min((each for each in (row.busy_from, busy_from, *ending) if each is not None), default=None)
    values: dict[str, Any] = {"position": found.reached, "busy_from": first_busy, "queued": row.queued + queued}
    if found.reached >= row.last_id:
        if first_busy is None:
            values |= {"state": "done", "finished_at": now}
        else:
            values |= {"position": first_busy - 1, "busy_from": None}
    moved = await connection.execute(
        update(reprocess).where(reprocess.c.id == row.id).values(**values).returning(reprocess)
    )
    return row_of(moved.one())


# -- parts ------------------------------------------------------------------------------------------------------------


def _with_work(wanted: Any, processor: str) -> Any:
    joined = message.join(account, account.c.id == message.c.account_id).outerjoin(
        work, and_(work.c.message_id == message.c.id, work.c.processor == processor)
    )
    return wanted.select_from(joined)


def _wanted(row: ReprocessRow) -> ColumnElement[bool]:
    """What makes a message one to be queued, with its row of work (if it has one) joined to it."""
    wanted = row.wanted
    # Its bytes are there, and it is not on its way out.
    conditions: list[ColumnElement[bool]] = [
        message.c.deleted_at.is_(None),
        message.c.raw_expired_at.is_(None),
        account.c.removing_at.is_(None),
        *of_messages(wanted),
    ]
    # What was queued since and failed counts as done, or a second look would bring it back for ever.
    failed = and_(work.c.state == "failed", work.c.enqueued_at < row.created_at)
    if wanted.failed:
        conditions.append(failed)
    elif wanted.everything:
        conditions.append(or_(work.c.message_id.is_(None), failed))
    else:
        conditions.append(or_(work.c.message_id.is_(None), and_(failed, work.c.version < row.version)))
    done = _has_result(row)
    if done is not None:
        conditions.append(~done)
    return and_(*conditions)


def _has_result(row: ReprocessRow) -> ColumnElement[bool] | None:
    """Whether the message has what was asked for already; None where it is wanted whatever it has."""
    wanted = row.wanted
    of_it = exists().where(result.c.message_id == message.c.id, result.c.processor == row.processor)
    if wanted.everything:
        # What was made since counts, or a second look would never come to an end.
        return of_it.where(result.c.version == row.version, result.c.finished_at >= row.created_at)
    if wanted.failed and wanted.below is None:
        return None
    return of_it.where(result.c.version >= (row.version if wanted.below is None else wanted.below))


async def _ending(connection: AsyncConnection, message_ids: Sequence[int]) -> set[int]:
    """Those of these messages that a worker is just finishing work of (or claims it): it may be telling that they are
    processed, and nobody can say yet. They are looked at again.

    Work of the others is neither begun nor finished until this transaction ends; who calls wakes those who passed it
    over. What is being run is written, as it is: who finishes it and has looked before finds that it must look anew
    (`queue_recording`).
    """
    if not message_ids or not dialect.is_postgresql(connection):
        return set()
    these = work.c.message_id.in_(message_ids)
    run = select(work.c.message_id, work.c.processor).where(these, work.c.state != "failed")
    # In this order: what went before the second look is not there to be finished.
    free = {tuple(each) for each in await connection.execute(dialect.skip_locked(connection, run, of=work))}
    ending = {each.message_id for each in await connection.execute(run) if tuple(each) not in free}
    mine = work.c.message_id.in_({message_id for message_id, _ in free} - ending)
    await connection.execute(update(work).where(mine, work.c.state == "processing").values(shard=work.c.shard))
    return ending


async def _queue(connection: AsyncConnection, row: ReprocessRow, message_ids: Sequence[int], now: float) -> int:
    if not message_ids:
        return 0
    still = select(message.c.id, message.c.account_id, message.c.processed_at, account.c.shard, work.c.state)
    rows = (
        await connection.execute(
            _with_work(still, row.processor).where(message.c.id.in_(message_ids), _wanted(row)).order_by(message.c.id)
        )
    ).all()
    fresh = [each for each in rows if each.state is None]
    failed = [each for each in rows if each.state is not None]
    untold = [each.id for each in fresh if each.processed_at is None]
    if untold:
        # Where nothing was to be done with one until now, that it is processed was never told: it is no news.
        await connection.execute(
            update(message)
            .where(message.c.id.in_(untold), ~exists().where(work.c.message_id == message.c.id))
            .values(processed_at=message.c.stored_at)
        )
    new = [NewWork(each.id, each.account_id, each.shard, row.processor, row.version, BACKLOG) for each in fresh]
    lanes = [((row.processor, BACKLOG, each.account_id), each.id) for each in (*fresh, *failed)]
    tags = await read_tags(connection, lanes, now)
    await queue.enqueue(connection, new, now, tags=tags)
    if failed:
        await _bring_back(connection, row, failed, tags, now)
    return len(rows)


async def _bring_back(
    connection: AsyncConnection, row: ReprocessRow, failed: Sequence[Row[Any]], tags: Tags, now: float
) -> None:
    """Failed rows, as if they were new but for what they did to their workers: one that crashed is run alone."""
    await connection.execute(
        update(work)
        .where(work.c.message_id == bindparam("of_message"), work.c.processor == row.processor, FAILED)
        .values(
            state="pending",
            version=row.version,
            priority=BACKLOG,
            attempt=0,
            crashes=case((work.c.crashes > 0, 1), else_=0),
            run_at=now,
            enqueued_at=now,
            vt=bindparam("tag"),
            last_error="",
        ),
        [{"of_message": each.id, "tag": tags.next((row.processor, BACKLOG, each.account_id))} for each in failed],
    )


async def _take_over(connection: AsyncConnection, row: ReprocessRow, reached: int) -> int | None:
    """Make what waits for an older version the new one's; the first message where that could not be done, for an
    older one is running over it.
    """
    older = and_(
        work.c.message_id > row.position,
        work.c.message_id <= reached,
        work.c.processor == row.processor,
        work.c.version < row.version,
    )
    idle = work.c.state.not_in(("processing", "failed"))
    # Rows that others hold are passed over, as in `queue_operation`: they count as being run.
    free = dialect.skip_locked(connection, select(work.c.message_id).where(older, idle), of=work).cte("free")
    taken = work.c.message_id.in_(select(free.c.message_id))
    await connection.execute(update(work).where(older, idle, taken).values(version=row.version))
    left = work.c.state != "failed"
    busy: int | None = await connection.scalar(select(func.min(work.c.message_id)).where(older, left))
    return busy
