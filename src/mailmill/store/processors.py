"""What an operator set for a processor, over all nodes: today, whether it is paused.

A pause holds from its commit on: every claim looks for it in its own statement. What a node had claimed before it
gives back unrun within a poll; what runs may end. A resumed one goes on at the hint that whoever resumes it gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, update

from mailmill.store import dialect
from mailmill.store.tables import processor

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


async def pause(connection: AsyncConnection, name: str, now: float) -> bool:
    """Have nobody claim work of this processor; new work still queues. False where it was paused already."""
    if await connection.scalar(select(processor.c.paused_at).where(processor.c.name == name)) is not None:
        return False
    adding = dialect.insert(connection, processor).values(name=name, paused_at=now)
    await connection.execute(adding.on_conflict_do_update(index_elements=["name"], set_={"paused_at": now}))
    return True


async def resume(connection: AsyncConnection, name: str) -> bool:
    """Have its work claimed again. False where it was not paused."""
    resumed = await connection.execute(
        update(processor).where(processor.c.name == name, processor.c.paused_at.is_not(None)).values(paused_at=None)
    )
    return resumed.rowcount > 0


async def paused(connection: AsyncConnection) -> frozenset[str]:
    """The processors that are paused."""
    rows = await connection.execute(select(processor.c.name).where(processor.c.paused_at.is_not(None)))
    return frozenset(rows.scalars())
