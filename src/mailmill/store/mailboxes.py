"""Mailboxes of an account, each with its cursor: what the server said before the last fetch that was covered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Row, Select, and_, delete, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import NotFoundError, StoreError
from mailmill.model import EventName, MailboxRef, Uid
from mailmill.store import dialect, event_log
from mailmill.store.dialect import storable
from mailmill.store.event_log import NewEvent
from mailmill.store.message_places import Origin, tombstone
from mailmill.store.row_locks import hold_account
from mailmill.store.tables import account, mailbox, parked, place
from mailmill.uid_set import UidSet

_NOTHING = UidSet()


class StaleBatchError(StoreError):
    """The mailbox is no longer what the batch was planned on: another generation, or deleted. Plan it anew."""

    code = "staleBatch"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a mailbox is covered (design §4).

    All values are the server's as of before the fetch. ``uid_validity`` 0: never synced. ``uncovered`` holds the UIDs
    below ``uid_next`` still to be fetched; ``messages`` is our own count of those and of the living places, -1 where
    that is not known or what the server said last did not add up; UIDs below ``historical_below`` were there before the
    account was added; ``flags_swept_at`` is when all flags were last compared (seconds since the epoch).
    """

    uid_validity: int = 0
    uid_next: int = 0
    messages: int = 0
    highest_mod_seq: int | None = None
    uncovered: UidSet = field(default=_NOTHING)
    historical_below: int = 0
    flags_swept_at: float = 0.0


@dataclass(frozen=True, slots=True)
class MailboxRow:
    """A mailbox as stored. ``has_old_places``: messages of an earlier generation still stand in it."""

    id: int
    account_id: int
    path: str
    delimiter: str | None = None
    special_use: str | None = None
    selectable: bool = True
    cursor: Cursor = Cursor()
    synced_at: float | None = None
    deleted_at: float | None = None
    has_old_places: bool = False

    @property
    def ref(self) -> MailboxRef:
        return MailboxRef(self.path, self.delimiter, self.special_use, self.selectable)


async def list_mailboxes(connection: AsyncConnection, account_id: int) -> list[MailboxRow]:
    """The living mailboxes of an account, by path."""
    wanted = _rows().where(mailbox.c.account_id == account_id, mailbox.c.deleted_at.is_(None)).order_by(mailbox.c.path)
    return [_mailbox_row(row) for row in await connection.execute(wanted)]


async def get_mailbox(connection: AsyncConnection, account_id: int, path: str) -> MailboxRow:
    """The living mailbox at ``path``. Raises NotFoundError."""
    wanted = _rows().where(
        mailbox.c.account_id == account_id, mailbox.c.path == storable(path), mailbox.c.deleted_at.is_(None)
    )
    row = (await connection.execute(wanted)).first()
    if row is None:
        raise NotFoundError(f"there is no mailbox {path!r}", hint="`mailmill mailbox list` shows those there are")
    return _mailbox_row(row)


async def apply_mailbox_list(
    connection: AsyncConnection, account_id: int, listed: Sequence[MailboxRef], now: float
) -> list[MailboxRow]:
    """Make the account's mailboxes those that the server ``listed``; returns the living ones by path.

    New or reappearing → mailboxNew. Missing → deleted_at set, its places tombstoned, mailboxDeleted. One that cannot be
    selected any more holds nothing: a name that was kept for what is below it (RFC 9051 §6.3.5). An empty list is
    not believed: an account has at least an INBOX (RFC 9051 §5.1), so it only means that the server is in trouble.
    """
    await hold_account(connection, account_id)
    tenant_id = await _tenant_of(connection, account_id)
    stored = {
        row.path: row for row in await connection.execute(select(mailbox).where(mailbox.c.account_id == account_id))
    }
    events: list[NewEvent] = []

    def tell(name: EventName, path: str, special_use: str | None) -> None:
        events.append(NewEvent(tenant_id, name, now, account_id=account_id, path=path, special_use=special_use))

    by_path = {storable(ref.path): ref for ref in listed}
    for path, ref in by_path.items():
        row = stored.get(path)
        # Four characters are what the column takes; a delimiter is one (RFC 9051 §7.3.1).
        shown = {
            "delimiter": storable(ref.delimiter)[:4] if ref.delimiter else None,
            "special_use": storable(ref.special_use)[:40] if ref.special_use else None,
            "selectable": ref.selectable,
        }
        if row is None:
            await connection.execute(insert(mailbox).values(account_id=account_id, path=path, **shown))
        elif row.deleted_at is not None or any(getattr(row, name) != value for name, value in shown.items()):
            await connection.execute(update(mailbox).where(mailbox.c.id == row.id).values(deleted_at=None, **shown))
        if row is None or row.deleted_at is not None:
            tell(EventName.MAILBOX_NEW, path, ref.special_use)
        elif row.selectable and not ref.selectable:
            events += await _emptied(connection, row, tenant_id, now)
    if by_path:
        for path, row in stored.items():
            if path not in by_path and row.deleted_at is None:
                await connection.execute(update(mailbox).where(mailbox.c.id == row.id).values(deleted_at=now))
                events += await _emptied(connection, row, tenant_id, now)
                tell(EventName.MAILBOX_DELETED, path, row.special_use)
    await event_log.append(connection, events)
    return await list_mailboxes(connection, account_id)


