"""Changing work by hand, however much it is: piece by piece, each in a transaction of its own.

A million rows in one transaction would keep all others from writing for minutes, and a cut would lose all of it. A
piece is looked up in a snapshot, so that nobody waits while it is searched for, and stands once it is committed:
whoever gives up the wait and asks again goes on where it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mailmill.store import dialect, queue_operation
from mailmill.store.database import Database, WakeName

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.app.maintenance import Progress

Change = Callable[["AsyncConnection", Sequence[int]], Awaitable[int]]
"""Changes the work of these messages; returns how many rows it was."""

_WAKE_WORK: Final[tuple[WakeName, ...]] = ("work",)
_PIECE_ROWS: Final = 1000
# What others hold is passed over, and others hold nothing for long.
_PASSES: Final = 10
_PASS_PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Selection:
    """Which work: of these messages (None: of all), of this processor (None: of all), in any state or failed."""

    message_ids: Sequence[int] | None
    processor: str | None
    only_failed: bool


async def sweep(database: Database, wanted: Selection, change: Change, progress: Progress, *, takes_away: bool) -> int:
    """``change`` on all the messages that had such work when it was asked for; returns how many rows were changed.

    ``takes_away``: what is changed is no such work any more, so what is left after a pass was passed over, and comes
    in the next one. What others hold through all of the passes stays, and who asks again gets it.
    """
    async with database.read() as connection:
        through = await queue_operation.newest_message(connection)
        if wanted.message_ids is None:
            progress.total = await queue_operation.count_work(
                connection, processor=wanted.processor, only_failed=wanted.only_failed
            )
    for number in range(_PASSES if takes_away else 1):
        if number > 1:
            await asyncio.sleep(_PASS_PAUSE_SECONDS)
        found = False
        async for message_ids in _pieces(database, wanted, through):
            found = True
            async with database.write(wake=_WAKE_WORK) as connection:
                changed = await change(connection, message_ids)
            progress.done += changed
        if not found:
            break
    return progress.done


async def _pieces(database: Database, wanted: Selection, through: int) -> AsyncIterator[Sequence[int]]:
    """The messages that have such work, upwards, each once."""
    named = None if wanted.message_ids is None else sorted(set(wanted.message_ids))
    for some in [None] if named is None else dialect.chunks(named):
        after, found = 0, [0]
        while found:
            async with database.read() as connection:
                found = await queue_operation.messages_with_work(
                    connection,
                    message_ids=some,
                    processor=wanted.processor,
                    only_failed=wanted.only_failed,
                    after=after,
                    through=through,
                    limit=_PIECE_ROWS,
                )
            if found:
                yield found
                after = found[-1]
