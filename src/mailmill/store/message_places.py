"""Places: where messages are. A place is ``(mailbox, uid_validity, uid)`` with flags; expunged, it is a tombstone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, or_, select, update
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


def same_flags(one: str, other: str) -> bool:
    """Whether two texts of flags mean the same. Keywords do not differ by case (RFC 5788 §3), and some servers spell
    the same one now so, now so.
    """
    return one == other or sorted(one.lower().split(" ")) == sorted(other.lower().split(" "))


def flags_of_text(text: str) -> tuple[str, ...]:
    return tuple(text.split(" ")) if text else ()


def _living_ranges() -> Select[Any]:
    """Runs of UIDs as (lowest, highest), put together by the database: 200,000 rows read one by one would hold up the
    loop. In a run, UID less row number is the same throughout.
    """
    numbered = (
        select(place.c.uid, (place.c.uid - func.row_number().over(order_by=place.c.uid)).label("run"))
        .where(
            place.c.mailbox_id == bindparam("mailbox_id"),
            place.c.uid_validity == bindparam("uid_validity"),
            place.c.expunged_at.is_(None),
        )
        .subquery()
    )
    return select(func.min(numbered.c.uid), func.max(numbered.c.uid)).group_by(numbered.c.run)


_LIVING_RANGES = _living_ranges()


async def living_uids(connection: AsyncConnection, mailbox_id: int, uid_validity: int) -> UidSet:
    """The UIDs of a mailbox that we hold and believe to be there."""
    there = {"mailbox_id": mailbox_id, "uid_validity": uid_validity}
    return UidSet.from_ranges((low, high) for low, high in await connection.execute(_LIVING_RANGES, there))


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


@dataclass(frozen=True, slots=True)
class HeldIdentity:
    """What tells the message at a place from others, short of its bytes. ``internal_date``: seconds since the epoch."""

    email_id: str | None
    size_bytes: int
    internal_date: float


async def identities_of(
    connection: AsyncConnection, mailbox_id: int, uid_validity: int, uids: UidSet
) -> dict[Uid, HeldIdentity]:
    """UID → identity, of living places."""
    living = and_(place.c.mailbox_id == mailbox_id, place.c.uid_validity == uid_validity, place.c.expunged_at.is_(None))
    wanted = select(place.c.uid, message.c.email_id, message.c.size_bytes, message.c.internal_date).join(
        message, message.c.id == place.c.message_id
    )
    found: dict[Uid, HeldIdentity] = {}
    for part in uid_conditions(uids):
        for uid, email_id, size_bytes, internal_date in await connection.execute(wanted.where(and_(living, part))):
            found[Uid(uid)] = HeldIdentity(email_id, size_bytes, internal_date)
    return found


async def sizes_of(connection: AsyncConnection, message_ids: Collection[int]) -> dict[int, int]:
    """Message id → size of its raw bytes."""
    wanted = sorted(set(message_ids))
    found: dict[int, int] = {}
    for start in range(0, len(wanted), MAX_ROWS):
        some = message.c.id.in_(wanted[start : start + MAX_ROWS])
        rows = await connection.execute(select(message.c.id, message.c.size_bytes).where(some))
        found.update((message_id, size_bytes) for message_id, size_bytes in rows)
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
