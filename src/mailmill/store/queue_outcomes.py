"""What became of claims: results and failures, recorded where the row is still the worker's.

Law: the row goes (or is set back) only under the fence of its claim, and all that tells of it (result, events, the
message's mark) is written for those rows alone, in the same transaction.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Float, bindparam, delete, exists, func, select, update

from mailmill.model import EventName
from mailmill.store import dialect, event_log, queue_events, work_errors
from mailmill.store.bulk_insert import BulkInsert
from mailmill.store.given_rows import GivenRows
from mailmill.store.queue_rows import (
    KEY,
    MAX_ERROR_CHARACTERS,
    Claim,
    Failed,
    Finished,
    FinishReport,
    Key,
    held,
    key,
)
from mailmill.store.row_changes import RowChanges
from mailmill.store.statement import Statement
from mailmill.store.tables import message, result, work
from mailmill.store.work_errors import WorkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Update
    from sqlalchemy.ext.asyncio import AsyncConnection


_MESSAGES: Final = GivenRows("messages", message.c.id)

_TAKE_OUT: Final = RowChanges(lambda _connection, given: delete(work).where(held(given)), **KEY)
_SET_BACK: Final = RowChanges(
    lambda connection, given: (
        update(work)
        .where(held(given))
        .values(
            state=given.state,
            # Without a wait it is failed: when it would have been tried again stays as it was.
            run_at=func.coalesce(_now(connection) + given.wait, work.c.run_at),
            last_error=given.last_error,
            errors=given.errors,
            attempt=work.c.attempt + 1,
            worker_id="",
            deadline_at=0,
        )
    ),
    **KEY,
    state=work.c.state,
    wait=work.c.run_at,
    last_error=work.c.last_error,
    errors=work.c.errors,
)
_INSERT_RESULTS: Final = BulkInsert[tuple[Any, ...]](
    result,
    ("message_id", "processor", "version", "value", "attempts", "seconds", "finished_at", "errors"),
    replace=True,
)
_LOCK_MESSAGES: Final = Statement(
    lambda connection: dialect.lock(
        connection, select(message.c.id).where(_given(connection)).order_by(message.c.id), of=message
    )
)
_MARK_PROCESSED: Final = Statement(lambda connection: _marking(connection, again=False))
_MARK_PROCESSED_AGAIN: Final = Statement(lambda connection: _marking(connection, again=True))


async def finish(
    connection: AsyncConnection, worker_id: str, finished: Sequence[Finished], failed: Sequence[Failed], now: float
) -> FinishReport:
    """Record what became of claims, as far as they are still this worker's. ``now`` is when, as recorded.

    Statements, each for up to :data:`dialect.MAX_ROWS` rows, in this order:

    1. PostgreSQL: the messages of all claims are locked, before their work as everywhere.
    2. DELETE of the work rows that are done, under the fence: what goes is what counts from here on.
    3. INSERT of their results; a result of the same version is replaced (a rerun).
    4. Failures only: UPDATE to waiting or failed, under the fence.
    5. What results announce and what is given up: SELECT of whose these messages are and where they lie, then INSERT of
       their events.
    6. UPDATE of the messages that have no work left, and INSERT of their events.

    On SQLite all of it is one visit to the writer's thread.
    """
    return await connection.run_sync(_finish, worker_id, finished, failed, now)


def _finish(
    connection: Connection, worker_id: str, finished: Sequence[Finished], failed: Sequence[Failed], now: float
) -> FinishReport:
    claims = [*(done.claim for done in finished), *(failure.claim for failure in failed)]
    _lock_messages(connection, sorted({claim.message_id for claim in claims}))
    rows_gone = _take_out(connection, worker_id, [done.claim for done in finished])
    recorded = [done for done in finished if key(done.claim) in rows_gone]
    _record_results(connection, recorded, now)
    set_back = _set_back(connection, worker_id, failed, now)
    _tell(connection, recorded, set_back, now)
    processed_ids = _mark(connection, _MARK_PROCESSED, sorted({done.claim.message_id for done in recorded}), now)
    past_ids = {done.claim.message_id for done in recorded if queue_events.is_past(done.claim)}
    again_ids = _mark(connection, _MARK_PROCESSED_AGAIN, sorted(past_ids.difference(processed_ids)), now)
    queue_events.tell_processed(connection, processed_ids, now)
    queue_events.tell_processed(connection, again_ids, now, past=True)
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
    await connection.run_sync(_lock_messages, message_ids)


def _lock_messages(connection: Connection, message_ids: Sequence[int]) -> None:
    if dialect.is_postgresql(connection):
        for some in dialect.chunks(message_ids):
            _LOCK_MESSAGES.rows(connection, **_MESSAGES.parameters(connection, [(each,) for each in some]))


async def mark_processed(connection: AsyncConnection, message_ids: Sequence[int], now: float) -> list[int]:
    """Mark those messages that no work row is left for, once; returns their ids in order.

    To be called after :func:`lock_messages` was given them.
    """
    return await connection.run_sync(_mark, _MARK_PROCESSED, message_ids, now)


def _mark(connection: Connection, statement: Statement, message_ids: Sequence[int], now: float) -> list[int]:
    marked: list[int] = []
    for some in dialect.chunks(message_ids):
        ids = _MESSAGES.parameters(connection, [(each,) for each in some])
        marked += sorted(row[0] for row in statement.rows(connection, **ids, at=now))
    return marked


def _marking(connection: Connection, *, again: bool) -> Update:
    """Mark given messages that no work row is left for: for the first time, or ``again``."""
    before = message.c.processed_at.is_not(None) if again else message.c.processed_at.is_(None)
    return (
        update(message)
        .where(_given(connection), before, ~exists().where(work.c.message_id == message.c.id))
        .values(processed_at=bindparam("at", type_=Float))
        .returning(message.c.id)
    )


def _given(connection: Connection) -> ColumnElement[bool]:
    return message.c.id.in_(select(_MESSAGES.table(connection).c.id))


def _now(connection: Connection) -> ColumnElement[float]:
    """The database's clock; on SQLite, which has none of its own, a parameter."""
    return dialect.now(connection) if dialect.is_postgresql(connection) else bindparam("now", type_=Float)