async def _emptied(connection: AsyncConnection, row: Row[Any], tenant_id: str, now: float) -> list[NewEvent]:
    """Tombstone all of a mailbox that is gone. Its cursor goes too: should it reappear it is a mailbox never seen,
    whatever its UIDVALIDITY.
    """
    await connection.execute(update(mailbox).where(mailbox.c.id == row.id).values(**cursor_values(Cursor())))
    await connection.execute(delete(parked).where(parked.c.mailbox_id == row.id))
    return await tombstone(connection, _origin(row, tenant_id), place.c.mailbox_id == row.id, now)


async def reset_mailbox(connection: AsyncConnection, row: MailboxRow, uid_validity: int, now: float) -> MailboxRow:
    """Begin a new generation: cursor zeroed, mailboxReset raised. Returns the row with its new cursor.

    The places of the old generation stay until `expunge_old_generation`, so that messages which reappear under new UIDs
    never look deleted in between. Nothing happens where the mailbox is in that generation already.
    """
    await hold_account(connection, row.account_id)
    stored = (await connection.execute(_rows().where(mailbox.c.id == row.id, mailbox.c.deleted_at.is_(None)))).first()
    if stored is None:
        raise StaleBatchError("the mailbox was deleted meanwhile", mailbox=row.path)
    current = _mailbox_row(stored)
    if current.cursor.uid_validity == uid_validity:
        return current
    cursor = Cursor(uid_validity=uid_validity)
    await connection.execute(update(mailbox).where(mailbox.c.id == row.id).values(**cursor_values(cursor)))
    await connection.execute(delete(parked).where(parked.c.mailbox_id == row.id, parked.c.uid_validity != uid_validity))
    if current.cursor.uid_validity != 0:
        reset = NewEvent(
            await _tenant_of(connection, row.account_id),
            EventName.MAILBOX_RESET,
            now,
            account_id=row.account_id,
            path=current.path,
            special_use=current.special_use,
            data={"uidValidity": uid_validity, "previousUidValidity": current.cursor.uid_validity},
        )
        await event_log.append(connection, [reset])
    return await get_mailbox(connection, row.account_id, current.path)


async def expunge_old_generation(connection: AsyncConnection, row: MailboxRow, now: float) -> int:
    """Tombstone what still stands in generations other than ``row.cursor.uid_validity``; returns how many places.

    To be called when the new generation is covered. Raises StaleBatchError where the mailbox has moved on.
    """
    await hold_account(connection, row.account_id)
    uid_validity: int | None = await connection.scalar(
        select(mailbox.c.uid_validity).where(mailbox.c.id == row.id, mailbox.c.deleted_at.is_(None))
    )
    if uid_validity != row.cursor.uid_validity:
        raise StaleBatchError("the mailbox is in another generation by now", mailbox=row.path)
    tenant_id = await _tenant_of(connection, row.account_id)
    events = await tombstone(
        connection,
        _origin(row, tenant_id),
        and_(place.c.mailbox_id == row.id, place.c.uid_validity != uid_validity),
        now,
    )
    await event_log.append(connection, events)
    return len(events)


async def keep_history(connection: AsyncConnection, account_id: int) -> None:
    """Note of mailboxes that are there but were never read that what they hold is from before: the account's first sync
    is over, and they could not be part of it. (``historical_below`` -1 until their first look.)
    """
    await hold_account(connection, account_id)
    await connection.execute(
        update(mailbox)
        .where(mailbox.c.account_id == account_id, mailbox.c.uid_validity == 0, mailbox.c.deleted_at.is_(None))
        .values(historical_below=-1)
    )


def without_old_places(row: MailboxRow) -> MailboxRow:
    """``row`` as it is after `expunge_old_generation`."""
    return replace(row, has_old_places=False)


