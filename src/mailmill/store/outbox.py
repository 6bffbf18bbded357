"""The outbox: one row for each event on its way to one destination.

States of a row::

    plan_deliveries ──▶ pending ──claim──▶ sending ──finish──▶ delivered | failed
                           ▲                  │
                           └── retry, release, recover

Laws:

- Planning reads the event log behind a cursor of its own; the rows and the cursor move in one transaction, and a row is
  unique by destination and event, so an event is planned once however often this is repeated. Several processes plan
  one after the other: whoever plans holds the cursor's row.
- What is history is not planned; the cursor passes it.
- A claim raises the fence; an outcome is written only where fence and worker are still those of the claim.
- A delivery may be made again after a crash: at least once, and its id (destination and event) stays, so that the
  receiver can drop the repeat.
- Destinations share no claim: one that hangs holds nothing of another. Several processes that serve one destination
  share its rows: a claim passes over what another is just taking.
- Times compare by the database's clock (`dialect.now`), which callers give as ``now``: what one node writes, another
  waits for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Float,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)

from mailmill.store import dialect, event_log, marks
from mailmill.store.tables import delivery, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.event_log import EventRow

Moment = ColumnElement[float] | float
"""Epoch seconds: the database's clock, or (in tests) a number."""

# Literals, as in `work_state`: the partial indexes are found by them.
_PENDING = delivery.c.state == literal_column("'pending'")
_SENDING_OR_FAILED = delivery.c.state.in_((literal_column("'sending'"), literal_column("'failed'")))
_SENDING = and_(delivery.c.state == literal_column("'sending'"), _SENDING_OR_FAILED)

_MAX_ERROR_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """A delivery that a worker holds. ``attempt`` counts the tries so far: 0 on the first."""

    id: int
    event_id: int
    attempt: int
    fence: int


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What became of a try: delivered, to be tried again after ``retry_after_seconds``, or (None) given up.

    ``status`` is the destination's HTTP status, if it gave one.
    """

    claim: DeliveryClaim
    delivered: bool
    retry_after_seconds: float | None = None
    status: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    pending: int
    sending: int
    delivered: int
    failed: int


async def plan_deliveries(
    connection: AsyncConnection, limit: int, match: Callable[[EventRow], Sequence[str]], now: Moment
) -> int:
    """Make deliveries of up to ``limit`` events that were not looked at yet; ``match`` names their destinations.

    Returns how many events were looked at: 0 when the log is read to its end.
    """
    planned = await marks.lock(connection, marks.PLANNED)
    events = await event_log.read_after(connection, planned, limit)
    if not events:
        return 0
    deliveries = [
        {"tenant_id": event.tenant_id, "destination": destination, "event_id": event.id}
        for event in events
        if not event.historical
        for destination in match(event)
    ]
    if deliveries:
        adding = dialect.insert(connection, delivery).values(state="pending", run_at=now, created_at=now)
        await connection.execute(adding.on_conflict_do_nothing(), deliveries)
    await marks.move(connection, marks.PLANNED, events[-1].position)
    return len(events)


async def is_planned(connection: AsyncConnection) -> bool:
    """Whether every event that is in the log has been looked at. Locks nothing."""
    return (await marks.get(connection, marks.PLANNED) or 0) >= await event_log.head(connection)


async def claim(
    connection: AsyncConnection, *, destination: str, worker_id: str, limit: int, deadline_seconds: float, now: Moment
) -> list[DeliveryClaim]:
    """Take up to ``limit`` deliveries for ``destination`` that are due, in the order they became so (then by id)."""
    if limit < 1:
        return []
    due = [_PENDING, delivery.c.destination == destination, delivery.c.run_at <= now]
    # In a CTE of its own, or PostgreSQL may run the locking SELECT more than once and pass its LIMIT.
    head = dialect.skip_locked(
        connection,
        select(delivery.c.id).where(*due).order_by(delivery.c.run_at, delivery.c.id).limit(limit),
        of=delivery,
    ).cte("head")
    taken = await connection.execute(
        update(delivery)
        .where(*due, delivery.c.id.in_(select(head.c.id)))
        .values(state="sending", fence=delivery.c.fence + 1, worker_id=worker_id, deadline_at=now + deadline_seconds)
        .returning(delivery.c.id, delivery.c.event_id, delivery.c.attempt, delivery.c.fence, delivery.c.run_at)
    )
    return [DeliveryClaim(*row[:-1]) for row in sorted(taken, key=lambda row: (row.run_at, row.event_id))]


async def finish(connection: AsyncConnection, worker_id: str, outcomes: Sequence[DeliveryOutcome], now: Moment) -> int:
    """Write what became of claims, as far as they are still this worker's; returns how many were."""
    written = 0
    for some in dialect.chunks(sorted(outcomes, key=lambda outcome: outcome.claim.id)):
        ids = await _hold(connection, worker_id, [outcome.claim for outcome in some])
        mine = [outcome for outcome in some if outcome.claim.id in ids]
        if mine:
            await connection.execute(
                update(delivery)
                .where(delivery.c.id == bindparam("of_delivery"))
                .values(
                    state=bindparam("to_state"),
                    run_at=func.coalesce(_moment(now) + bindparam("wait", type_=Float), delivery.c.run_at),
                    attempt=delivery.c.attempt + 1,
                    worker_id="",
                    deadline_at=0,
                    last_status=bindparam("status"),
                    last_error=bindparam("error"),
                    finished_at=case((bindparam("ended", type_=Boolean), _moment(now)), else_=null()),
                ),
                [_written(outcome) for outcome in mine],
            )
        written += len(mine)
    return written


