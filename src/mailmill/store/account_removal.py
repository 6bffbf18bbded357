"""Deleting an account with all that is its own, in pieces: neither a crash nor a million messages are in its way.

::

    mark (one transaction)          the account is gone for everybody: renamed, unlisted, accountDeleted is told
      └─▶ remove_messages …         its messages, with places, work and results
            └─▶ remove_requests …   its requests
                  └─▶ remove_senders …  whom it had mail from
                        └─▶ remove_events … its events and their deliveries
                              └─▶ remove_rest  its mailboxes and its row

Laws:

* ``removing_at`` stands on the row until all else is gone, and each piece is deleted by what it is, not by where the
  last piece ended. So after a crash the same calls go on, and two nodes that do it at once do not harm each other.
* Messages go before events: once its messages are gone no claim on their work finishes, so nothing is told any more.
* Blobs are shared, and not touched here: what nobody needs now is `blob_references`'s to find.
* accountDeleted stands in the log with the mark, refers to no account (there is none) and says the name itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import ConflictError, NotFoundError
from mailmill.model import AccountState, EventName
from mailmill.store import dialect, event_log, marks, sequencer
from mailmill.store.dialect import storable
from mailmill.store.event_log import DEFAULT_TENANT, NewEvent
from mailmill.store.row_locks import hold_account, hold_free_work
from mailmill.store.tables import (
    account,
    delivery,
    event,
    mailbox,
    message,
    parked,
    place,
    request,
    result,
    sender,
    work,
)

PIECE: Final = 500
"""Rows of the leading table that one transaction deletes."""

EVENT_WINDOW: Final = 5000
"""Ids of the event log that one transaction looks through."""


@dataclass(frozen=True, slots=True)
class Removal:
    """An account that is being deleted. ``name`` is what it was called, ``since`` epoch seconds."""

    account_id: int
    name: str
    since: float


async def mark(connection: AsyncConnection, name: str, now: float, *, tenant_id: str = DEFAULT_TENANT) -> Removal:
    """Take the account out of the world; its rows follow. Its name is free from now on.

    Raises NotFoundError, and ConflictError where it is not paused: a node that has it configured would fill it again.
    """
    wanted = select(account).where(
        account.c.tenant_id == tenant_id, account.c.name == storable(name), account.c.removing_at.is_(None)
    )
    row = (await connection.execute(dialect.lock(connection, wanted, of=account))).first()
    if row is None:
        raise NotFoundError(f"there is no account {name!r}", hint="`mailmill account list` shows those there are")
    if not row.paused:
        raise ConflictError(
            f"account {name!r} is in use",
            hint=f"take [accounts.{name}] out of the configuration and restart the service; then delete it",
        )
    await connection.execute(
        update(account)
        .where(account.c.id == row.id)
        .values(
            name=row.name + _suffix(row.id),
            removing_at=now,
            state=str(AccountState.PAUSED),
            state_reason="it is being deleted",
            state_changed_at=now,
        )
    )
    data = {"account": row.name, "email": row.email}
    await event_log.append(connection, [NewEvent(row.tenant_id, EventName.ACCOUNT_DELETED, now, data=data)])
    return Removal(row.id, row.name, now)


async def removals(connection: AsyncConnection) -> list[Removal]:
    """The accounts that are being deleted, the first marked first."""
    wanted = (
        select(account.c.id, account.c.name, account.c.removing_at)
        .where(account.c.removing_at.is_not(None))
        .order_by(account.c.removing_at, account.c.id)
    )
    return [
        Removal(row.id, row.name.removesuffix(_suffix(row.id)), row.removing_at)
        for row in await connection.execute(wanted)
    ]


async def messages_left(connection: AsyncConnection, account_id: int) -> int:
    count: int = (
        await connection.execute(select(func.count()).select_from(message).where(message.c.account_id == account_id))
    ).scalar_one()
    return count


async def remove_messages(connection: AsyncConnection, account_id: int, limit: int = PIECE) -> int:
    """Up to ``limit`` messages with all that hangs on them; returns how many, 0 when none is left that others do not
    hold."""
    # A node that still keeps it in sync holds it while it writes.
    await hold_account(connection, account_id)
    some = select(message.c.id).where(message.c.account_id == account_id).order_by(message.c.id).limit(limit)
    locked = (await connection.execute(dialect.skip_locked(connection, some, of=message))).scalars().all()
    ids = []
    for rows in dialect.chunks(locked):
        ids += await hold_free_work(connection, rows)
    for rows in dialect.chunks(ids):
        for table in (work, result, place):
            await connection.execute(delete(table).where(table.c.message_id.in_(rows)))
        await connection.execute(delete(message).where(message.c.id.in_(rows)))
    return len(ids)


async def remove_requests(connection: AsyncConnection, account_id: int, limit: int = PIECE) -> int:
    """Up to ``limit`` requests; returns how many, 0 when none is left that others do not hold."""
    some = select(request.c.id).where(request.c.account_id == account_id).order_by(request.c.id).limit(limit)
    ids = (await connection.execute(dialect.skip_locked(connection, some, of=request))).scalars().all()
    for rows in dialect.chunks(ids):
        await connection.execute(delete(request).where(request.c.id.in_(rows)))
    return len(ids)


async def remove_senders(connection: AsyncConnection, account_id: int, limit: int = PIECE) -> int:
    """About ``limit`` rows of its sender history; returns how many, 0 when none is left."""
    await hold_account(connection, account_id)
    own = select(sender.c.address_key).where(sender.c.account_id == account_id).order_by(sender.c.address_key)
    last: str | None = await connection.scalar(own.offset(limit - 1).limit(1))
    these = delete(sender).where(sender.c.account_id == account_id)
    gone = await connection.execute(these if last is None else these.where(sender.c.address_key <= last))
    return gone.rowcount


async def remove_events(
    connection: AsyncConnection, account_id: int, after: int = 0, window: int = EVENT_WINDOW
) -> int | None:
    """The account's events among the next ``window`` ids above ``after``, and their deliveries.

    They may be the newest of the log. Where it came to is kept in `marks.TAKEN`, or positions that readers have passed
    would be given once more.

    Returns what to call it with next; None at the end of the log.
    """
    first: int | None = await connection.scalar(select(func.min(event.c.id)).where(event.c.id > after))
    if first is None:
        return None
    through = first + window - 1
    # Before deliveries and events, as retention does: the two delete in orders of their own, and one after the other.
    await marks.lock(connection, marks.REMOVED)
    taken = await marks.lock(connection, marks.TAKEN)
    wanted = select(event.c.id).where(event.c.id.between(first, through), event.c.account_id == account_id)
    ids = (await connection.execute(wanted)).scalars().all()
    await _remove_deliveries(connection, ids)
    await sequencer.hold_off(connection)
    at = event_log.position_column(connection)
    highest = 0
    for rows in dialect.chunks(ids):
        # As the rows are when they go: the sequencer may have numbered them after they were looked up.
        gone = await connection.execute(delete(event).where(event.c.id.in_(rows)).returning(at))
        highest = max([highest, *(position for position in gone.scalars() if position is not None)])
    if highest > taken:
        await marks.move(connection, marks.TAKEN, highest)
    return through


async def _remove_deliveries(connection: AsyncConnection, event_ids: Sequence[int]) -> None:
    ids: list[int] = []
    for rows in dialect.chunks(event_ids):
        ids += await connection.scalars(select(delivery.c.id).where(delivery.c.event_id.in_(rows)))
    ids.sort()
    # Upwards, as who closes them: an account may be deleted while some are on their way.
    for rows in dialect.chunks(ids):
        upwards = select(delivery.c.id).where(delivery.c.id.in_(rows)).order_by(delivery.c.id)
        await connection.execute(dialect.lock(connection, upwards, of=delivery))
    for rows in dialect.chunks(ids):
        await connection.execute(delete(delivery).where(delivery.c.id.in_(rows)))


async def remove_rest(connection: AsyncConnection, account_id: int) -> bool:
    """The mailboxes and the row itself. False where something is left of what goes before them."""
    await hold_account(connection, account_id)
    if await messages_left(connection, account_id):
        return False
    own = select(mailbox.c.id).where(mailbox.c.account_id == account_id)
    await connection.execute(delete(parked).where(parked.c.mailbox_id.in_(own)))
    await connection.execute(delete(mailbox).where(mailbox.c.account_id == account_id))
    await connection.execute(delete(account).where(account.c.id == account_id, account.c.removing_at.is_not(None)))
    return True


def _suffix(account_id: int) -> str:
    """What no configured name can hold, so that the name itself is free."""
    return f" (removing {account_id})"
