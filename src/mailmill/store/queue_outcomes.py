"""What became of claims: results and failures, recorded where the row is still the worker's.

Law: the row goes (or is set back) only under the fence of its claim, and all that tells of it (result, events, the
message's mark) is written for those rows alone, in the same transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Float, bindparam, delete, exists, func, select, update

from mailmill.model import EventName
from mailmill.store import dialect, event_log, queue_events, work_errors
from mailmill.store.bulk_insert import BulkInsert
from mailmill.store.given_rows import GivenRows
from mailmill.store.queue_rows import (
    MAX_ERROR_CHARACTERS,
    Claim,
    Failed,
    Finished,
    FinishReport,
    Key,
    held,
    holding,
    key,
)
from mailmill.store.statement import Statement
from mailmill.store.tables import message, result, work
from mailmill.store.work_errors import WorkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection


_MESSAGES: Final = GivenRows("messages", message.c.id)

_TAKE_OUT: Final = Statement(
    lambda connection: delete(work).where(held(connection)).returning(work.c.message_id, work.c.processor, work.c.fence)
)
_INSERT_RESULTS: Final = BulkInsert[tuple[Any, ...]](
    result,
    ("message_id", "processor", "version", "value", "attempts", "seconds", "finished_at", "errors"),
    replace=True,
)
_LOCK_HELD: Final = Statement(
    lambda connection: dialect.lock(
        connection, select(work.c.message_id, work.c.processor, work.c.fence).where(held(connection)), of=work
    )
)
_LOCK_MESSAGES: Final = Statement(
    lambda connection: dialect.lock(
        connection, select(message.c.id).where(_given(connection)).order_by(message.c.id), of=message
    )
)
_MARK_PROCESSED: Final = Statement(
    lambda connection: (
        update(message)
        .where(
            _given(connection),
            message.c.processed_at.is_(None),
            ~exists().where(work.c.message_id == message.c.id),
        )
        .values(processed_at=bindparam("at", type_=Float))
        .returning(message.c.id)
    )
)


async def finish(
    connection: AsyncConnection, worker_id: str, finished: Sequence[Finished], failed: Sequence[Failed], now: float
) -> FinishReport:
    """Record what became of claims, as far as they are still this worker's. ``now`` is when, as recorded.

    Statements, each for up to :data:`dialect.MAX_ROWS` rows, in this order:

    1. PostgreSQL: the messages of all claims are locked, before their work as everywhere.
    2. DELETE of the work rows that are done, under the fence: what it returns is what counts from here on.
    3. INSERT of their results; a result of the same version is replaced (a rerun).
    4. Failures only: SELECT under the fence, locked, then UPDATE to waiting or failed.
    5. UPDATE of the messages that have no work left.
    6. SELECT of whose these messages are and where they lie, then INSERT of their events.
    """
    claims = [*(done.claim for done in finished), *(failure.claim for failure in failed)]
    await lock_messages(connection, sorted({claim.message_id for claim in claims}))
    rows_gone = await _take_out(connection, worker_id, [done.claim for done in finished])
    recorded = [done for done in finished if key(done.claim) in rows_gone]
    await _record_results(connection, recorded, now)
    set_back = await _set_back(connection, worker_id, failed, now)
    processed_ids = await mark_processed(connection, sorted({done.claim.message_id for done in recorded}), now)
    past_ids = {done.claim.message_id for done in recorded if queue_events.is_past(done.claim)}
    again_ids = await _mark_processed_again(connection, sorted(past_ids.difference(processed_ids)), now)
    await _tell(connection, recorded, set_back, processed_ids, again_ids, now)
    return FinishReport(
        recorded=len(recorded) + len(set_back),
        stale=len(finished) + len(failed) - len(recorded) - len(set_back),
        processed_ids=tuple(processed_ids),
    )


async def lock_messages(connection: AsyncConnection, message_ids: Sequence[int]) -> None:
    """Lock these messages, given in ascending order, as far as they are there, until the transaction ends.

    Two workers may finish the last two rows of a message at once, each seeing the other's row still there. Whoever gets
    the message's lock second looks after the first has committed. On SQLite the one writer's transaction is the lock.
    """
    if dialect.is_postgresql(connection):
        for some in dialect.chunks(message_ids):
            await _LOCK_MESSAGES.rows(connection, **_MESSAGES.parameters(connection, [(each,) for each in some]))


async def mark_processed(connection: AsyncConnection, message_ids: Sequence[int], now: float) -> list[int]:
    """Mark those messages that no work row is left for, once; returns their ids in order.

    To be called after :func:`lock_messages` was given them.
    """
    processed: list[int] = []
    for some in dialect.chunks(message_ids):
        ids = _MESSAGES.parameters(connection, [(each,) for each in some])
        rows = await _MARK_PROCESSED.rows(connection, **ids, at=now)
        processed += sorted(row[0] for row in rows)
    return processed


def _given(connection: AsyncConnection) -> ColumnElement[bool]:
    return message.c.id.in_(select(_MESSAGES.table(connection).c.id))


async def _mark_processed_again(connection: AsyncConnection, message_ids: Sequence[int], now: float) -> list[int]:
    """Of messages that had been processed before, those that no work row is left for; returns their ids in order.

    To be called after :func:`lock_messages` was given them.
    """
    processed: list[int] = []
    for some in dialect.chunks(message_ids):
        rows = await connection.execute(
            update(message)
            .where(
                message.c.id.in_(some),
                message.c.processed_at.is_not(None),
                ~exists().where(work.c.message_id == message.c.id),
            )
            .values(processed_at=now)
            .returning(message.c.id)
        )
        processed += sorted(rows.scalars())
    return processed


async def _tell(
    connection: AsyncConnection,
    recorded: Sequence[Finished],
    set_back: Sequence[Failed],
    processed_ids: Sequence[int],
    again_ids: Sequence[int],
    now: float,
) -> None:
    """The events of one finish: what results announce, what is given up, what is processed (for the first time, or
    again, which is history).
    """
    announced = [(done.claim, name) for done in recorded for name in done.announce]
    given_up = [failure for failure in set_back if failure.retry_after_seconds is None]
    scenes = await queue_events.scenes(
        connection,
        {claim.message_id for claim, _ in announced}
        | {failure.claim.message_id for failure in given_up}
        | set(processed_ids)
        | set(again_ids),
    )
    events = [
        queue_events.about(
            scenes,
            claim.message_id,
            EventName(name),
            now,
            {"processor": claim.processor, "version": claim.version},
            past=queue_events.is_past(claim),
        )
        for claim, name in announced
    ]
    events += [queue_events.failed(scenes, failure.claim, failure.error, now) for failure in given_up]
    told = [event for event in events if event is not None]
    told += queue_events.processed(scenes, processed_ids, now)
    told += queue_events.processed(scenes, again_ids, now, past=True)
    await event_log.append(connection, told)


async def _take_out(connection: AsyncConnection, worker_id: str, claims: Sequence[Claim]) -> set[Key]:
    gone: set[Key] = set()
    for some in dialect.chunks(claims):
        rows = await _TAKE_OUT.rows(connection, **holding(connection, worker_id, some))
        gone.update(map(Key._make, rows))
    return gone


async def _record_results(connection: AsyncConnection, recorded: Sequence[Finished], now: float) -> None:
    await _INSERT_RESULTS(
        connection,
        [
            (
                done.claim.message_id,
                done.claim.processor,
                done.claim.version,
                dialect.storable(done.value),
                done.claim.attempt + 1,
                done.seconds,
                now,
                done.claim.errors,
            )
            for done in recorded
        ],
    )


async def _set_back(connection: AsyncConnection, worker_id: str, failed: Sequence[Failed], now: float) -> list[Failed]:
    """Write failures to the rows that are still held; returns those that were."""
    still_held: list[Failed] = []
    for some in dialect.chunks(failed):
        rows = await _LOCK_HELD.rows(connection, **holding(connection, worker_id, [failure.claim for failure in some]))
        keys = set(map(Key._make, rows))
        mine = [failure for failure in some if key(failure.claim) in keys]
        if mine:
            await connection.execute(
                update(work)
                .where(work.c.message_id == bindparam("of_message"), work.c.processor == bindparam("of_processor"))
                .values(
                    state=bindparam("to_state"),
                    run_at=func.coalesce(dialect.now(connection) + bindparam("wait", type_=Float), work.c.run_at),
                    last_error=bindparam("error"),
                    errors=bindparam("all_errors"),
                    attempt=work.c.attempt + 1,
                    worker_id="",
                    deadline_at=0,
                ),
                [
                    {
                        "of_message": failure.claim.message_id,
                        "of_processor": failure.claim.processor,
                        "to_state": "failed" if failure.retry_after_seconds is None else "waiting",
                        "wait": failure.retry_after_seconds,
                        "error": dialect.storable(failure.error[:MAX_ERROR_CHARACTERS]),
                        "all_errors": work_errors.added(failure.claim.errors, WorkError(now, "attempt", failure.error)),
                    }
                    for failure in mine
                ],
            )
        still_held += mine
    return still_held
