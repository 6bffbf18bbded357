"""Taking rows of the queue, and giving them back unrun.

Law: a claim reads the head of one lane from one index, however long the lane is. What it must not take is not among
the pending rows near that head for long: rows over their account's limit are moved to ``throttled`` when a claim meets
them (:mod:`mailmill.store.account_limits`), and rows that crashed are few.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import exists, literal_column, select, update

from mailmill.store import dialect
from mailmill.store.queue_rows import Claim, held, holding, moment
from mailmill.store.statement import Statement
from mailmill.store.tables import processor as operated
from mailmill.store.tables import work
from mailmill.store.work_state import CRASHED, PENDING, PROCESSING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.queue_rows import Moment


_RELEASE: Final = Statement(
    lambda connection: update(work).where(held(connection)).values(state="pending", worker_id="", deadline_at=0)
)


async def claim(
    connection: AsyncConnection,
    *,
    processor: str,
    worker_id: str,
    limit: int,
    deadline_seconds: float,
    now: Moment,
    version: int | None = None,
    crashed: bool = False,
) -> list[Claim]:
    """Take up to ``limit`` pending rows of ``processor``, in fair order; none while it is paused. One statement.

    Rows that crashed are passed over; with ``crashed`` only one of those is taken, by a caller that runs nothing
    beside it. With ``version`` the rows of newer versions are left to workers that have them, and older ones become
    this version: it is the one that will run. ``now`` begins the deadline.

    The statement: a CTE reads the head of the lane and locks it, passing over what another transaction holds
    (``ix_work_claim``; ``ix_work_crashed`` for those); the UPDATE raises the fence of these rows.
    """
    if limit < 1:
        return []
    free = claimable(processor, version, crashed=crashed)
    # The locking SELECT stands in a CTE of its own: PostgreSQL never inlines one, so it runs once and LIMIT holds.
    head = dialect.skip_locked(
        connection,
        select(work.c.message_id)
        .where(*free, not_paused(processor))
        .order_by(work.c.priority, work.c.vt)
        .limit(1 if crashed else limit),
        of=work,
    ).cte("head")
    chosen = work.c.message_id.in_(select(head.c.message_id))
    return await take(connection, [*free, chosen], worker_id, version, deadline_seconds, now)


def claimable(processor: str, version: int | None, *, crashed: bool) -> list[ColumnElement[bool]]:
    """What is true of a row that may be claimed: said twice in a claim, since rows change hands between the two."""
    free = [CRASHED if crashed else PENDING, work.c.processor == processor]
    if not crashed:
        free.append(work.c.crashes == literal_column("0"))
    if version is not None:
        free.append(work.c.version <= version)
    return free


def not_paused(processor: str) -> ColumnElement[bool]:
    """No row says that an operator paused it: looked up once for each claim, so a pause holds from its commit on."""
    return ~exists().where(operated.c.name == processor, operated.c.paused_at.is_not(None))


async def take(
    connection: AsyncConnection,
    rows: Sequence[ColumnElement[bool]],
    worker_id: str,
    version: int | None,
    deadline_seconds: float,
    now: Moment,
) -> list[Claim]:
    """Raise the fence of ``rows`` for this worker; what it then holds, in fair order."""
    answer = await connection.execute(
        update(work)
        .where(*rows)
        .values(
            state="processing",
            fence=work.c.fence + 1,
            worker_id=worker_id,
            deadline_at=moment(now) + deadline_seconds,
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
            work.c.errors,
            work.c.vt,
        )
    )
    # Fetched at once: to iterate over the answer is a call down to the driver for each row.
    taken = sorted(answer.all(), key=_by_turn)
    return [Claim(*row[:-1]) for row in taken]


def _by_turn(row: Row[Any]) -> tuple[int, float]:
    return row.priority, row.vt


async def crashed_processors(connection: AsyncConnection, names: Sequence[str]) -> frozenset[str]:
    """Those of ``names`` that have rows which crashed and wait to be run alone; a look into an index for each."""
    found = set()
    for name in names:
        one = select(work.c.message_id).where(CRASHED, work.c.processor == name).limit(1)
        if await connection.scalar(one) is not None:
            found.add(name)
    return frozenset(found)


async def release(connection: AsyncConnection, worker_id: str, claims: Sequence[Claim]) -> int:
    """Give back claims that were not run; they count neither as an attempt nor as a crash."""
    released = 0
    for some in dialect.chunks(claims):
        released += await _RELEASE.count(connection, **holding(connection, worker_id, some))
    return released


async def release_unknown(connection: AsyncConnection, worker_id: str, known: Iterable[Claim]) -> int:
    """Give back what a worker holds though it does not know: the answer to the COMMIT of a claim was lost.

    ``known`` are all claims that it knows of. Returns how many rows were given back.
    """
    fences = {(claim.message_id, claim.processor, claim.fence) for claim in known}
    its_own = PROCESSING & (work.c.worker_id == worker_id)
    columns = [work.c[field.name] for field in fields(Claim)]
    claims = [Claim(*row) for row in (await connection.execute(select(*columns).where(its_own))).all()]
    unknown = [claim for claim in claims if (claim.message_id, claim.processor, claim.fence) not in fences]
    return await release(connection, worker_id, unknown)


async def release_all(connection: AsyncConnection, worker_id: str) -> int:
    """Give back all that a worker holds, when it stops in good order and runs nothing any more."""
    its_own = PROCESSING & (work.c.worker_id == worker_id)
    given_back = update(work).where(its_own).values(state="pending", worker_id="", deadline_at=0)
    return (await connection.execute(given_back)).rowcount
