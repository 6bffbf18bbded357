"""What is done, taken out of the queue and recorded by one statement; PostgreSQL, where each statement is a round trip.

Law: where the same statement tells of the messages besides, it decides by what it saw when it began. So it takes only
rows that nobody has written since. Who queues other work of a message whose row is being run writes that row, too
(`reprocess_pieces`): it is passed over here then, and left to who looks anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Float,
    Integer,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal_column,
    null,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects import postgresql

from mailmill.store import dialect
from mailmill.store.queue_events import telling_processed
from mailmill.store.queue_rows import BACKLOG, held
from mailmill.store.statement import Statement
from mailmill.store.tables import result, work

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import CTE, ColumnElement, CompoundSelect, Connection, FromClause, Select
    from sqlalchemy.dialects.postgresql import Insert

    from mailmill.store.queue_rows import Finished


class Told(NamedTuple):
    """What was recorded, each the only work of its message, which was told of as processed; and what is ``left``: not
    held any more, or written meanwhile. Where messages have other work, nothing was done, and ``shared`` is which
    (None: not known).
    """

    recorded: Sequence[Finished]
    shared: Collection[int] | None
    left: Sequence[Finished]


def record(connection: Connection, worker_id: str, finished: Sequence[Finished], now: float) -> list[Finished]:
    """Delete the rows that are still held and write their results; returns whose they were."""
    rows = _RECORD.rows(connection, **_parameters(worker_id, finished, now))
    return [finished[place - 1] for place in sorted([row[0] for row in rows])]


def record_and_tell(connection: Connection, worker_id: str, finished: Sequence[Finished], now: float) -> Told:
    """:func:`record`, and ``messageProcessed`` of each message, if none of them has other work. At least one, no two
    of the same message."""
    rows = _RECORD_AND_TELL.rows(connection, **_parameters(worker_id, finished, now))
    places = {row[0] for row in rows if row[0] is not None}
    shared = {row[1] for row in rows if row[1] is not None}
    if shared:
        return Told([], shared, finished)
    if len(places) == len(finished):
        return Told(finished, None, [])
    recorded = [done for place, done in enumerate(finished, start=1) if place in places]
    return Told(recorded, None, [done for place, done in enumerate(finished, start=1) if place not in places])


def _parameters(worker_id: str, finished: Sequence[Finished], now: float) -> Mapping[str, Any]:
    return {
        "message_ids": [done.claim.message_id for done in finished],
        "processors": [done.claim.processor for done in finished],
        "fences": [done.claim.fence for done in finished],
        "outcomes": [dialect.storable(done.value) for done in finished],
        "took": [done.seconds for done in finished],
        "holder": worker_id,
        "at": now,
    }


def _recording() -> Select[Any]:
    gone = _taken_out(_given())
    return select(gone.c.place).add_cte(_results(gone).cte("recorded"))


def _recording_and_telling(connection: Connection) -> CompoundSelect[Any]:
    """Each message's work is looked up by itself, in the order of its key: however wrong the planner is about how much
    there is, it goes by the key."""
    given = _given()
    row = (
        select(work.c.processor, _WRITTEN_BY.label("written_by"))
        .where(work.c.message_id == given.c.message_id)
        .order_by(work.c.processor)
        .limit(literal_column("2"))
        .lateral("row")
    )
    own = (given.c.processor == row.c.processor).label("own")
    seen = select(*given.c, row.c.written_by, own).join_from(given, row, true()).cte("seen").prefix_with("MATERIALIZED")
    shared = select(seen.c.message_id).where(~seen.c.own).cte("shared").prefix_with("MATERIALIZED")
    gone = _taken_out(seen, seen.c.own, seen.c.written_by == _WRITTEN_BY, ~exists(select(shared.c.message_id)))
    processed = select(gone.c.message_id.label("id"), gone.c.past).subquery("processed")
    none = cast(null(), Integer)
    outcome = union_all(select(gone.c.place, none.label("shared")), select(none, shared.c.message_id))
    return outcome.add_cte(_results(gone).cte("recorded"), telling_processed(connection, processed).cte("told"))


def _given() -> FromClause:
    columns = ("message_id", "processor", "fence", "value", "seconds")
    given = func.unnest(
        bindparam("message_ids", type_=ARRAY(BigInteger)),
        bindparam("processors", type_=ARRAY(Text)),
        bindparam("fences", type_=ARRAY(BigInteger)),
        bindparam("outcomes", type_=ARRAY(Text)),
        bindparam("took", type_=ARRAY(Float)),
    ).table_valued(*columns, with_ordinality="place", name="given")
    return given.render_derived("given")


def _taken_out(given: FromClause, *besides: ColumnElement[bool]) -> CTE:
    """The rows of work that were deleted: as given, under the fence. What a result tells of its work is taken from the
    row, which under the fence is as it was claimed."""
    row = (work.c.message_id, work.c.processor, work.c.version, work.c.attempt, work.c.errors)
    past = (work.c.priority >= literal_column(str(BACKLOG))).label("past")
    taking = delete(work).where(held(given.c), *besides)
    return taking.returning(*row, past, given.c.value, given.c.seconds, given.c.place).cte("gone")


def _results(gone: FromClause) -> Insert:
    values = {
        "message_id": gone.c.message_id,
        "processor": gone.c.processor,
        "version": gone.c.version,
        "value": gone.c.value,
        "attempts": gone.c.attempt + literal_column("1"),
        "seconds": gone.c.seconds,
        "finished_at": bindparam("at", type_=Float),
        "errors": gone.c.errors,
    }
    adding = postgresql.insert(result).from_select(list(values), select(*values.values()))
    replaced = {name: adding.excluded[name] for name in values if name not in result.primary_key.columns}
    return adding.on_conflict_do_update(index_elements=list(result.primary_key.columns), set_=replaced)


# The transaction that wrote the row as it is. PostgreSQL compares it anew where it has waited for the row's lock.
_WRITTEN_BY: Final[ColumnElement[int]] = literal_column("work.xmin", Integer)
_RECORD: Final = Statement(lambda _connection: _recording())
_RECORD_AND_TELL: Final = Statement(lambda connection: _recording_and_telling(connection))