async def park(connection: AsyncConnection, row: MailboxRow, entries: Sequence[tuple[Uid, str, float]]) -> None:
    """Note messages that could not be fetched: ``(uid, reason, retry_at)``. Parking one again counts an attempt."""
    if not entries:
        return
    await hold_account(connection, row.account_id)
    adding = dialect.insert(connection, parked)
    await connection.execute(
        adding.on_conflict_do_update(
            index_elements=["mailbox_id", "uid_validity", "uid"],
            set_={
                "reason": adding.excluded.reason,
                "retry_at": adding.excluded.retry_at,
                "attempts": parked.c.attempts + 1,
            },
        ),
        [
            {
                "mailbox_id": row.id,
                "uid_validity": row.cursor.uid_validity,
                "uid": uid,
                "reason": storable(reason)[:1000],
                "attempts": 1,
                "retry_at": retry_at,
            }
            for uid, reason, retry_at in entries
        ],
    )


async def parked_uids(connection: AsyncConnection, mailbox_id: int, uid_validity: int) -> Mapping[Uid, float]:
    """UID → when to try it again (seconds since the epoch)."""
    wanted = select(parked.c.uid, parked.c.retry_at).where(
        parked.c.mailbox_id == mailbox_id, parked.c.uid_validity == uid_validity
    )
    return {Uid(row.uid): row.retry_at for row in await connection.execute(wanted)}


async def list_parked(connection: AsyncConnection, account_id: int) -> dict[int, list[tuple[Uid, str, float]]]:
    """Mailbox id → messages of its present generation that could not be fetched: (UID, reason, when tried again)."""
    wanted = (
        select(parked.c.mailbox_id, parked.c.uid, parked.c.reason, parked.c.retry_at)
        .join(mailbox, and_(mailbox.c.id == parked.c.mailbox_id, mailbox.c.uid_validity == parked.c.uid_validity))
        .where(mailbox.c.account_id == account_id)
        .order_by(parked.c.uid)
    )
    found: dict[int, list[tuple[Uid, str, float]]] = {}
    for row in await connection.execute(wanted):
        found.setdefault(row.mailbox_id, []).append((Uid(row.uid), row.reason, row.retry_at))
    return found


def cursor_values(cursor: Cursor) -> dict[str, Any]:
    """``cursor`` as columns of the mailbox table."""
    return {
        "uid_validity": cursor.uid_validity,
        "uid_next": cursor.uid_next,
        "messages": cursor.messages,
        "highest_mod_seq": cursor.highest_mod_seq,
        "uncovered": str(cursor.uncovered),
        "historical_below": cursor.historical_below,
        "flags_swept_at": cursor.flags_swept_at,
    }


def cursor_of(row: Row[Any]) -> Cursor:
    """The cursor in a row that holds the mailbox table's columns.

    Where nobody can read what is still to be fetched the count is -1: the next look lists the whole mailbox.
    """
    try:
        uncovered, messages = UidSet.parse(row.uncovered), row.messages
    except ValueError:
        uncovered, messages = _NOTHING, -1
    return Cursor(
        uid_validity=row.uid_validity,
        uid_next=row.uid_next,
        messages=messages,
        highest_mod_seq=row.highest_mod_seq,
        uncovered=uncovered,
        historical_below=row.historical_below,
        flags_swept_at=row.flags_swept_at,
    )


def _rows() -> Select[Any]:
    # Two ranges, not "<>": each is a seek in the primary key, however many messages the mailbox has.
    old = [
        exists().where(
            place.c.mailbox_id == mailbox.c.id, place.c.expunged_at.is_(None), older_or_newer(mailbox.c.uid_validity)
        )
        for older_or_newer in (place.c.uid_validity.__lt__, place.c.uid_validity.__gt__)
    ]
    return select(mailbox, or_(*old).label("has_old_places"))


def _mailbox_row(row: Row[Any]) -> MailboxRow:
    return MailboxRow(
        id=row.id,
        account_id=row.account_id,
        path=row.path,
        delimiter=row.delimiter,
        special_use=row.special_use,
        selectable=row.selectable,
        cursor=cursor_of(row),
        synced_at=row.synced_at,
        deleted_at=row.deleted_at,
        has_old_places=bool(row.has_old_places),
    )


def _origin(row: Row[Any] | MailboxRow, tenant_id: str) -> Origin:
    return Origin(tenant_id, row.account_id, row.path, row.special_use)


async def _tenant_of(connection: AsyncConnection, account_id: int) -> str:
    tenant_id: str | None = await connection.scalar(select(account.c.tenant_id).where(account.c.id == account_id))
    if tenant_id is None:
        raise NotFoundError(f"there is no account with id {account_id}")
    return tenant_id
