"""Taking rows of the queue, and giving them back unrun.

Law: a claim reads the head of one lane from one index, however long the lane is. What it must not take is not among
the pending rows near that head for long: rows over their account's limit are moved to ``throttled`` when a claim meets
them (:mod:`mailmill.store.account_limits`), and rows that crashed are few.
"""

from __future__ import annotations

import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BindParameter, Float, Integer, bindparam, exists, literal_column, select, tuple_, update

from mailmill.store import dialect
from mailmill.store.queue_front import BEGINNING, Front, Turn
from mailmill.store.queue_rows import KEY, Claim, held, key, moment
from mailmill.store.row_changes import RowChanges
from mailmill.store.statement import Statement
from mailmill.store.tables import processor as operated
from mailmill.store.tables import work
from mailmill.store.work_state import CRASHED, PENDING, PENDING_BY_KEY, PROCESSING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Update
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.queue_rows import Moment


_RELEASE: Final = RowChanges(
    lambda _connection, given: update(work).where(held(given)).values(state="pending", worker_id="", deadline_at=0),
    **KEY,
)


class Ask(NamedTuple):
    """What a worker would claim.

    Rows that crashed are passed over; with ``crashed`` only one of those is taken, by a caller that runs nothing
    beside it. With ``version`` the rows of newer versions are left to workers that have them, and older ones become
    this version: it is the one that will run. ``front`` is the caller's of this processor, from claim to claim: where
    it says is looked first.
    """

    processor: str
    limit: int
    deadline_seconds: float
    version: int | None = None
    crashed: bool = False
    front: Front | None = None


def claim_within(connection: Connection, worker_id: str, ask: Ask, now: Moment) -> list[Claim]:
    """Take up to ``ask.limit`` pending rows of its processor, in fair order; none while it is paused.

    ``now`` begins the deadline. The statement, once or twice: a CTE reads the head of the lane and locks it, passing
    over what another transaction holds (``ix_work_claim``; ``ix_work_crashed`` for those that crashed); the UPDATE
    raises the fence of these rows.
    """
    if ask.limit < 1:
        return []
    own_clock = _own_clock(now)
    return _claim(
        connection,
        _CLAIM[ask.crashed, ask.version is not None, own_clock is not None],
        Front() if ask.front is None or ask.crashed else ask.front,
        1 if ask.crashed else ask.limit,
        processor=ask.processor,
        version=ask.version,
        holder=worker_id,
        now=own_clock,
        deadline_seconds=ask.deadline_seconds,
    )


def _claim(connection: Connection, statement: Statement, front: Front, limit: int, /, **parameters: Any) -> list[Claim]:
    turn = front.turn()
    rows: list[Any] = []
    if turn != BEGINNING:
        rows += _look(connection, statement, turn, limit, parameters)
    if len(rows) < limit:
        began = time.monotonic()
        rows += _look(connection, statement, BEGINNING, limit - len(rows), parameters)
        front.looked(time.monotonic() - began)
    rows.sort(key=_TURN)
    front.reached(Turn._make(_TURN(rows[-1])) if len(rows) == limit else None)
    return _claims(rows)


def _look(
    connection: Connection, statement: Statement, begin: Turn, limit: int, parameters: Mapping[str, Any]
) -> list[Any]:
    rows: list[Any] = []
    while (wanted := limit - len(rows)) > 0:
        found = statement.rows(connection, limit=wanted, from_priority=begin.priority, from_vt=begin.vt, **parameters)
        rows += found
        if len(found) < min(wanted, dialect.MAX_ROWS):
            break
    return rows


def _claiming(connection: Connection, *, crashed: bool, of_version: bool, own_clock: bool) -> Update:
    """The statement of :func:`claim`. ``own_clock``: the time is given (else it is the database's)."""
    version = bindparam("version", type_=Integer) if of_version else None
    processor = bindparam("processor", type_=work.c.processor.type)
    free = claimable(processor, version, crashed=crashed)
    row = dialect.row_id(connection, work, work.c.message_id)
    # The locking SELECT stands in a CTE of its own: PostgreSQL never inlines one, so it runs once and LIMIT holds.
    head = dialect.first_free(
        connection,
        select(row.label("row")).where(*free, not_paused(processor), _from_turn()).order_by(work.c.priority, work.c.vt),
        bindparam("limit", type_=Integer),
        of=work,
    ).cte("head")
    chosen = row.in_(select(head.c.row))
    still = recheck(processor, version, crashed=crashed)
    now: ColumnElement[float] = bindparam("now", type_=Float) if own_clock else dialect.now(connection)
    return _taking([*still, chosen], version, now)


