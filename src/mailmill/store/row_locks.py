"""Locks that keep transactions on PostgreSQL from writing against each other. On SQLite the one writer is the lock.

Law, against two transactions that wait for each other: who locks rows of several tables does it in the order shard,
account, message; who locks several rows of one table does it by ascending key.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store import dialect
from mailmill.store.tables import account, message

_ACCOUNT = select(account.c.id).where(account.c.id == bindparam("account_id"))


async def hold_account(connection: AsyncConnection, account_id: int) -> None:
    """Be the only one who writes of this account's mailboxes and mail, until the transaction ends.

    To be called before what is decided about is read: statements after it see all that others wrote. Two syncs of one
    account do meet: its mailboxes are read side by side, and for a moment after a takeover two nodes are at it.
    """
    if dialect.is_postgresql(connection):
        await connection.execute(dialect.lock(connection, _ACCOUNT, of=account), {"account_id": account_id})


async def hold_messages(connection: AsyncConnection, message_ids: Iterable[int]) -> None:
    """To be called before several messages are updated: workers that finish update them too."""
    if not dialect.is_postgresql(connection):
        return
    for some in dialect.chunks(sorted(set(message_ids))):
        wanted = select(message.c.id).where(message.c.id.in_(some)).order_by(message.c.id)
        await connection.execute(dialect.lock(connection, wanted, of=message))
