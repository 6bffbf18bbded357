"""Counting who wrote to an account, and whom it wrote to: rows of ``sender``, written with the message they are about.

Laws:

* A message counts once, in the transaction that makes its row; a batch that is applied again makes no row. Mail of
  older code has a row whose ``recipients`` are NULL, and `count_older` counts it as it fills them in.
* Who writes rows of an account's senders holds the account (`row_locks`), so no two transactions meet here.
* What counts as written by the account is what its own program filed: its address in From proves nothing, and a forged
  message that names a recipient must not make that one a correspondent. So mail of one's own in INBOX counts for
  nothing, and neither does anything in a junk or drafts folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, bindparam, case, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.model import INBOX, Address
from mailmill.store.bulk_insert import BulkInsert
from mailmill.store.dialect import chunks, storable
from mailmill.store.row_locks import hold_account, hold_messages
from mailmill.store.tables import account, mailbox, message, place, sender

if TYPE_CHECKING:
    from sqlalchemy.sql.base import ReadOnlyColumnCollection

MAX_RECIPIENTS: Final = 100
"""Of one message; who writes to more at once writes to nobody in particular."""

PIECE: Final = 500
"""Messages that one transaction of `count_older` counts."""

_MAX_KEY_CHARS: Final = 320
_MAX_NAME_CHARS: Final = 100
_MAX_REFERENCES: Final = 4
_UNCOUNTED_FOLDERS: Final = ("\\Junk", "\\Drafts")
_SENT: Final = "\\Sent"


class Sighting(NamedTuple):
    """That an address wrote (``sent`` is False) or was written to, at ``at`` (internal_date)."""

    address_key: str
    name: str
    sent: bool
    at: float


class SenderRow(NamedTuple):
    account_id: int
    address_key: str
    name: str
    received: int
    received_since: float | None
    sent: int
    sent_since: float | None


def address_key(address: str) -> str:
    """``com.example.mail@anna`` for ``Anna@mail.example.com``; "" for what is no address, or too long for one."""
    local, at, domain = storable(address.strip().lower()).rpartition("@")
    if not at or not local or not domain.strip(".") or len(address) > _MAX_KEY_CHARS:
        return ""
    key = f"{reversed_domain(domain)}@{local}"
    return key if len(key) <= _MAX_KEY_CHARS else ""


def reversed_domain(domain: str) -> str:
    """``com.example.mail`` for ``mail.example.com``, and back again."""
    return ".".join(reversed(domain.strip(".").split(".")))


def name_key(name: str) -> str:
    """A display name as it is compared: case, blanks and quotes do not count. "" for one that is an address."""
    if "@" in name:
        return ""
    return storable(" ".join(name[: 4 * _MAX_NAME_CHARS].strip("\"' ").casefold().split())[:_MAX_NAME_CHARS])


def sightings(
    *, own: str, path: str, special_use: str | None, from_: Address, recipients: Sequence[Address], at: float
) -> list[Sighting]:
    """What a message that is first seen in ``path`` says of the account's correspondents."""
    if special_use in _UNCOUNTED_FOLDERS:
        return []
    own_key, from_key = address_key(own), address_key(from_.address)
    if special_use == _SENT or (own_key and from_key == own_key):
        if path.upper() == INBOX:
            return []
        written = {address_key(each.address): name_key(each.name) for each in recipients[:MAX_RECIPIENTS]}
        return [Sighting(key, name, True, at) for key, name in written.items() if key and key != own_key]
    return [Sighting(from_key, name_key(from_.name), False, at)] if from_key else []


def recipients_text(recipients: Sequence[Address]) -> str:
    """``message.recipients``: an address each line."""
    return storable("\n".join(dict.fromkeys(_line(each.address) for each in recipients[:MAX_RECIPIENTS])))