def _from_turn() -> ColumnElement[bool]:
    place = tuple_(bindparam("from_priority", type_=Integer), bindparam("from_vt", type_=Float))
    return tuple_(work.c.priority, work.c.vt) >= place


def _claim_statement(*, crashed: bool, of_version: bool, own_clock: bool) -> Statement:
    return Statement(
        lambda connection: _claiming(connection, crashed=crashed, of_version=of_version, own_clock=own_clock)
    )


_CLAIM: Final = {
    (crashed, of_version, own_clock): _claim_statement(crashed=crashed, of_version=of_version, own_clock=own_clock)
    for crashed in (False, True)
    for of_version in (False, True)
    for own_clock in (False, True)
}


def _own_clock(now: Moment) -> float | None:
    """``now`` where it is a number; None where it is the database's clock."""
    if isinstance(now, int | float):
        return now
    return now.effective_value if isinstance(now, BindParameter) else None


def claimable(
    processor: str | ColumnElement[str], version: int | ColumnElement[int] | None, *, crashed: bool
) -> list[ColumnElement[bool]]:
    """What is true of a row that may be claimed, in words that lead to the head of its lane."""
    return [CRASHED if crashed else PENDING, *_suited(processor, version, crashed=crashed)]


def recheck(
    processor: str | ColumnElement[str], version: int | ColumnElement[int] | None, *, crashed: bool
) -> list[ColumnElement[bool]]:
    """The same once more, of rows named by their key as they are when they are taken: rows change hands in between.

    In words that no index serves but the key's: with statistics from when the queue was short, PostgreSQL would walk
    the whole lane for each row.
    """
    return [PENDING_BY_KEY, *_suited(processor, version, crashed=crashed)]


def _suited(
    processor: str | ColumnElement[str], version: int | ColumnElement[int] | None, *, crashed: bool
) -> list[ColumnElement[bool]]:
    none: ColumnElement[int] = literal_column("0")
    suited = [work.c.processor == processor, work.c.crashes > none if crashed else work.c.crashes == none]
    if version is not None:
        suited.append(work.c.version <= version)
    return suited


def not_paused(processor: str | ColumnElement[str]) -> ColumnElement[bool]:
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
    parameters = {"holder": worker_id, "deadline_seconds": deadline_seconds}
    answer = await connection.execute(_taking(rows, version, moment(now)), parameters)
    return _claims(sorted(answer.all(), key=_TURN))


def _taking(
    rows: Sequence[ColumnElement[bool]], version: int | ColumnElement[int] | None, now: ColumnElement[float]
) -> Update:
    return (
        update(work)
        .where(*rows)
        .values(
            state="processing",
            fence=work.c.fence + 1,
            worker_id=bindparam("holder", type_=work.c.worker_id.type),
            deadline_at=now + bindparam("deadline_seconds", type_=Float),
            **({} if version is None else {"version": version}),
        )
        .returning(*(work.c[name] for name in Claim._fields), work.c.vt)
    )


def _claims(rows: Sequence[Any]) -> list[Claim]:
    return [Claim._make(row[:-1]) for row in rows]


_TURN: Final = itemgetter(Claim._fields.index("priority"), -1)


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
    return await connection.run_sync(_release, worker_id, claims)


def _release(connection: Connection, worker_id: str, claims: Sequence[Claim]) -> int:
    keys = [key(claim) for claim in claims]
    return sum(len(_RELEASE(connection, some, holder=worker_id)) for some in dialect.chunks(keys))


async def release_unknown(connection: AsyncConnection, worker_id: str, known: Iterable[Claim]) -> int:
    """Give back what a worker holds though it does not know: the answer to the COMMIT of a claim was lost.

    ``known`` are all claims that it knows of. Returns how many rows were given back.
    """
    fences = {(claim.message_id, claim.processor, claim.fence) for claim in known}
    its_own = PROCESSING & (work.c.worker_id == worker_id)
    columns = [work.c[name] for name in Claim._fields]
    claims = [Claim._make(row) for row in (await connection.execute(select(*columns).where(its_own))).all()]
    unknown = [claim for claim in claims if (claim.message_id, claim.processor, claim.fence) not in fences]
    return await release(connection, worker_id, unknown)


async def release_all(connection: AsyncConnection, worker_id: str) -> int:
    """Give back all that a worker holds, when it stops in good order and runs nothing any more."""
    its_own = PROCESSING & (work.c.worker_id == worker_id)
    given_back = update(work).where(its_own).values(state="pending", worker_id="", deadline_at=0)
    return (await connection.execute(given_back)).rowcount
