"""Who lives, and what the dead held: one heartbeat row for each worker, and the reaper.

Law: times here are compared by the database's clock alone (``now`` is :func:`mailmill.store.dialect.now`), so a node
whose wall clock jumps is neither taken for dead nor takes others for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, or_, select, update

from mailmill.store import dialect, event_log, queue_events, work_errors
from mailmill.store.queue_rows import MAX_CRASHES, Claim, moment
from mailmill.store.tables import work, worker
from mailmill.store.work_errors import WorkError
from mailmill.store.work_state import PROCESSING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.queue_rows import Moment

_DIED: Final = "the worker died while running it"
_TOO_LONG: Final = "it was held past its deadline"


async def heartbeat(connection: AsyncConnection, worker_id: str, now: Moment) -> None:
    """Prove that the worker lives; the first one makes it known."""
    statement = dialect.insert(connection, worker).values(id=worker_id, started_at=now, heartbeat_at=now)
    await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"heartbeat_at": now}))


async def retire(connection: AsyncConnection, worker_id: str) -> None:
    """Forget a worker that stopped in good order; what it still held can be reaped at once."""
    await connection.execute(delete(worker).where(worker.c.id == worker_id))


async def reap(connection: AsyncConnection, *, dead_after_seconds: float, now: Moment, told_at: float) -> int:
    """Take back the rows of workers that gave no sign of life for so long, and rows past their deadline.

    Each counts a crash; a row with more than :data:`MAX_CRASHES` is failed and told of, at ``told_at``. Returns how
    many rows were taken back.
    """
    dead = worker.c.heartbeat_at < moment(now) - dead_after_seconds
    too_late = work.c.deadline_at < moment(now)
    lost = (
        select(
            work.c.message_id,
            work.c.account_id,
            work.c.processor,
            work.c.version,
            work.c.attempt,
            work.c.crashes,
            work.c.fence,
            work.c.enqueued_at,
            work.c.priority,
            work.c.errors,
            too_late.label("too_late"),
        )
        .where(PROCESSING, or_(work.c.worker_id.not_in(select(worker.c.id).where(~dead)), too_late))
        .limit(dialect.MAX_ROWS)
    )
    taken_back = 0
    while True:
        # Passing over locked rows: whoever holds one is finishing it, or another reaper takes it back.
        rows = (await connection.execute(dialect.skip_locked(connection, lost, of=work))).all()
        if rows:
            await _take_back(connection, rows, told_at)
        taken_back += len(rows)
        if len(rows) < dialect.MAX_ROWS:
            break
    # One that is held just now proves that it lives, and may wait for the work that was taken from it.
    forgotten = dialect.skip_locked(connection, select(worker.c.id).where(dead), of=worker).subquery("forgotten")
    await connection.execute(delete(worker).where(worker.c.id.in_(select(forgotten.c.id))))
    return taken_back


async def _take_back(connection: AsyncConnection, rows: Sequence[Row[Any]], told_at: float) -> None:
    given_up: list[tuple[Claim, str]] = []
    changes = []
    for row in rows:
        claim, crashes = Claim._make(row[:-1]), row.crashes + 1
        reason = _TOO_LONG if row.too_late else _DIED
        failed = crashes > MAX_CRASHES
        if failed:
            reason = f"{reason}, {crashes} times"
            given_up.append((claim, reason))
        changes.append(
            {
                "of_message": claim.message_id,
                "of_processor": claim.processor,
                "to_state": "failed" if failed else "pending",
                "to_crashes": crashes,
                "error": reason,
                "all_errors": work_errors.added(claim.errors, WorkError(told_at, "crash", reason)),
            }
        )
    await connection.execute(
        update(work)
        .where(work.c.message_id == bindparam("of_message"), work.c.processor == bindparam("of_processor"))
        .values(
            state=bindparam("to_state"),
            crashes=bindparam("to_crashes"),
            last_error=bindparam("error"),
            errors=bindparam("all_errors"),
            worker_id="",
            deadline_at=0,
        ),
        changes,
    )
    if given_up:
        scenes = await connection.run_sync(queue_events.scenes, {claim.message_id for claim, _ in given_up})
        events = [queue_events.failed(scenes, claim, error, told_at) for claim, error in given_up]
        await event_log.append(connection, [event for event in events if event is not None])
