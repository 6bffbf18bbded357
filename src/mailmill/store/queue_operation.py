"""What people do to the queue: run failed work again, give work up, forget work of processors that are gone.

Law: messages are locked before their work, as :func:`mailmill.store.queue_outcomes.finish` does. So keys are read
without a lock first, and what they name is looked at once more under the messages' locks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, or_, select, tuple_, update

from mailmill.store import dialect, event_log, queue_events
from mailmill.store.fair_order import read_tags
from mailmill.store.given_rows import GivenRows
from mailmill.store.queue_outcomes import lock_messages, mark_processed
from mailmill.store.tables import message, work
from mailmill.store.work_state import FAILED, PENDING, THROTTLED, WAITING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

_KEYS: Final = GivenRows("keys", work.c.message_id, work.c.processor)


async def retry(
    connection: AsyncConnection, *, message_ids: Sequence[int] | None, processor: str | None, now: float
) -> int:
    """Bring failed rows back as if they were new (all of them, or of these messages or this processor)."""
    wanted = [FAILED]
    if processor is not None:
        wanted.append(work.c.processor == processor)
    columns = (work.c.message_id, work.c.processor, work.c.priority, work.c.account_id)
    brought_back = 0
    for some in _pieces(message_ids):
        these = wanted if some is None else [*wanted, work.c.message_id.in_(some)]
        asked = select(work.c.message_id).where(*these).distinct().order_by(work.c.message_id)
        found = (await connection.execute(asked)).scalars().all()
        await lock_messages(connection, found)
        rows = []
        for ids in dialect.chunks(found):
            failed = (
                select(*columns)
                .where(*wanted, work.c.message_id.in_(ids))
                .order_by(work.c.message_id, work.c.processor)
            )
            rows += (await connection.execute(dialect.lock(connection, failed, of=work))).all()
        tags = await read_tags(connection, ((row.processor, row.priority, row.account_id) for row in rows), now)
        for batch in dialect.chunks(rows):
            await connection.execute(
                update(work)
                .where(work.c.message_id == bindparam("of_message"), work.c.processor == bindparam("of_processor"))
                .values(state="pending", attempt=0, crashes=0, run_at=now, vt=bindparam("tag"), last_error=""),
                [
                    {
                        "of_message": row.message_id,
                        "of_processor": row.processor,
                        "tag": tags.next((row.processor, row.priority, row.account_id)),
                    }
                    for row in batch
                ],
            )
            await connection.execute(
                update(message)
                .where(message.c.id.in_({row.message_id for row in batch}), message.c.processed_at.is_not(None))
                .values(processed_at=None)
            )
        brought_back += len(rows)
    return brought_back


async def drop(
    connection: AsyncConnection,
    *,
    message_ids: Sequence[int] | None,
    processor: str | None,
    only_failed: bool,
    now: float,
    limit: int = 1000,
) -> int:
    """Give rows up: of these messages, of this processor, or all; with ``only_failed`` those in that state alone.

    A row that is being run is given up too: its outcome comes too late then. A message that has no work left is
    processed. Returns how many rows went; less than ``limit`` says that none is left.
    """
    wanted = [FAILED] if only_failed else []
    if processor is not None:
        wanted.append(work.c.processor == processor)
    gone = 0
    for some in _pieces(message_ids):
        these = wanted if some is None else [*wanted, work.c.message_id.in_(some)]
        gone += await _forget(connection, these, now, limit - gone)
        if gone >= limit:
            break
    return gone


async def drop_unconfigured(
    connection: AsyncConnection, names: Collection[str], now: float, *, limit: int = 1000
) -> int:
    """Delete what waits for processors other than ``names``: nobody would ever claim it. Returns how many rows went;
    less than ``limit`` says that none is left.

    A message that has no work left then is processed. Failed rows stay, as a record; results stay anyway.
    """
    return await _forget(connection, [or_(PENDING, WAITING, THROTTLED), work.c.processor.not_in(names)], now, limit)


async def _forget(connection: AsyncConnection, these: Sequence[ColumnElement[bool]], now: float, limit: int) -> int:
    """Delete up to ``limit`` such rows; fewer went only where no more are there."""
    gone = 0
    while gone < limit:
        # In no order: sorting all that match for each piece would cost more than the piece.
        asked = select(work.c.message_id, work.c.processor).where(*these).limit(limit - gone)
        keys = sorted((row.message_id, row.processor) for row in await connection.execute(asked))
        message_ids = sorted({message_id for message_id, _ in keys})
        await lock_messages(connection, message_ids)
        went = 0
        given = _KEYS.table(connection)
        for some in dialect.chunks(keys):
            named = tuple_(work.c.message_id, work.c.processor).in_(select(given.c.message_id, given.c.processor))
            deleted = await connection.execute(delete(work).where(*these, named), _KEYS.parameters(connection, some))
            went += deleted.rowcount
        processed_ids = await mark_processed(connection, message_ids, now)
        scenes = await queue_events.scenes(connection, processed_ids)
        await event_log.append(connection, queue_events.processed(scenes, processed_ids, now))
        asked_for, gone = limit - gone, gone + went
        if len(keys) < asked_for:
            break
    return gone


def _pieces(message_ids: Sequence[int] | None) -> Iterator[Sequence[int] | None]:
    """The messages in the order of their locks, as many at once as a statement can name; None for all messages."""
    if message_ids is None:
        yield None
    else:
        yield from dialect.chunks(sorted(set(message_ids)))