def _tell(connection: Connection, recorded: Sequence[Finished], set_back: Sequence[Failed], now: float) -> None:
    """The events of single outcomes: what results announce, what is given up."""
    announced = [(done.claim, name) for done in recorded for name in done.announce]
    given_up = [failure for failure in set_back if failure.retry_after_seconds is None]
    if not announced and not given_up:
        return
    concerned = [*(claim for claim, _ in announced), *(failure.claim for failure in given_up)]
    scenes = queue_events.scenes(connection, {claim.message_id for claim in concerned})
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
    event_log.append_within(connection, [event for event in events if event is not None])


def _take_out(connection: Connection, worker_id: str, claims: Sequence[Claim]) -> set[Key]:
    gone: set[Key] = set()
    keys = [key(claim) for claim in claims]
    for some in dialect.chunks(keys):
        gone.update(_TAKE_OUT(connection, some, holder=worker_id))
    return gone


def _record_results(connection: Connection, recorded: Sequence[Finished], now: float) -> None:
    _INSERT_RESULTS.insert(
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


def _set_back(connection: Connection, worker_id: str, failed: Sequence[Failed], now: float) -> list[Failed]:
    """Write failures to the rows that are still held; returns those that were."""
    set_back: list[Failed] = []
    for some in dialect.chunks(failed):
        rows = [
            (
                *key(failure.claim),
                "failed" if failure.retry_after_seconds is None else "waiting",
                failure.retry_after_seconds,
                dialect.storable(failure.error[:MAX_ERROR_CHARACTERS]),
                work_errors.added(failure.claim.errors, WorkError(now, "attempt", failure.error)),
            )
            for failure in some
        ]
        written = {row[:3] for row in _SET_BACK(connection, rows, holder=worker_id, now=time.time())}
        set_back += [failure for failure in some if key(failure.claim) in written]
    return set_back
