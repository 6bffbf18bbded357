"""What people do to the queue: run failed work again, give work up, forget work of processors that are gone.

Laws:

* Messages are locked before their work, as :func:`mailmill.store.queue_outcomes.finish_within` does, and all of them
  before the first row of work: who holds work never waits for a message. So keys are read without a lock first, and
  what they name is looked at once more under the messages' locks. (One exception: a row that was queued in the very
  moment in which the only one of its message is finished. Two that wait for each other there are parted by PostgreSQL.)
* Giving up passes over rows that another transaction holds. Some hold rows of messages that they have not locked, in
  an order of their own (rows let in, rows given back): to wait for one while one holds others would be a deadlock.
* A transaction is a piece: callers go through millions of rows by `messages_with_work`, upwards, and look at each
  message once. Work that fails again meanwhile is not brought back for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, func, or_, select, tuple_, update

from mailmill.store import dialect, queue_events
from mailmill.store.fair_order import read_tags
from mailmill.store.given_rows import GivenRows
from mailmill.store.message_queries import for_ids, get_messages
from mailmill.store.queue_outcomes import lock_messages
from mailmill.store.tables import message, work
from mailmill.store.work_state import FAILED, PENDING, THROTTLED, WAITING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.ext.asyncio import AsyncConnection

_KEYS: Final = GivenRows("keys", work.c.message_id, work.c.processor)


async def count_work(connection: AsyncConnection, *, processor: str | None, only_failed: bool) -> int:
    """Rows of this processor (None: of all), in whatever state or only those that failed."""
    wanted = select(func.count()).select_from(work).where(*_named(processor, only_failed=only_failed))
    return (await connection.execute(wanted)).scalar_one()


async def newest_message(connection: AsyncConnection) -> int:
    """The highest id of a message that has work; 0 where none has."""
    return await connection.scalar(select(func.max(work.c.message_id))) or 0


@dataclass(frozen=True, slots=True)
class Without:
    """Of the messages that were named: those that are not there, and those that have no such work. Upwards."""

    unknown: tuple[int, ...]
    unaffected: tuple[int, ...]


async def messages_without_work(
    connection: AsyncConnection, message_ids: Collection[int], *, processor: str | None, only_failed: bool
) -> Without:
    """What cannot be changed of what was named, as of now."""
    wanted = select(work.c.message_id).where(*_named(processor, only_failed=only_failed))
    found = await for_ids(connection, wanted, work.c.message_id, message_ids)
    without = set(message_ids) - {row.message_id for row in found}
    known = await get_messages(connection, without)
    return Without(tuple(sorted(without - known.keys())), tuple(sorted(known)))


async def messages_with_work(
    connection: AsyncConnection,
    *,
    message_ids: Sequence[int] | None,
    processor: str | None,
    only_failed: bool,
    after: int,
    through: int,
    limit: int,
) -> list[int]:
    """The next messages above ``after``, up to ``through``, that have such work, by id: those of ``limit`` rows.

    ``message_ids``: only of these, at most `dialect.MAX_ROWS`.
    """
    span = [work.c.message_id > after, work.c.message_id <= through]
    if message_ids is not None:
        span.append(work.c.message_id.in_(message_ids))
    wanted = (
        select(work.c.message_id)
        .where(*span, *_named(processor, only_failed=only_failed))
        .order_by(work.c.message_id)
        .limit(limit)
    )
    return sorted(set(await connection.scalars(wanted)))


async def retry(
    connection: AsyncConnection, *, message_ids: Sequence[int] | None, processor: str | None, now: float
) -> int:
    """Bring failed rows back as if they were new (all of them, or of these messages or this processor)."""
    wanted = _named(processor, only_failed=True)
    columns = (work.c.message_id, work.c.processor, work.c.priority, work.c.account_id)
    found: list[int] = []
    for some in _pieces(message_ids):
        these = wanted if some is None else [*wanted, work.c.message_id.in_(some)]
        found += await connection.scalars(select(work.c.message_id).where(*these).distinct())
    found.sort()
    await lock_messages(connection, found)
    rows: list[Row[Any]] = []
    for ids in dialect.chunks(found):
        failed = (
            select(*columns).where(*wanted, work.c.message_id.in_(ids)).order_by(work.c.message_id, work.c.processor)
        )
        rows += await connection.execute(dialect.lock(connection, failed, of=work))
    tags = await read_tags(
        connection, (((row.processor, row.priority, row.account_id), row.message_id) for row in rows), now
    )
    for piece in dialect.chunks(rows):
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
                for row in piece
            ],
        )
        await connection.execute(
            update(message)
            .where(message.c.id.in_({row.message_id for row in piece}), message.c.processed_at.is_not(None))
            .values(processed_at=None)
        )
    return len(rows)


async def drop(
    connection: AsyncConnection,
    *,
    message_ids: Sequence[int] | None,
    processor: str | None,
    only_failed: bool,
    now: float,
    limit: int = 1000,
) -> int:
    """Give up to ``limit`` rows up: of these messages, of this processor, or all; with ``only_failed`` those in that
    state alone.

    A row that is being run is given up too: its outcome comes too late then. A message that has no work left is
    processed. Returns how many rows went; less than ``limit`` says that none is left but what others hold just now.
    """
    return await forget(connection, _named(processor, only_failed=only_failed), now, limit, message_ids)


async def drop_unconfigured(
    connection: AsyncConnection, names: Collection[str], now: float, *, limit: int = 1000
) -> int:
    """Delete what waits for processors other than ``names``: nobody would ever claim it. Returns how many rows went;
    less than ``limit`` says that none is left.

    A message that has no work left then is processed. Failed rows stay, as a record; results stay anyway.
    """
    return await forget(connection, [or_(PENDING, WAITING, THROTTLED), work.c.processor.not_in(names)], now, limit)


async def forget(
    connection: AsyncConnection,
    these: Sequence[ColumnElement[bool]],
    now: float,
    limit: int,
    message_ids: Sequence[int] | None = None,
) -> int:
    """Delete up to ``limit`` rows for which ``these`` are true (of these messages, or of all), and tell of the messages
    that are processed by that. Returns how many went: those that another transaction holds, or has changed, stay.
    """
    keys: list[tuple[int, str]] = []
    for some in _pieces(message_ids):
        within = these if some is None else [*these, work.c.message_id.in_(some)]
        # In no order: sorting all that match for each piece would cost more than the piece.
        asked = select(work.c.message_id, work.c.processor).where(*within).limit(limit - len(keys))
        keys += [(row.message_id, row.processor) for row in await connection.execute(asked)]
        if len(keys) >= limit:
            break
    keys.sort()
    ids = sorted({message_id for message_id, _ in keys})
    await lock_messages(connection, ids)
    gone: list[int] = []
    for part in dialect.chunks(keys):
        given = _KEYS.table(connection)
        named = tuple_(work.c.message_id, work.c.processor).in_(select(given.c.message_id, given.c.processor))
        mine = select(work.c.message_id, work.c.processor).where(*these, named)
        free = dialect.skip_locked(connection, mine, of=work).cte("free")
        going = tuple_(work.c.message_id, work.c.processor).in_(select(free.c.message_id, free.c.processor))
        # Not by its count: SQLite's driver has none for a statement that begins with WITH.
        dropping = delete(work).where(going).returning(work.c.message_id)
        gone += await connection.scalars(dropping, _KEYS.parameters(connection, part))
    await connection.run_sync(queue_events.tell_processed, sorted(set(gone)), now, once=True)
    return len(gone)


def _named(processor: str | None, *, only_failed: bool) -> list[ColumnElement[bool]]:
    wanted = [FAILED] if only_failed else []
    return wanted if processor is None else [*wanted, work.c.processor == processor]


def _pieces(message_ids: Sequence[int] | None) -> Iterator[Sequence[int] | None]:
    """The messages in the order of their locks, as many at once as a statement can name; None for all messages."""
    if message_ids is None:
        yield None
    else:
        yield from dialect.chunks(sorted(set(message_ids)))
