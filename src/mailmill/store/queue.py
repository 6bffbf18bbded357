"""The work queue: one row for each processor that has yet to run over a message.

States of a row::

    enqueue ──▶ pending ──claim──▶ processing ──finish──▶ (row deleted, result recorded)
                  ▲  ▲                │  │
                  │  │◀───release─────┘  ├──failed, to be tried again──▶ waiting ──promote_due──▶ pending
                  │  └◀──reap (crashes + 1)                                     attempt + 1
                  └───────retry──────── failed ◀──── failed for good, or died too often

Laws:

- A claim raises the fence. Finish, fail and release touch a row only where the fence and the worker are still those of
  the claim, so a worker that was given up for dead and comes back writes nothing.
- The row goes, and its result and events come, in one transaction: a crash leaves both or neither.
- ``attempt`` counts what the processor did (raised, timed out), ``crashes`` workers that died. A row that crashed
  is claimed alone, so that the next death names the culprit.
- Functions run inside the caller's transaction and name at most :data:`dialect.MAX_ROWS` rows in one statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    String,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from mailmill.model import EventName
from mailmill.store import dialect, event_log, queue_events
from mailmill.store.bulk_insert import BulkInsert
from mailmill.store.fair_order import read_tags
from mailmill.store.queue_view import QueueCounts, WorkRow, counts, list_work
from mailmill.store.tables import message, result, work, worker
from mailmill.store.work_state import FAILED, PENDING, PROCESSING, WAITING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.event_log import NewEvent
    from mailmill.store.queue_events import Scene

__all__ = [
    "BACKLOG",
    "MAX_CRASHES",
    "NEW_MAIL",
    "Claim",
    "Failed",
    "FinishReport",
    "Finished",
    "NewWork",
    "QueueCounts",
    "WorkRow",
    "claim",
    "counts",
    "drop_unconfigured",
    "enqueue",
    "finish",
    "heartbeat",
    "list_work",
    "promote_due",
    "reap",
    "release",
    "release_all",
    "retire",
    "retry",
]

NEW_MAIL: Final = 0
BACKLOG: Final = 10
"""Priorities; a lower one is claimed first."""

MAX_CRASHES: Final = 3
"""A row whose workers died more often than this is failed."""

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
        "enqueued_at",
    ),
    keep_existing=True,
)

_MAX_ERROR_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class NewWork:
    """One processor to run over one message."""

    message_id: int
    account_id: int
    shard: int
    processor: str
    version: int
    priority: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that a worker holds. ``attempt`` counts the failures so far: 0 on the first run."""

    message_id: int
    account_id: int
    processor: str
    version: int
    attempt: int
    crashes: int
    fence: int
    enqueued_at: float
    priority: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A processor ran. ``value`` is JSON text; ``announce`` names the events to raise besides (``threatFound``)."""

    claim: Claim
    value: str
    seconds: float
    announce: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A processor did not succeed; it is tried again at ``retry_at``, or never where that is None."""

    claim: Claim
    error: str
    retry_at: float | None


@dataclass(frozen=True, slots=True)
class FinishReport:
    """``recorded`` outcomes were written, ``stale`` ones were not the worker's any more; all processors are done
    with the messages ``processed_ids``."""

    recorded: int
    stale: int
    processed_ids: tuple[int, ...]


class _Key(NamedTuple):
    message_id: int
    processor: str


async def enqueue(connection: AsyncConnection, rows: Sequence[NewWork], now: float) -> None:
    """Add ``rows`` as pending, in their order; a message's row for a processor that is there already stays as it is."""
    if not rows:
        return
    tags = await read_tags(connection, ((row.processor, row.priority, row.account_id) for row in rows), now)
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
                tags.next((row.processor, row.priority, row.account_id)),
                now,
                now,
            )
            for row in rows
        ],
    )