async def release(connection: AsyncConnection, worker_id: str, claims: Sequence[DeliveryClaim]) -> int:
    """Give back claims that were not tried; they do not count as a try."""
    released = 0
    for some in dialect.chunks(sorted(claims, key=lambda claim: claim.id)):
        ids = await _hold(connection, worker_id, some)
        if ids:
            given_back = update(delivery).where(delivery.c.id.in_(ids))
            await connection.execute(given_back.values(state="pending", worker_id="", deadline_at=0))
        released += len(ids)
    return released


async def recover(connection: AsyncConnection, *, dead_after_seconds: float, now: Moment) -> int:
    """Take back what workers held that gave no sign of life for ``dead_after_seconds``, or past its deadline.

    It may have been delivered, so it is delivered again. The try counts. To be called before :func:`queue.reap`
    forgets the dead or after: an unknown worker is a dead one.
    """
    alive = select(worker.c.id).where(worker.c.heartbeat_at >= now - dead_after_seconds)
    lost = dialect.skip_locked(
        connection,
        select(delivery.c.id).where(_SENDING, or_(delivery.c.worker_id.not_in(alive), delivery.c.deadline_at < now)),
        of=delivery,
    ).cte("lost")
    taken = await connection.execute(
        update(delivery)
        .where(_SENDING, delivery.c.id.in_(select(lost.c.id)))
        .values(state="pending", attempt=delivery.c.attempt + 1, worker_id="", deadline_at=0, run_at=now)
        .returning(delivery.c.id)
    )
    return len(taken.all())


async def next_due_seconds(connection: AsyncConnection, destination: str, now: Moment) -> float | None:
    """In how many seconds the next delivery for ``destination`` is due, 0 or less for now; None where none waits."""
    first = select(func.min(delivery.c.run_at)).where(_PENDING, delivery.c.destination == destination).scalar_subquery()
    due_in: float | None = await connection.scalar(select(first - _moment(now)))
    return due_in


async def counts(connection: AsyncConnection) -> DeliveryCounts:
    """Deliveries by state, of all destinations."""
    others: dict[str, int] = {
        row[0]: row[1]
        for row in await connection.execute(
            select(delivery.c.state, func.count()).where(_SENDING_OR_FAILED).group_by(delivery.c.state)
        )
    }
    pending = await connection.scalar(select(func.count()).select_from(delivery).where(_PENDING)) or 0
    every = await connection.scalar(select(func.count()).select_from(delivery)) or 0
    return DeliveryCounts(
        pending=pending,
        sending=others.get("sending", 0),
        delivered=every - pending - sum(others.values()),
        failed=others.get("failed", 0),
    )


async def is_settled(connection: AsyncConnection, now: Moment) -> bool:
    """Whether every event has been looked at and nothing is on its way or due."""
    if not (await event_log.is_numbered(connection) and await is_planned(connection)):
        return False
    open_rows = await connection.scalar(
        select(func.count())
        .select_from(delivery)
        .where(
            or_(delivery.c.state == "sending", and_(delivery.c.state == "pending", delivery.c.run_at <= now)),
        )
    )
    return not open_rows


def _written(outcome: DeliveryOutcome) -> dict[str, object]:
    ended = outcome.delivered or outcome.retry_after_seconds is None
    return {
        "of_delivery": outcome.claim.id,
        "to_state": "delivered" if outcome.delivered else "failed" if ended else "pending",
        "wait": None if ended else outcome.retry_after_seconds,
        "status": outcome.status,
        "error": dialect.storable(outcome.error[:_MAX_ERROR_CHARACTERS]),
        "ended": ended,
    }


def _moment(now: Moment) -> ColumnElement[float]:
    return now if isinstance(now, ColumnElement) else literal(now, Float)


async def _hold(connection: AsyncConnection, worker_id: str, claims: Sequence[DeliveryClaim]) -> set[int]:
    """Lock those that are as their claims left them, upwards; their ids."""
    held = select(delivery.c.id).where(_held(worker_id, claims)).order_by(delivery.c.id)
    return set(await connection.scalars(dialect.lock(connection, held, of=delivery)))


def _held(worker_id: str, claims: Sequence[DeliveryClaim]) -> ColumnElement[bool]:
    """The fence: true of the rows that are as their claims left them."""
    return and_(
        delivery.c.id.in_({claim.id for claim in claims}),
        tuple_(delivery.c.id, delivery.c.fence).in_([(claim.id, claim.fence) for claim in claims]),
        _SENDING,
        delivery.c.worker_id == worker_id,
    )