def answers_text(references: Sequence[str], in_reply_to: str) -> str:
    """``message.answers``: the first message of the thread, and the last that References names."""
    named = [*references[:1], *references[1:][1 - _MAX_REFERENCES :]]
    return storable("\n".join(dict.fromkeys(_line(each) for each in named if each != in_reply_to)))


def _line(text: str) -> str:
    return " ".join(text[:_MAX_KEY_CHARS].split())


async def record(connection: AsyncConnection, account_id: int, seen: Iterable[Sighting]) -> None:
    """Add up ``seen``, of messages whose rows this transaction makes. The account is held."""
    rows = added_up(account_id, seen)
    if rows:
        await _ADD(connection, rows)


def added_up(account_id: int, seen: Iterable[Sighting]) -> list[SenderRow]:
    """One row for each address and name, ascending by key."""
    rows: dict[tuple[str, str], SenderRow] = {}
    for key, name, sent, at in seen:
        row = rows.get((key, name)) or SenderRow(account_id, key, name, 0, None, 0, None)
        if sent:
            since = at if row.sent_since is None else min(at, row.sent_since)
            rows[key, name] = row._replace(sent=row.sent + 1, sent_since=since)
        else:
            since = at if row.received_since is None else min(at, row.received_since)
            rows[key, name] = row._replace(received=row.received + 1, received_since=since)
    return [rows[each] for each in sorted(rows)]


def _merged(given: ReadOnlyColumnCollection[str, Any]) -> Mapping[str, ColumnElement[Any]]:
    held = sender.c
    return {
        "received": held.received + given.received,
        "received_since": _earlier(held.received_since, given.received_since),
        "sent": held.sent + given.sent,
        "sent_since": _earlier(held.sent_since, given.sent_since),
    }


def _earlier(held: ColumnElement[Any], given: ColumnElement[Any]) -> ColumnElement[Any]:
    """The lesser of two; of a NULL and a value the value. (MIN and LEAST do not agree on that.)"""
    return case((held <= given, held), else_=func.coalesce(given, held))


_ADD = BulkInsert[SenderRow](sender, SenderRow._fields, merge=_merged)

_ANY_UNCOUNTED = select(message.c.account_id).where(message.c.recipients.is_(None)).order_by(message.c.account_id)
_UNCOUNTED = (
    select(
        message.c.id,
        message.c.from_name,
        message.c.from_address,
        message.c.internal_date,
        exists()
        .where(
            place.c.message_id == message.c.id,
            mailbox.c.id == place.c.mailbox_id,
            mailbox.c.special_use.in_((*_UNCOUNTED_FOLDERS, _SENT)),
        )
        .label("aside"),
    )
    .where(message.c.account_id == bindparam("account_id"), message.c.recipients.is_(None))
    .order_by(message.c.id)
    .limit(bindparam("limit"))
)


async def count_older(connection: AsyncConnection, limit: int = PIECE) -> int:
    """Count up to ``limit`` messages that older code stored, of one account; returns how many, 0 when none is left.

    Who they went to is not known without their raw bytes: they count as received, and as parts of no thread, and those
    that the account wrote (under whatever address) count for nothing.
    """
    account_id: int | None = await connection.scalar(_ANY_UNCOUNTED.limit(1))
    if account_id is None:
        return 0
    await hold_account(connection, account_id)
    own: str = await connection.scalar(select(account.c.email).where(account.c.id == account_id)) or ""
    rows = (await connection.execute(_UNCOUNTED, {"account_id": account_id, "limit": limit})).all()
    seen: list[Sighting] = []
    for row in rows:
        if not row.aside:
            author = Address(row.from_name, row.from_address)
            seen += sightings(own=own, path="", special_use=None, from_=author, recipients=(), at=row.internal_date)
    ids = [row.id for row in rows]
    await hold_messages(connection, ids)
    await record(connection, account_id, seen)
    for some in chunks(ids):
        await connection.execute(update(message).where(message.c.id.in_(some)).values(recipients="", answers=""))
    return len(ids)
