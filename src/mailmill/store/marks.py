"""Places in the event log that somebody keeps: how far it was planned, how far it was removed. Rows of ``setting``.

Law: a mark only goes forward, under its row's lock, in the transaction of what it tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, ColumnElement, ScalarSelect, cast, func, select, update

from mailmill.store import dialect
from mailmill.store.tables import setting

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

PLANNED: Final = "outbox_cursor"
"""Every event up to it has been looked at by the outbox."""

REMOVED: Final = "event_log_removed"
"""Retention has removed events up to it."""

TAKEN: Final = "event_log_taken"
"""No event is given a position up to it again: the highest among those that went with their account."""


def column(name: str) -> ColumnElement[int]:
    """The mark as a value within a statement; 0 where it was never set."""
    found: ScalarSelect[int] = select(cast(setting.c.value, BigInteger)).where(setting.c.name == name).scalar_subquery()
    return func.coalesce(found, 0)


async def get(connection: AsyncConnection, name: str) -> int | None:
    """None where it was never set."""
    stored: str | None = await connection.scalar(select(setting.c.value).where(setting.c.name == name))
    return None if stored is None else int(stored)


async def lock(connection: AsyncConnection, name: str) -> int:
    """The mark, which nobody else can move until the transaction ends; made, at 0, where there is none."""
    wanted = dialect.lock(connection, select(setting.c.value).where(setting.c.name == name), of=setting)
    stored: str | None = await connection.scalar(wanted)
    if stored is None:
        # Two may come here first: without a row there is nothing to lock, so both make it and then wait for it.
        await connection.execute(
            dialect.insert(connection, setting).values(name=name, value="0").on_conflict_do_nothing()
        )
        stored = await connection.scalar(wanted)
    return int(stored or 0)


async def move(connection: AsyncConnection, name: str, position: int) -> None:
    """To be called by who holds its `lock`."""
    await connection.execute(update(setting).where(setting.c.name == name).values(value=str(position)))
