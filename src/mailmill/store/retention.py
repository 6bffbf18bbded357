"""How long raw mail, results and deleted messages are kept, account by account, and letting go of what is past it.

Ages count from when a thing came to be here: raw mail from ``stored_at`` (mail of ten years ago that was downloaded
today is of today), a result from ``finished_at``, a deleted message from ``deleted_at``.

Laws:

* A message whose raw bytes expired keeps its row, its places and its results; only ``raw_expired_at`` is set. So sync
  does not download it again, and `verify` does not miss it. Whether its bytes go too is `blob_references`'s to say:
  another account may need them.
* Raw bytes that work still needs are kept, those of failed work included: it may be retried. Who queues work locks its
  message first, and looks whether its bytes are there.
* `due` reads, page by page and outside of any write; each of the other functions is one small transaction's worth, and
  judges its rows again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, delete, exists, literal, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store import dialect
from mailmill.store.row_locks import hold_accounts_of, hold_free_work
from mailmill.store.tables import account, message, place, result, work

PIECE: Final = 200
"""Messages that one transaction lets go of."""

Mark = tuple[float, int]

_COLUMNS = (account.c.keep_raw_seconds, account.c.keep_results_seconds, account.c.keep_deleted_seconds)


@dataclass(frozen=True, slots=True)
class Retention:
    """What an account keeps, in seconds; None keeps for good."""

    raw_seconds: float | None = None
    results_seconds: float | None = None
    deleted_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A page of what is past its time: ids of messages. ``next`` asks for the next page; None at the end."""

    raw: tuple[int, ...]
    results: tuple[int, ...]
    deleted: tuple[int, ...]
    next: Mark | None


async def set_retention(connection: AsyncConnection, wanted: Mapping[int, Retention]) -> None:
    """What the configuration says, by account id. Rows are written where that changes something, by name."""
    stored = (await connection.execute(select(account.c.id, account.c.name, *_COLUMNS))).all()
    for account_id, _name, *held in sorted(stored, key=lambda row: row.name):
        kept = wanted.get(account_id)
        if kept is not None and Retention(*held) != kept:
            values = {column.key: seconds for column, seconds in zip(_COLUMNS, _all(kept), strict=True)}
            await connection.execute(update(account).where(account.c.id == account_id).values(values))


async def limited_accounts(connection: AsyncConnection) -> dict[int, Retention]:
    """Account id → retention, of the accounts that do not keep everything for good."""
    wanted = (
        select(account.c.id, *_COLUMNS)
        .where(account.c.removing_at.is_(None), or_(*(column.is_not(None) for column in _COLUMNS)))
        .order_by(account.c.id)
    )
    return {row[0]: Retention(*row[1:]) for row in await connection.execute(wanted)}


async def due(
    connection: AsyncConnection, account_id: int, kept: Retention, now: float, after: Mark | None, limit: int = 2000
) -> Due:
    """Look through ``limit`` messages of the account, from the oldest on or from a page's ``next``."""
    raw_before, results_before, deleted_before = (_before(now, seconds) for seconds in _all(kept))
    wanted = (
        select(
            message.c.id,
            message.c.internal_date,
            and_(_RAW_THERE, message.c.stored_at < raw_before, ~_HAS_WORK).label("raw"),
            exists().where(result.c.message_id == message.c.id, result.c.finished_at < results_before).label("results"),
            (message.c.deleted_at.is_not(None) & (message.c.deleted_at < deleted_before)).label("deleted"),
        )
        .where(message.c.account_id == account_id)
        .order_by(message.c.internal_date, message.c.id)
        .limit(limit)
    )
    if after is not None:
        # By row: the index on (account_id, internal_date, id) serves it.
        wanted = wanted.where(
            tuple_(message.c.internal_date, message.c.id) > tuple_(literal(after[0]), literal(after[1]))
        )
    rows = (await connection.execute(wanted)).all()
    return Due(
        raw=tuple(row.id for row in rows if row.raw and not row.deleted),
        results=tuple(row.id for row in rows if row.results and not row.deleted),
        deleted=tuple(row.id for row in rows if row.deleted),
        next=(rows[-1].internal_date, rows[-1].id) if len(rows) == limit else None,
    )


async def expire_raw(connection: AsyncConnection, message_ids: Sequence[int], kept: Retention, now: float) -> int:
    """Let go of the raw bytes of these messages, as far as they are still due; returns of how many."""
    still = and_(_RAW_THERE, message.c.stored_at < _before(now, kept.raw_seconds), ~_HAS_WORK)
    unneeded = await _without_work(connection, await _lock_free(connection, message_ids, still))
    if unneeded:
        await connection.execute(update(message).where(message.c.id.in_(unneeded)).values(raw_expired_at=now))
    return len(unneeded)


async def expire_results(connection: AsyncConnection, message_ids: Sequence[int], kept: Retention, now: float) -> int:
    """Delete the results of these messages that are past their time, whatever their version; returns how many."""
    old = select(*result.primary_key).where(
        result.c.message_id.in_(message_ids), result.c.finished_at < _before(now, kept.results_seconds)
    )
    # A worker that is just replacing some holds them, in an order of its own: they are old no more.
    free = dialect.skip_locked(connection, old, of=result).subquery("free")
    gone = await connection.execute(delete(result).where(tuple_(*result.primary_key).in_(select(free))))
    return gone.rowcount


async def purge_deleted(connection: AsyncConnection, message_ids: Sequence[int], kept: Retention, now: float) -> int:
    """Delete messages that went from their server long ago, with all that hangs on them; returns how many.

    Its work goes first, then its results; where a worker is just recording one the message is left for the next time.
    The rest goes by its foreign key. A message that comes back at this moment is either revived first, and stays, or
    is stored anew: whoever stores holds the account.
    """
    await hold_accounts_of(connection, message_ids)
    there_again = exists().where(place.c.message_id == message.c.id, place.c.expunged_at.is_(None))
    still = and_(message.c.deleted_at < _before(now, kept.deleted_seconds), ~there_again)
    locked = await hold_free_work(connection, await _lock_free(connection, message_ids, still))
    if locked:
        for table in (work, result):
            await connection.execute(delete(table).where(table.c.message_id.in_(locked)))
        await connection.execute(delete(message).where(message.c.id.in_(locked)))
    return len(locked)


_RAW_THERE = message.c.raw_expired_at.is_(None)
_HAS_WORK = exists().where(work.c.message_id == message.c.id)
# Before any mail: what is kept for good is never older.
_NEVER = 0.0


async def _lock_free(connection: AsyncConnection, message_ids: Sequence[int], still: ColumnElement[bool]) -> list[int]:
    """Those that are still to go. One that somebody works on is passed over: it is not waited for, and comes again."""
    wanted = select(message.c.id).where(message.c.id.in_(message_ids), still)
    return list((await connection.execute(dialect.skip_locked(connection, wanted, of=message))).scalars())


async def _without_work(connection: AsyncConnection, locked: Sequence[int]) -> list[int]:
    """Those of these messages, which are locked, that have no work.

    Work is queued by who locks its message and changes nothing in it. Who did so while that lock was on its way here is
    seen by a statement after it alone: PostgreSQL looks again only at rows that were changed.
    """
    if not locked:
        return []
    free = select(message.c.id).where(message.c.id.in_(locked), ~_HAS_WORK)
    return list((await connection.execute(free)).scalars())


def _all(kept: Retention) -> tuple[float | None, float | None, float | None]:
    return kept.raw_seconds, kept.results_seconds, kept.deleted_seconds


def _before(now: float, seconds: float | None) -> float:
    return _NEVER if seconds is None else now - seconds
