"""What became of claims: results and failures, recorded where the row is still the worker's.

Laws:

- The row goes (or is set back) only under the fence of its claim, and all that tells of it (result, events) is written
  for those rows alone, in the same transaction.
- A message is processed when its last row goes: who deletes a row tells of it if none is left, and nobody else does. So
  of two who delete the last two rows at once, each seeing the other's still there, one has to look after the other
  has committed: a message that has rows besides one's own is locked first.
- Nothing is written to the message: its row is wide, has six indexes, and lies among rows that nobody touches.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ARRAY, BigInteger, Float, bindparam, func, literal_column, select, update

from mailmill.model import EventName
from mailmill.store import dialect, event_log, queue_events, queue_recording, work_errors
from mailmill.store.bulk_insert import BulkInsert
from mailmill.store.given_rows import GivenRows
from mailmill.store.queue_rows import (
    KEY,
    MAX_ERROR_CHARACTERS,
    Claim,
    Failed,
    Finished,
    FinishReport,
    held,
    key,
)
from mailmill.store.row_changes import RowChanges, RowDeletions
from mailmill.store.statement import Statement
from mailmill.store.tables import message, result, work
from mailmill.store.work_errors import WorkError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Connection, Select
    from sqlalchemy.ext.asyncio import AsyncConnection


_TAKE_OUT: Final = RowDeletions(work, held, **KEY)
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
_MESSAGES: Final = GivenRows("messages", message.c.id)
_LOCK_MESSAGES: Final = Statement(
    lambda connection: dialect.lock(
        connection, select(message.c.id).where(_given(connection)).order_by(message.c.id), of=message
    )
)
_SEVERAL_ROWS: Final = Statement(lambda _connection: _several_rows())
# In `Connection.info`: how many batches are looked at before they are sent. Where each message has several processors
# all but the last one's outcomes would be sent in vain, and these may come in turn.
_LOOKS_FIRST: Final = "batches of outcomes that are looked at first"
_LOOKS_AFTER_SHARED: Final = 3


def finish_within(
    connection: Connection, worker_id: str, finished: Sequence[Finished], failed: Sequence[Failed], now: float
) -> FinishReport:
    """Record what became of claims, as far as they are still this worker's. ``now`` is when, as recorded.

    On PostgreSQL what is done is recorded and told of by one statement (`queue_recording`) where nothing is announced
    and no message has other work. Otherwise, in this order:

    1. PostgreSQL: messages that have work besides what is done here are locked, before their work as everywhere.
    2. DELETE of the work rows that are done, under the fence: what goes is what counts from here on.
    3. INSERT of their results; a result of the same version is replaced (a rerun). On PostgreSQL it is one statement
       with the DELETE.
    4. Failures only: UPDATE to waiting or failed, under the fence.
    5. What results announce and what is given up: SELECT of whose these messages are and where they lie, then INSERT of
       their events.
    6. INSERT of the events of messages that have no work left.
    """
    told, shared, left = _record_only_rows(connection, worker_id, finished, now)
    locked = _lock_shared(connection, [done.claim for done in left], shared)
    recorded = _record(connection, worker_id, left, now)
    set_back = _set_back(connection, worker_id, failed, now)
    _tell(connection, recorded, set_back, now)
    processed_ids = [done.claim.message_id for done in told] + _tell_processed(connection, recorded, locked, now)
    done = len(told) + len(recorded) + len(set_back)
    return FinishReport(
        recorded=done, stale=len(finished) + len(failed) - done, processed_ids=tuple(sorted(processed_ids))
    )


def _record_only_rows(
    connection: Connection, worker_id: str, finished: Sequence[Finished], now: float
) -> queue_recording.Told:
    """On PostgreSQL, record and tell of what is done by one statement, if it can be; nothing is done otherwise."""
    message_ids = {done.claim.message_id for done in finished}
    # What a result announces is told before that its message is processed.
    announcing = any(done.announce for done in finished)
    if not dialect.is_postgresql(connection) or announcing or not 0 < len(finished) == len(message_ids):
        return queue_recording.Told([], None, finished)
    if connection.info.get(_LOOKS_FIRST, 0):
        return queue_recording.Told([], None, finished)
    told = queue_recording.record_and_tell(connection, worker_id, finished, now)
    if told.shared:
        connection.info[_LOOKS_FIRST] = _LOOKS_AFTER_SHARED
    return told


def _lock_shared(connection: Connection, claims: Sequence[Claim], shared: Collection[int] | None) -> Collection[int]:
    """Lock the messages of claims that have other rows too (``shared``, if that is known); returns their ids. On
    SQLite the one writer's transaction is the lock.
    """
    if not claims or not dialect.is_postgresql(connection):
        return ()
    if shared is None:
        own = Counter(claim.message_id for claim in claims)
        rows = _SEVERAL_ROWS.rows(connection, ids=sorted(own))
        shared = {message_id for message_id, count in rows if count > own[message_id]}
        connection.info[_LOOKS_FIRST] = (
            _LOOKS_AFTER_SHARED if shared else max(0, connection.info.get(_LOOKS_FIRST, 0) - 1)
        )
    _lock_messages(connection, sorted(shared))
    return shared


def _tell_processed(
    connection: Connection, recorded: Sequence[Finished], locked: Collection[int], now: float
) -> list[int]:
    """Tell of the messages that have no work left; returns their ids in order."""
    touched = {done.claim.message_id for done in recorded}
    news = {done.claim.message_id for done in recorded if not queue_events.is_past(done.claim)}

    def tell(message_ids: Collection[int]) -> list[int]:
        told = queue_events.tell_processed(connection, sorted(news.intersection(message_ids)), now)
        past = queue_events.tell_processed(connection, sorted(set(message_ids) - news), now, past=True)
        return [*told, *past]

    processed_ids = tell(touched)
    if dialect.is_postgresql(connection):
        # A row was queued after we looked, so nobody was locked out: whoever finishes it may have missed ours too.
        overlooked = sorted(touched.difference(processed_ids, locked))
        if overlooked:
            _lock_messages(connection, overlooked)
            processed_ids += tell(overlooked)
    return sorted(processed_ids)


async def lock_messages(connection: AsyncConnection, message_ids: Sequence[int]) -> None:
    """Lock these messages, given in ascending order, as far as they are there, until the transaction ends.

    Whoever gets a message's lock second looks at its rows after the first has committed. On SQLite the one writer's
    transaction is the lock.
    """
    await connection.run_sync(_lock_messages, message_ids)


def _lock_messages(connection: Connection, message_ids: Sequence[int]) -> None:
    if dialect.is_postgresql(connection):
        for some in dialect.chunks(message_ids):
            _LOCK_MESSAGES.rows(connection, **_MESSAGES.parameters(connection, [(each,) for each in some]))


def _several_rows() -> Select[Any]:
    """The given messages that have more than one row, and how many; on PostgreSQL.

    Counted for each by itself: for tables that were filled a moment ago and are not analyzed yet, a join would walk
    through the whole queue, and so would an array in the first executions, which took a hundred times as long.
    """
    given = func.unnest(bindparam("ids", type_=ARRAY(BigInteger))).table_valued("message_id", name="given")
    given = given.render_derived()
    count = select(func.count()).where(work.c.message_id == given.c.message_id).scalar_subquery()
    counted = select(given.c.message_id, count.label("rows")).cte("counted").prefix_with("MATERIALIZED")
    return select(counted.c.message_id, counted.c.rows).where(counted.c.rows > literal_column("1"))


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


def _record(connection: Connection, worker_id: str, finished: Sequence[Finished], now: float) -> Sequence[Finished]:
    """Delete the rows that are still held and write their results; returns whose they were."""
    if dialect.is_postgresql(connection):
        return queue_recording.record(connection, worker_id, finished, now) if finished else []
    keys = [key(done.claim) for done in finished]
    gone = [row for some in dialect.chunks(keys) for row in _TAKE_OUT(connection, some, holder=worker_id)]
    recorded = finished
    if len(gone) < len(finished):
        still_held = set(gone)
        recorded = [done for done in finished if key(done.claim) in still_held]
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
    return recorded


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
