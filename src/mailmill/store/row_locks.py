"""Locks that keep transactions on PostgreSQL from writing against each other. On SQLite the one writer is the lock.

Laws, so that no transactions wait for each other in a circle (``docs/decisions/one-lock-order.md``):

* Who waits for rows of several tables waits in the order of `ORDER`, and within a table upwards: by key, accounts by
  name. What a transaction has locked it may write at any later time.
* `OF_AN_ACCOUNT`: rows of these are written by who holds their account, and by nobody else. So nobody waits for one.
* `ONE_OWNER`: a process writes the row that says it lives, and no other. Who forgets the dead passes over what is held.
* Who cleans up behind others (takes back, gives up, expires, deletes for good) passes over what they hold
  (`dialect.skip_locked`), and comes again: who waits for nobody is in no circle. Many workers hold work of messages
  that they have not locked, in an order of their own.

One exception, told in ``queue_operation``: work that is queued in the very moment in which the only other row of its
message is finished, alone or among others. Two that wait for each other there are parted by PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Table, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store import dialect
from mailmill.store.tables import (
    account,
    blob,
    delivery,
    errand,
    event,
    lane,
    mailbox,
    message,
    node,
    parked,
    place,
    processor,
    reprocess,
    request,
    result,
    sender,
    setting,
    shard,
    work,
    worker,
)

ORDER: Final[tuple[Table, ...]] = (
    setting,
    reprocess,
    processor,
    shard,
    account,
    blob,
    message,
    work,
    lane,
    result,
    request,
    errand,
    delivery,
    event,
)
OF_AN_ACCOUNT: Final[tuple[Table, ...]] = (mailbox, place, parked, sender)
ONE_OWNER: Final[tuple[Table, ...]] = (node, worker)

_ACCOUNT = select(account.c.id).where(account.c.id == bindparam("account_id"))


async def hold_account(connection: AsyncConnection, account_id: int) -> None:
    """Be the only one who writes of this account's mailboxes and mail, until the transaction ends.

    To be called before what is decided about is read: statements after it see all that others wrote. Two syncs of one
    account do meet: its mailboxes are read side by side, and for a moment after a takeover two nodes are at it.
    """
    if dialect.is_postgresql(connection):
        await connection.execute(dialect.lock(connection, _ACCOUNT, of=account), {"account_id": account_id})


async def hold_accounts_of(connection: AsyncConnection, message_ids: Sequence[int]) -> None:
    """`hold_account` for those that these messages belong to, of which there are at most `dialect.MAX_ROWS`."""
    if dialect.is_postgresql(connection):
        theirs = select(message.c.account_id).where(message.c.id.in_(message_ids))
        wanted = select(account.c.id).where(account.c.id.in_(theirs)).order_by(account.c.name)
        await connection.execute(dialect.lock(connection, wanted, of=account))


async def hold_messages(connection: AsyncConnection, message_ids: Iterable[int]) -> None:
    """To be called before several messages are updated: workers that finish update them too."""
    if not dialect.is_postgresql(connection):
        return
    for some in dialect.chunks(sorted(set(message_ids))):
        wanted = select(message.c.id).where(message.c.id.in_(some)).order_by(message.c.id)
        await connection.execute(dialect.lock(connection, wanted, of=message))


async def hold_free_work(connection: AsyncConnection, message_ids: Sequence[int]) -> list[int]:
    """Lock the work of these messages, which are locked; those of them of which nobody else holds a row.

    At most `dialect.MAX_ROWS`, whose order is kept.
    """
    if not message_ids or not dialect.is_postgresql(connection):
        return list(message_ids)
    theirs = select(work.c.message_id, work.c.processor).where(work.c.message_id.in_(message_ids))
    # In this order: what went before the second look is over and done with.
    free = {tuple(row) for row in await connection.execute(dialect.skip_locked(connection, theirs, of=work))}
    held = {row.message_id for row in await connection.execute(theirs) if tuple(row) not in free}
    return [each for each in message_ids if each not in held]
