"""The event log: what happened, written in the transaction of what it tells.

Law: an event is appended in the same transaction as the change it tells, or not at all. It holds references; the
payload is rendered when it is read or sent.

Order: readers go by ``id``. On SQLite one connection writes, so ids commit in order and a cursor that has read up to an
id has missed nothing below it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from mailmill.model import EventName
from mailmill.store import dialect
from mailmill.store.bulk_insert import BulkInsert
from mailmill.store.tables import event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row
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
    """An event as it was appended. ``id`` is its place in the log and never given twice."""

    id: int
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
    if not events:
        return
    await _insert(
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


async def read_after(
    connection: AsyncConnection, after: int, limit: int, *, deliverable_only: bool = False
) -> list[EventRow]:
    """Up to ``limit`` events with an id above ``after``, in id order.

    ``deliverable_only`` leaves out what is history (mail that was there before its account was added).
    """
    wanted = select(event).where(event.c.id > after).order_by(event.c.id).limit(limit)
    if deliverable_only:
        wanted = wanted.where(event.c.historical.is_(False))
    return [_event_row(row) for row in await connection.execute(wanted)]


async def get(connection: AsyncConnection, event_ids: Sequence[int]) -> dict[int, EventRow]:
    """The events with these ids; an id that is not in the log is left out."""
    found: dict[int, EventRow] = {}
    for some in dialect.chunks(event_ids):
        for row in await connection.execute(select(event).where(event.c.id.in_(some))):
            found[row.id] = _event_row(row)
    return found


async def head(connection: AsyncConnection) -> int:
    """The id of the newest event; 0 in an empty log."""
    newest: int | None = await connection.scalar(select(func.max(event.c.id)))
    return newest or 0


def _event_row(row: Row[Any]) -> EventRow:
    return EventRow(
        id=row.id,
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