async def claim(
    connection: AsyncConnection,
    *,
    processor: str,
    worker_id: str,
    limit: int,
    deadline_seconds: float,
    now: float,
    version: int | None = None,
) -> list[Claim]:
    """Take up to ``limit`` pending rows of ``processor``, in fair order; one statement.

    A row that crashed is taken alone, when its turn comes. With ``version`` the rows of newer versions are left to
    workers that have them, and older ones become this version: it is the one that will run.
    """
    if limit < 1:
        return []
    free = [PENDING, work.c.processor == processor]
    if version is not None:
        free.append(work.c.version <= version)
    # The locking SELECT stands in a CTE of its own: PostgreSQL never inlines one, so it runs once and LIMIT holds.
    head = dialect.skip_locked(
        connection,
        select(work.c.message_id, work.c.crashes, work.c.priority, work.c.vt)
        .where(*free)
        .order_by(work.c.priority, work.c.vt)
        .limit(limit),
        of=work,
    ).cte("head")
    in_order = (head.c.priority, head.c.vt)
    ranked = select(
        head.c.message_id,
        head.c.crashes,
        func.row_number().over(order_by=in_order).label("rank"),
        func.first_value(head.c.crashes).over(order_by=in_order).label("crashes_of_first"),
    ).subquery("ranked")
    chosen = select(ranked.c.message_id).where(
        or_(
            and_(ranked.c.crashes_of_first == 0, ranked.c.crashes == 0),
            and_(ranked.c.crashes_of_first > 0, ranked.c.rank == 1),
        )
    )
    taken = await connection.execute(
        update(work)
        .where(*free, work.c.message_id.in_(chosen))
        .values(
            state="processing",
            fence=work.c.fence + 1,
            worker_id=worker_id,
            deadline_at=now + deadline_seconds,
            **({} if version is None else {"version": version}),
        )
        .returning(
            work.c.message_id,
            work.c.account_id,
            work.c.processor,
            work.c.version,
            work.c.attempt,
            work.c.crashes,
            work.c.fence,
            work.c.enqueued_at,
            work.c.priority,
            work.c.vt,
        )
    )
    return [Claim(*row[:-1]) for row in sorted(taken, key=lambda row: (row.priority, row.vt))]


async def finish(
    connection: AsyncConnection, worker_id: str, finished: Sequence[Finished], failed: Sequence[Failed], now: float
) -> FinishReport:
    """Record what became of claims, as far as they are still this worker's."""
    rows_gone = await _take_out(connection, worker_id, [done.claim for done in finished])
    recorded = [done for done in finished if _key(done.claim) in rows_gone]
    await _record_results(connection, recorded, now)
    set_back = await _set_back(connection, worker_id, failed)
    given_up = [failure for failure in set_back if failure.retry_at is None]

    message_ids = sorted({done.claim.message_id for done in recorded})
    processed_ids = await _mark_processed(connection, message_ids, now)
    announced = [(done.claim, name) for done in recorded for name in done.announce]
    scenes = await queue_events.scenes(
        connection,
        {claim.message_id for claim, _ in announced}
        | {failure.claim.message_id for failure in given_up}
        | set(processed_ids),
    )
    events = [
        queue_events.about(
            scenes, claim.message_id, EventName(name), now, {"processor": claim.processor, "version": claim.version}
        )
        for claim, name in announced
    ]
    events += [_failure_event(scenes, failure.claim, failure.error, now) for failure in given_up]
    told = [event for event in events if event is not None]
    await event_log.append(connection, told + _processed_events(scenes, processed_ids, now))
    return FinishReport(
        recorded=len(recorded) + len(set_back),
        stale=len(finished) + len(failed) - len(recorded) - len(set_back),
        processed_ids=tuple(processed_ids),
    )


async def release(connection: AsyncConnection, worker_id: str, claims: Sequence[Claim]) -> int:
    """Give back claims that were not run; they count neither as an attempt nor as a crash."""
    released = 0
    for some in dialect.chunks(claims):
        statement = update(work).where(_held(worker_id, some)).values(state="pending", worker_id="", deadline_at=0)
        released += (await connection.execute(statement)).rowcount
    return released


async def release_all(connection: AsyncConnection, worker_id: str) -> int:
    """Give back all that a worker holds, when it stops in good order and runs nothing any more."""
    held = PROCESSING & (work.c.worker_id == worker_id)
    released = await connection.execute(update(work).where(held).values(state="pending", worker_id="", deadline_at=0))
    return released.rowcount


