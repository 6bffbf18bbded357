"""Is the store whole? Each check counts what breaks one rule; nothing is written.

What the foreign keys say is checked on both databases, although PostgreSQL enforces them: a restored dump or a damaged
index may have broken them. The rules that no database knows are ours: a message has its bytes, ids are given once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, exists, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store import dialect, migrate
from mailmill.store.segments import BlobRef
from mailmill.store.tables import blob, delivery, event, id_block, message, metadata

RESTORE = "stop the service and restore the latest backup: mailmill db restore"
FETCH_AGAIN = "mailmill verify --full --repair fetches again what the mail server still has"

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken ``count`` times. ``detail`` names the first cases, ``hint`` says what to do."""

    check: str
    count: int
    detail: str
    hint: str


class Check(NamedTuple):
    """``run`` finds what breaks the rule. It is given a snapshot, and takes what it takes: it may read all rows."""

    name: str
    run: Callable[[AsyncConnection], Awaitable[Finding | None]]


def database_checks(connection: AsyncConnection) -> list[Check]:
    """All of them, for the make of database that ``connection`` is of. Each may have a snapshot of its own: what one
    holds for minutes keeps PostgreSQL from removing what queues leave behind.
    """
    checks = [Check("schema", _schema)]
    if not dialect.is_postgresql(connection):
        checks.append(Check("file", _sqlite_file))
    checks += [Check(name, partial(_counted, name=name, broken=broken, key=key)) for name, broken, key in _rules()]
    return [*checks, Check("message ids", _message_ids)]


async def segment_ends(connection: AsyncConnection) -> dict[str, int]:
    """Segment → where the last blob in it ends, in bytes."""
    wanted = select(blob.c.segment, func.max(blob.c.offset_bytes + blob.c.size_bytes)).group_by(blob.c.segment)
    return {row[0]: row[1] for row in await connection.execute(wanted)}


async def blobs_after(connection: AsyncConnection, after: BlobRef | None, limit: int) -> list[BlobRef]:
    """Up to ``limit`` blobs, segment by segment; from the first on, or from behind ``after``."""
    wanted = select(blob.c.sha256, blob.c.segment, blob.c.offset_bytes, blob.c.size_bytes)
    if after is not None:
        same = and_(blob.c.segment == after.segment, blob.c.sha256 > after.sha256)
        wanted = wanted.where(blob.c.segment >= after.segment, (blob.c.segment > after.segment) | same)
    rows = await connection.execute(wanted.order_by(blob.c.segment, blob.c.sha256).limit(limit))
    return [BlobRef(bytes(row[0]), *row[1:]) for row in rows]


async def _schema(connection: AsyncConnection) -> Finding | None:
    revision = await connection.run_sync(migrate.revision_of)
    if revision == migrate.HEAD or await connection.run_sync(migrate.serves_this_code):
        return None
    return Finding("schema", 1, f"the schema is {revision}, this version wants {migrate.HEAD}", "mailmill db upgrade")


async def _sqlite_file(connection: AsyncConnection) -> Finding | None:
    problems = [row[0] for row in await connection.exec_driver_sql("PRAGMA integrity_check(20)")]
    if problems == ["ok"]:
        return None
    return Finding("file", len(problems), "; ".join(problems[:_SHOWN]), RESTORE)


def _rules() -> Iterator[tuple[str, ColumnElement[bool], ColumnElement[Any]]]:
    """(name, what a row is like that breaks it, a column to name the row by)."""
    for table in metadata.sorted_tables:
        for key in table.foreign_keys:
            parent = key.column.table.alias()
            missing = key.parent.is_not(None) & ~exists().where(parent.c[key.column.name] == key.parent)
            yield f"{table.name} without {key.column.table.name}", missing, key.parent
    has_blob = exists().where(blob.c.sha256 == message.c.sha256)
    yield "message without raw bytes", message.c.raw_expired_at.is_(None) & ~has_blob, message.c.id
    other_size = exists().where(blob.c.sha256 == message.c.sha256, blob.c.size_bytes != message.c.size_bytes)
    yield "message of another size", other_size, message.c.id
    waiting = delivery.c.state.in_(("pending", "sending"))
    yield "delivery without event", waiting & ~exists().where(event.c.id == delivery.c.event_id), delivery.c.id


async def _counted(
    connection: AsyncConnection, name: str, broken: ColumnElement[bool], key: ColumnElement[Any]
) -> Finding | None:
    table: Any = getattr(key, "table")  # noqa: B009 - a column's; the type does not say so
    # First whether there is any: that is what a whole store answers fastest.
    some: Select[Any] = select(key).select_from(table).where(broken).limit(_SHOWN)
    first = (await connection.execute(some)).scalars().all()
    if not first:
        return None
    count: int = (await connection.execute(select(func.count()).select_from(table).where(broken))).scalar_one()
    shown = ", ".join(str(each) for each in first)
    hint = FETCH_AGAIN if name.startswith("message ") and name != "message without account" else RESTORE
    return Finding(name, count, f"{key.key} {shown}{' …' if count > len(first) else ''}", hint)


async def _message_ids(connection: AsyncConnection) -> Finding | None:
    highest: int | None = await connection.scalar(select(func.max(message.c.id)))
    wanted: Any = select(id_block.c.next_id).where(id_block.c.name == "message")
    if dialect.is_postgresql(connection):
        wanted = text("SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END FROM message_id_seq")
    next_id: int | None = await connection.scalar(wanted)
    if next_id is not None and next_id > (highest or 0):
        return None
    return Finding("message ids", 1, f"the next id is {next_id}, message {highest} is there already", RESTORE)
