"""Places: where messages are. A place is ``(mailbox, uid_validity, uid)`` with flags; expunged, it is a tombstone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.model import EventName, Flags, Uid
from mailmill.store.dialect import MAX_ROWS, storable
from mailmill.store.event_log import NewEvent
from mailmill.store.tables import message, place
from mailmill.uid_set import UidSet

_RANGES_PER_STATEMENT = 50


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an event about messages comes from."""

    tenant_id: str
    account_id: int
    path: str
    special_use: str | None


def flags_text(flags: Flags) -> str:
    """Flags as they are stored: sorted, one space between."""
    return storable(" ".join(sorted(flags)))


def flags_of_text(text: str) -> tuple[str, ...]:
    return tuple(text.split(" ")) if text else ()


async def living_uids(connection: AsyncConnection, mailbox_id: int, uid_validity: int) -> UidSet:
    """The UIDs of a mailbox that we hold and believe to be there."""
    wanted = select(place.c.uid).where(
        place.c.mailbox_id == mailbox_id, place.c.uid_validity == uid_validity, place.c.expunged_at.is_(None)
    )
    return UidSet((await connection.execute(wanted)).scalars())


async def flags_of(
    connection: AsyncConnection, mailbox_id: int, uid_validity: int, uids: UidSet | None = None
) -> dict[Uid, str]:
    """UID → flags as `flags_text` gives them, of living places; all of the mailbox where ``uids`` is None."""
    living = and_(place.c.mailbox_id == mailbox_id, place.c.uid_validity == uid_validity, place.c.expunged_at.is_(None))
    found: dict[Uid, str] = {}
    for some in [living] if uids is None else [and_(living, part) for part in uid_conditions(uids)]:
        for uid, flags in await connection.execute(select(place.c.uid, place.c.flags).where(some)):
            found[Uid(uid)] = flags
    return found


async def find_known(
    connection: AsyncConnection, account_id: int, email_ids: Collection[str], x_gm_msgids: Collection[str]
) -> dict[str, int]:
    """Message ids by EMAILID and by X-GM-MSGID, deleted messages included: what reappears keeps its id."""
    found: dict[str, int] = {}
    for column, values in ((message.c.email_id, email_ids), (message.c.x_gm_msgid, x_gm_msgids)):
        wanted = [storable(value) for value in values]
        for start in range(0, len(wanted), MAX_ROWS):
            some = wanted[start : start + MAX_ROWS]
            rows = await connection.execute(
                select(column, message.c.id)
                .where(message.c.account_id == account_id, column.in_(some))
                .order_by(message.c.id.desc())
            )
            found.update((identity, message_id) for identity, message_id in rows)
    return found


def uid_conditions(uids: UidSet) -> list[ColumnElement[bool]]:
    """Conditions on ``place.uid`` that together name ``uids``, each of a size one statement takes."""
    single = [low for low, high in uids.ranges if low == high]
    wide = [(low, high) for low, high in uids.ranges if low != high]
    conditions: list[ColumnElement[bool]] = [
        place.c.uid.in_(single[start : start + MAX_ROWS]) for start in range(0, len(single), MAX_ROWS)
    ]
    conditions += [
        or_(*(place.c.uid.between(low, high) for low, high in wide[start : start + _RANGES_PER_STATEMENT]))
        for start in range(0, len(wide), _RANGES_PER_STATEMENT)
    ]
    return conditions


async def tombstone(
    connection: AsyncConnection, origin: Origin, which: ColumnElement[bool], now: float
) -> list[NewEvent]:
    """Mark the living places of one mailbox that ``which`` names as expunged.

    Returns a messageUpdated ``{"removed": [path], "uid": …}`` for each, also for a message's last place: that the
    message is gone is said by messageDeleted, once confirmed.
    """
    living = and_(which, place.c.expunged_at.is_(None))
    wanted = select(place.c.uid, place.c.message_id).where(living).order_by(place.c.uid_validity, place.c.uid)
    gone = (await connection.execute(wanted)).all()
    if gone:
        await connection.execute(update(place).where(living).values(expunged_at=now))
    return [
        updated(origin, message_id, {"removed": [origin.path], "uid": uid}, now, historical=False)
        for uid, message_id in gone
    ]


def updated(
    origin: Origin, message_id: int, data: dict[str, str | int | Sequence[str]], now: float, *, historical: bool
) -> NewEvent:
    """A messageUpdated event."""
    return NewEvent(
        tenant_id=origin.tenant_id,
        event=EventName.MESSAGE_UPDATED,
        created_at=now,
        account_id=origin.account_id,
        path=origin.path,
        special_use=origin.special_use,
        message_id=message_id,
        historical=historical,
        data=data,
    )