async def reap(connection: AsyncConnection, *, heartbeat_before: float, now: float) -> int:
    """Take back the rows of workers that gave no sign of life since ``heartbeat_before``, and rows past their deadline.

    Each counts a crash; a row with more than :data:`MAX_CRASHES` is failed. Returns how many rows were taken back.
    """
    alive = select(worker.c.id).where(worker.c.heartbeat_at >= heartbeat_before)
    crashes = work.c.crashes + 1
    too_often = crashes > MAX_CRASHES
    reason = literal("the worker died while running it, ") + cast(crashes, String) + " times"
    taken = (
        await connection.execute(
            update(work)
            .where(PROCESSING, or_(work.c.worker_id.not_in(alive), work.c.deadline_at < now))
            .values(
                state=case((too_often, "failed"), else_="pending"),
                last_error=case((too_often, reason), else_=work.c.last_error),
                crashes=crashes,
                worker_id="",
                deadline_at=0,
            )
            .returning(
                work.c.message_id,
                work.c.account_id,
                work.c.processor,
                work.c.version,
                work.c.attempt,
                work.c.crashes,
                work.c.fence,
                work.c.enqueued_at,
                work.c.priority,
                work.c.state,
                work.c.last_error,
            )
        )
    ).all()
    lost = [(Claim(*row[:-2]), row.last_error) for row in taken if row.state == "failed"]
    if lost:
        scenes = await queue_events.scenes(connection, {claim.message_id for claim, _ in lost})
        events = [_failure_event(scenes, claim, error, now) for claim, error in lost]
        await event_log.append(connection, [event for event in events if event is not None])
    await connection.execute(delete(worker).where(worker.c.heartbeat_at < heartbeat_before))
    return len(taken)


async def promote_due(connection: AsyncConnection, now: float) -> float | None:
    """Make the waiting rows whose time has come pending; returns when the next one is due, None where none waits."""
    await connection.execute(update(work).where(WAITING, work.c.run_at <= now).values(state="pending"))
    next_at: float | None = await connection.scalar(select(func.min(work.c.run_at)).where(WAITING))
    return next_at


async def drop_unconfigured(connection: AsyncConnection, names: Collection[str], now: float) -> int:
    """Delete what waits for processors other than ``names``: nobody would ever claim it. Returns how many rows went.

    A message that has no work left then is processed. Failed rows stay, as a record; results stay anyway.
    """
    gone = await connection.execute(
        delete(work).where(or_(PENDING, WAITING), work.c.processor.not_in(names)).returning(work.c.message_id)
    )
    message_ids = list(gone.scalars())
    processed_ids = await _mark_processed(connection, sorted(set(message_ids)), now)
    scenes = await queue_events.scenes(connection, processed_ids)
    await event_log.append(connection, _processed_events(scenes, processed_ids, now))
    return len(message_ids)


async def retry(
    connection: AsyncConnection, *, message_ids: Sequence[int] | None, processor: str | None, now: float
) -> int:
    """Bring failed rows back as if they were new (all of them, or of these messages or this processor)."""
    wanted = [FAILED]
    if processor is not None:
        wanted.append(work.c.processor == processor)
    columns = (work.c.message_id, work.c.processor, work.c.priority, work.c.account_id)
    brought_back = 0
    for some in dialect.chunks(message_ids) if message_ids is not None else (None,):
        these = wanted if some is None else [*wanted, work.c.message_id.in_(some)]
        rows = (await connection.execute(dialect.lock(connection, select(*columns).where(*these), of=work))).all()
        tags = await read_tags(connection, ((row.processor, row.priority, row.account_id) for row in rows), now)
        for batch in dialect.chunks(rows):
            await connection.execute(
                update(work)
                .where(work.c.message_id == bindparam("of_message"), work.c.processor == bindparam("of_processor"))
                .values(state="pending", attempt=0, crashes=0, run_at=now, vt=bindparam("tag"), last_error=""),
                [
                    {
                        "of_message": row.message_id,
                        "of_processor": row.processor,
                        "tag": tags.next((row.processor, row.priority, row.account_id)),
                    }
                    for row in batch
                ],
            )
            await connection.execute(
                update(message)
                .where(message.c.id.in_({row.message_id for row in batch}), message.c.processed_at.is_not(None))
                .values(processed_at=None)
            )
        brought_back += len(rows)
    return brought_back


async def heartbeat(connection: AsyncConnection, worker_id: str, now: float) -> None:
    """Prove that the worker lives; the first one makes it known."""
    statement = dialect.insert(connection, worker).values(id=worker_id, started_at=now, heartbeat_at=now)
    await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"heartbeat_at": now}))


async def retire(connection: AsyncConnection, worker_id: str) -> None:
    """Forget a worker that stopped in good order; what it still held can be reaped at once."""
    await connection.execute(delete(worker).where(worker.c.id == worker_id))


def _key(of: Claim) -> _Key:
    return _Key(of.message_id, of.processor)


