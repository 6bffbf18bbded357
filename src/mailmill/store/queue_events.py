"""The events that the queue raises about messages: whose the message is and where it lies are looked up here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select

from mailmill.store import dialect
from mailmill.store.event_log import NewEvent
from mailmill.store.tables import account, mailbox, message, place

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.model import EventName


class Scene(NamedTuple):
    """Whose a message is, and a mailbox it is in now (None where it is in none)."""

    tenant_id: str
    account_id: int
    historical: bool
    path: str | None
    special_use: str | None


async def scenes(connection: AsyncConnection, message_ids: Iterable[int]) -> dict[int, Scene]:
    """Whose the messages are, and a mailbox each is in now."""
    living = (
        select(func.min(place.c.mailbox_id))
        .where(place.c.message_id == message.c.id, place.c.expunged_at.is_(None))
        .scalar_subquery()
    )
    found: dict[int, Scene] = {}
    for some in dialect.chunks(sorted(message_ids)):
        rows = await connection.execute(
            select(
                message.c.id,
                account.c.tenant_id,
                message.c.account_id,
                message.c.historical,
                mailbox.c.path,
                mailbox.c.special_use,
            )
            .join(account, account.c.id == message.c.account_id)
            .outerjoin(mailbox, mailbox.c.id == living)
            .where(message.c.id.in_(some))
        )
        found.update((row[0], Scene(*row[1:])) for row in rows)
    return found


def about(
    scenes: dict[int, Scene], message_id: int, name: EventName, now: float, data: dict[str, Any]
) -> NewEvent | None:
    scene = scenes.get(message_id)
    if scene is None:
        return None
    return NewEvent(
        tenant_id=scene.tenant_id,
        event=name,
        created_at=now,
        account_id=scene.account_id,
        path=scene.path,
        special_use=scene.special_use,
        message_id=message_id,
        historical=scene.historical,
        data=data,
    )
