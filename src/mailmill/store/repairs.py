"""What `verify --repair` writes and a sync pass never does. Each within the caller's transaction, with its events."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store import dialect, event_log
from mailmill.store.mailboxes import MailboxRow
from mailmill.store.message_places import Origin, uid_conditions, updated
from mailmill.store.row_locks import hold_account, hold_messages
from mailmill.store.tables import account, message, parked, place
from mailmill.uid_set import UidSet


async def retry_parked(
    connection: AsyncConnection, mailbox_id: int, uid_validity: int, uids: UidSet, now: float
) -> None:
    """Messages that could not be fetched are due now."""
    listed = list(uids)
    for some in dialect.chunks(listed):
        await connection.execute(
            update(parked)
            .where(parked.c.mailbox_id == mailbox_id, parked.c.uid_validity == uid_validity, parked.c.uid.in_(some))
            .values(retry_at=now)
        )


async def revive_messages(connection: AsyncConnection, row: MailboxRow, uids: UidSet, now: float) -> None:
    """Messages that stand at ``uids`` do not count as deleted: messageUpdated ``{"added": [path]}`` for each."""
    await hold_account(connection, row.account_id)
    tenant_id = await connection.scalar(select(account.c.tenant_id).where(account.c.id == row.account_id))
    origin = Origin(str(tenant_id), row.account_id, row.path, row.special_use)
    found: dict[int, int] = {}
    for condition in uid_conditions(uids):
        wanted = (
            select(place.c.uid, message.c.id)
            .join(message, message.c.id == place.c.message_id)
            .where(
                place.c.mailbox_id == row.id,
                place.c.uid_validity == row.cursor.uid_validity,
                place.c.expunged_at.is_(None),
                message.c.deleted_at.is_not(None),
                condition,
            )
        )
        found |= {each.id: each.uid for each in await connection.execute(wanted)}
    await hold_messages(connection, found)
    for some in dialect.chunks(sorted(found)):
        await connection.execute(update(message).where(message.c.id.in_(some)).values(deleted_at=None))
    await event_log.append(
        connection,
        [
            updated(origin, message_id, {"added": [row.path], "uid": uid}, now, historical=False)
            for message_id, uid in found.items()
        ],
    )