def _held(worker_id: str, claims: Sequence[Claim]) -> ColumnElement[bool]:
    """The fence: true of the rows that are as their claims left them."""
    fenced = tuple_(work.c.message_id, work.c.processor, work.c.fence)
    return and_(
        # Says no more than the next line, but SQLite finds no index for a row value that the key does not cover.
        work.c.message_id.in_({claim.message_id for claim in claims}),
        fenced.in_([(claim.message_id, claim.processor, claim.fence) for claim in claims]),
        PROCESSING,
        work.c.worker_id == worker_id,
    )


async def _take_out(connection: AsyncConnection, worker_id: str, claims: Sequence[Claim]) -> set[_Key]:
    gone: set[_Key] = set()
    for some in dialect.chunks(claims):
        statement = delete(work).where(_held(worker_id, some)).returning(work.c.message_id, work.c.processor)
        gone.update(_Key(*row) for row in await connection.execute(statement))
    return gone


async def _record_results(connection: AsyncConnection, recorded: Sequence[Finished], now: float) -> None:
    if not recorded:
        return
    new = dialect.insert(connection, result)
    fresh = {name: new.excluded[name] for name in ("value", "attempts", "seconds", "finished_at")}
    await connection.execute(
        new.on_conflict_do_update(index_elements=["message_id", "processor", "version"], set_=fresh),
        [
            {
                "message_id": done.claim.message_id,
                "processor": done.claim.processor,
                "version": done.claim.version,
                "value": dialect.storable(done.value),
                "attempts": done.claim.attempt + 1,
                "seconds": done.seconds,
                "finished_at": now,
            }
            for done in recorded
        ],
    )


async def _set_back(connection: AsyncConnection, worker_id: str, failed: Sequence[Failed]) -> list[Failed]:
    """Write failures to the rows that are still held; returns those that were."""
    still_held: list[Failed] = []
    for some in dialect.chunks(failed):
        held = select(work.c.message_id, work.c.processor).where(_held(worker_id, [failure.claim for failure in some]))
        keys = {_Key(*row) for row in await connection.execute(dialect.lock(connection, held, of=work))}
        mine = [failure for failure in some if _key(failure.claim) in keys]
        if mine:
            await connection.execute(
                update(work)
                .where(work.c.message_id == bindparam("of_message"), work.c.processor == bindparam("of_processor"))
                .values(
                    state=bindparam("to_state"),
                    run_at=func.coalesce(bindparam("to_run_at", type_=work.c.run_at.type), work.c.run_at),
                    last_error=bindparam("error"),
                    attempt=work.c.attempt + 1,
                    worker_id="",
                    deadline_at=0,
                ),
                [
                    {
                        "of_message": failure.claim.message_id,
                        "of_processor": failure.claim.processor,
                        "to_state": "failed" if failure.retry_at is None else "waiting",
                        "to_run_at": failure.retry_at,
                        "error": dialect.storable(failure.error[:_MAX_ERROR_CHARACTERS]),
                    }
                    for failure in mine
                ],
            )
        still_held += mine
    return still_held


async def _mark_processed(connection: AsyncConnection, message_ids: Sequence[int], now: float) -> list[int]:
    """Mark those messages that no work row is left for, once; returns their ids in order."""
    processed: list[int] = []
    for some in dialect.chunks(message_ids):
        if dialect.is_postgresql(connection):
            # Two workers may finish the last two rows of a message at once, each seeing the other's row still there.
            # Whoever gets the message's lock second looks after the first has committed.
            locked = select(message.c.id).where(message.c.id.in_(some)).order_by(message.c.id)
            await connection.execute(dialect.lock(connection, locked, of=message))
        rows = await connection.execute(
            update(message)
            .where(
                message.c.id.in_(some),
                message.c.processed_at.is_(None),
                ~exists().where(work.c.message_id == message.c.id),
            )
            .values(processed_at=now)
            .returning(message.c.id)
        )
        processed += sorted(rows.scalars())
    return processed


def _processed_events(scenes: dict[int, Scene], message_ids: Iterable[int], now: float) -> list[NewEvent]:
    events = (queue_events.about(scenes, each, EventName.MESSAGE_PROCESSED, now, {}) for each in message_ids)
    return [event for event in events if event is not None]


def _failure_event(scenes: dict[int, Scene], of: Claim, error: str, now: float) -> NewEvent | None:
    data = {"processor": of.processor, "version": of.version, "error": dialect.storable(error[:_MAX_ERROR_CHARACTERS])}
    return queue_events.about(scenes, of.message_id, EventName.MESSAGE_FAILED, now, data)
