"""The event log: what happened, written in the transaction of what it tells.

Law: an event is appended in the same transaction as the change it tells, or not at all. It holds references; the
payload is rendered when it is read or sent.

Order: readers go by *position*, and a reader that has read up to a position has missed nothing below it. On SQLite one
connection writes, so ids commit in order and the id is the position. On PostgreSQL a row takes its id when it is
written and transactions commit in any order, so the position is ``seq``, which the `sequencer` gives to what is
committed; an event without one is not in the log yet.

::

    append ──commit──▶ [ id ] ──sequencer──▶ [ id, seq ] ──retention──▶ gone; `marks.REMOVED` says how far
                                    ▲ PostgreSQL only        readers stand at a seq (SQLite: at an id)

``id`` stays the identity of an event: what deliveries refer to, and what receivers know it by.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from mailmill.errors import CursorAheadError, CursorTooOldError
from mailmill.model import EventName
from mailmill.store import dialect, marks
from mailmill.store.bulk_insert import BulkInsert
from mailmill.store.tables import event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Column, Connection, Row
    from sqlalchemy.ext.asyncio import AsyncConnection

DEFAULT_TENANT = "default"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append. ``data`` is what the references do not say; it must be JSON-able."""

    tenant_id: str
    event: EventName
    created_at: float
    account_id: int | None = None
    path: str | None = None
    special_use: str | None = None
    message_id: int | None = None
    historical: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as it was appended. ``id`` is its identity, ``position`` its place in the log: none is given twice."""

    id: int
    position: int
    tenant_id: str
    event: str
    created_at: float
    account_id: int | None
    path: str | None
    special_use: str | None
    message_id: int | None
    historical: bool
    data: Mapping[str, Any]


_insert = BulkInsert[tuple[Any, ...]](
    event,
    (
        "tenant_id",
        "event",
        "account_id",
        "path",
        "special_use",
        "message_id",
        "historical",
        "data",
        "created_at",
    ),
)


async def append(connection: AsyncConnection, events: Sequence[NewEvent]) -> None:
    """Append ``events`` in their order, inside the caller's transaction."""
    if events:
        await connection.run_sync(append_within, events)


def append_within(connection: Connection, events: Sequence[NewEvent]) -> None:
    """:func:`append`, within ``run_sync``."""
    _insert.insert(
        connection,
        [
            (
                new.tenant_id,
                str(new.event),
                new.account_id,
                new.path if new.path is None else dialect.storable(new.path),
                new.special_use,
                new.message_id,
                new.historical,
                json.dumps(dict(new.data), separators=(",", ":")) if new.data else "{}",
                new.created_at,
            )
            for new in events
        ],
    )


def position_column(connection: AsyncConnection) -> Column[Any]:
    """Where readers stand. On PostgreSQL it is NULL in what the sequencer has not numbered."""
    return event.c.seq if dialect.is_postgresql(connection) else event.c.id


async def read_after(connection: AsyncConnection, position: int, limit: int) -> list[EventRow]:
    """Up to ``limit`` events above ``position``, in order. Position 0 stands before the oldest that is kept.

    Raises CursorTooOldError where events after ``position`` were removed, and CursorAheadError where the log never
    came as far.
    """
    at = position_column(connection)
    removed_to = marks.column(marks.REMOVED)
    wanted = select(event, at.label("position"), removed_to.label("removed"))
    # Below what was removed single events may stand, which a delivery still needs; they are nobody's to read.
    wanted = wanted.where(at > (position or removed_to)).order_by(at).limit(limit)
    rows = (await connection.execute(wanted)).all()
    if position:
        # After the rows, or what is removed between the two statements would be left out in silence.
        removed, _, newest = (rows[0].removed, position, position) if rows else await _ends(connection)
        if position < removed:
            raise CursorTooOldError(position, oldest=removed)
        if position > newest:
            raise CursorAheadError(position, newest=newest)
    return [_event_row(row) for row in rows]


async def get(connection: AsyncConnection, event_ids: Sequence[int]) -> dict[int, EventRow]:
    """The events with these ids; an id that is not in the log is left out."""
    found: dict[int, EventRow] = {}
    at = position_column(connection)
    for some in dialect.chunks(event_ids):
        wanted = select(event, at.label("position")).where(event.c.id.in_(some), at.is_not(None))
        for row in await connection.execute(wanted):
            found[row.id] = _event_row(row)
    return found


async def head(connection: AsyncConnection) -> int:
    """The position of the newest event that is there or that retention removed; 0 where there is none.

    What went with its account does not count: nobody needs to have read as far.
    """
    return (await _ends(connection))[1]


async def is_numbered(connection: AsyncConnection) -> bool:
    """Whether every committed event has its position."""
    if not dialect.is_postgresql(connection):
        return True
    unnumbered = select(event.c.id).where(event.c.seq.is_(None)).limit(1)
    return await connection.scalar(unnumbered) is None


async def _ends(connection: AsyncConnection) -> tuple[int, int, int]:
    """(position up to which events were removed, position of the newest, highest that ever was given)."""
    newest = select(func.max(position_column(connection))).scalar_subquery()
    wanted = select(
        newest.label("newest"), marks.column(marks.REMOVED).label("removed"), marks.column(marks.TAKEN).label("taken")
    )
    row = (await connection.execute(wanted)).one()
    head = max(row.newest or 0, row.removed)
    return row.removed, head, max(head, row.taken)


def _event_row(row: Row[Any]) -> EventRow:
    return EventRow(
        id=row.id,
        position=row.position,
        tenant_id=row.tenant_id,
        event=row.event,
        created_at=row.created_at,
        account_id=row.account_id,
        path=row.path,
        special_use=row.special_use,
        message_id=row.message_id,
        historical=row.historical,
        data=json.loads(row.data),
    )
