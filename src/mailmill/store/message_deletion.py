"""Absence is not deletion (design §4.5): a message whose last place went waits until its absence is confirmed.

A message that moves is expunged in one mailbox and appears in another, in either order and in different transactions.
So a message without a living place is an orphan first; only when a pass over all mailboxes that began after its last
place went has not found it elsewhere is it deleted. Its row, results and raw bytes stay.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, bindparam, delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.model import EventName
from mailmill.store import event_log
from mailmill.store.dialect import MAX_ROWS
from mailmill.store.event_log import NewEvent
from mailmill.store.row_locks import hold_account, hold_messages
from mailmill.store.tables import account, mailbox, message, place


async def orphan_count(connection: AsyncConnection, account_id: int) -> int:
    """How many messages of the account have no living place and are not deleted."""
    count: int | None = await connection.scalar(_ORPHAN_COUNT, {"account_id": account_id})
    return count or 0


async def confirm_deleted(connection: AsyncConnection, account_id: int, orphaned_before: float, now: float) -> int:
    """Delete the orphans whose newest tombstone is from before ``orphaned_before``; returns how many.

    To be called when every mailbox of the account was synced by a pass that began at ``orphaned_before``. Raises one
    messageDeleted for each, with the path it was last seen at. Tombstones from before then have done their work and go.
    """
    await hold_account(connection, account_id)
    orphans = _ORPHANS.subquery()
    wanted = (
        select(orphans.c.message_id, account.c.tenant_id, mailbox.c.path, mailbox.c.special_use)
        .join(place, (place.c.message_id == orphans.c.message_id) & (place.c.expunged_at == orphans.c.orphaned_at))
        .join(mailbox, mailbox.c.id == place.c.mailbox_id)
        .join(account, account.c.id == mailbox.c.account_id)
        .where(orphans.c.orphaned_at < orphaned_before)
        .order_by(orphans.c.message_id, mailbox.c.id)
    )
    # A message may have lost several places at the same moment: one event, with the first of them.
    rows = (await connection.execute(wanted, {"account_id": account_id})).all()
    gone = {row.message_id: row for row in reversed(rows)}
    ids = sorted(gone)
    await hold_messages(connection, ids)
    for start in range(0, len(ids), MAX_ROWS):
        some = ids[start : start + MAX_ROWS]
        await connection.execute(update(message).where(message.c.id.in_(some)).values(deleted_at=now))
    await event_log.append(
        connection,
        [
            NewEvent(
                tenant_id=gone[message_id].tenant_id,
                event=EventName.MESSAGE_DELETED,
                created_at=now,
                account_id=account_id,
                path=gone[message_id].path,
                special_use=gone[message_id].special_use,
                message_id=message_id,
            )
            for message_id in ids
        ],
    )
    own_mailboxes = select(mailbox.c.id).where(mailbox.c.account_id == account_id)
    await connection.execute(
        delete(place).where(place.c.expunged_at < orphaned_before, place.c.mailbox_id.in_(own_mailboxes))
    )
    return len(ids)


def _orphans() -> Select[Any]:
    living = place.alias("living")
    return (
        select(place.c.message_id, func.max(place.c.expunged_at).label("orphaned_at"))
        .join(message, message.c.id == place.c.message_id)
        .where(
            place.c.expunged_at.is_not(None),
            message.c.account_id == bindparam("account_id"),
            message.c.deleted_at.is_(None),
            ~exists().where(living.c.message_id == message.c.id, living.c.expunged_at.is_(None)),
        )
        .group_by(place.c.message_id)
    )


# Made once: to build them costs more than to run them.
_ORPHANS = _orphans()
_ORPHAN_COUNT = select(func.count()).select_from(_ORPHANS.subquery())
