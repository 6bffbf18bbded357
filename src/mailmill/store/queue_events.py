"""The events that the queue raises about messages: whose the message is and where it lies are looked up here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select

from mailmill.model import EventName
from mailmill.store import dialect
from mailmill.store.event_log import NewEvent
from mailmill.store.given_rows import GivenRows
from mailmill.store.queue_rows import BACKLOG, MAX_ERROR_CHARACTERS
from mailmill.store.statement import Statement
from mailmill.store.tables import account, mailbox, message, place

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.queue_rows import Claim


class Scene(NamedTuple):
    """Whose a message is, and a mailbox it is in now (None where it is in none)."""

    tenant_id: str
    account_id: int
    historical: bool
    path: str | None
    special_use: str | None


def _scenes(connection: AsyncConnection) -> Select[Any]:
    given = select(_MESSAGES.table(connection).c.id)
    living = (
        select(place.c.message_id, func.min(place.c.mailbox_id).label("mailbox_id"))
        .where(place.c.message_id.in_(given), place.c.expunged_at.is_(None))
        .group_by(place.c.message_id)
        .subquery("living")
    )
    return (
        select(
            message.c.id,
            account.c.tenant_id,
            message.c.account_id,
            message.c.historical,
            mailbox.c.path,
            mailbox.c.special_use,
        )
        .join(account, account.c.id == message.c.account_id)
        .outerjoin(living, living.c.message_id == message.c.id)
        .outerjoin(mailbox, mailbox.c.id == living.c.mailbox_id)
        .where(message.c.id.in_(given))
    )


_MESSAGES: Final = GivenRows("messages", message.c.id)
_SCENES: Final = Statement(_scenes)


async def scenes(connection: AsyncConnection, message_ids: Iterable[int]) -> dict[int, Scene]:
    """Whose the messages are, and a mailbox each is in now."""
    found: dict[int, Scene] = {}
    for some in dialect.chunks(sorted(message_ids)):
        rows = await _SCENES.rows(connection, **_MESSAGES.parameters(connection, [(each,) for each in some]))
        for message_id, tenant_id, account_id, historical, path, special_use in rows:
            found[message_id] = Scene(tenant_id, account_id, bool(historical), path, special_use)
    return found


def is_past(claim: Claim) -> bool:
    """Whether what comes of it is history rather than news: mail from before its account was added, and mail that is
    processed again. Nobody is woken for it; who follows the event log sees it."""
    return claim.priority >= BACKLOG


def about(
    scenes: dict[int, Scene],
    message_id: int,
    name: EventName,
    now: float,
    data: dict[str, Any],
    *,
    past: bool = False,
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
        historical=scene.historical or past,
        data=data,
    )


def processed(
    scenes: dict[int, Scene], message_ids: Iterable[int], now: float, *, past: bool = False
) -> list[NewEvent]:
    events = (about(scenes, each, EventName.MESSAGE_PROCESSED, now, {}, past=past) for each in message_ids)
    return [event for event in events if event is not None]


def failed(scenes: dict[int, Scene], of: Claim, error: str, now: float) -> NewEvent | None:
    data = {"processor": of.processor, "version": of.version, "error": dialect.storable(error[:MAX_ERROR_CHARACTERS])}
    return about(scenes, of.message_id, EventName.MESSAGE_FAILED, now, data, past=is_past(of))
