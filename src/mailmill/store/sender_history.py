"""What an account knew of a message's sender before that message came: the reading of what `sender_counts` counts.

*Before* goes by ``internal_date``: an address is known to a message if its first sight is earlier. So a message that is
looked at again later, or out of order, gets the same answer on who is known. The counts are those of today.

The messages of one account are answered together: a handful of statements, and one for each about its organisation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, BindParameter, Row, and_, bindparam, cast, exists, func, or_, select, text

from mailmill.model import Address, SenderHistory
from mailmill.store.dialect import chunks
from mailmill.store.sender_counts import address_key, name_key, reversed_domain
from mailmill.store.tables import account, message, sender

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

MAX_ACCOUNT_MESSAGES: Final = 200
"""How far ``account_messages`` counts: beyond it an account has seen enough."""

MAX_ORGANISATION_SENDERS: Final = 100
"""Whose mail ``organisation_received`` adds up: of a large organisation some."""

MAX_NAME_ADDRESSES: Final = 10
MAX_CORRESPONDENTS: Final = 1000
_MAX_THREAD: Final = 20

AnyRow = Row[*tuple[Any, ...]]
OrganisationOf = Callable[[str], str]
"""The organisational domain of a domain; "" where a shared one says nothing (free mail)."""

_SUBJECTS = (
    select(
        message.c.id,
        message.c.account_id,
        message.c.from_name,
        message.c.from_address,
        message.c.message_id_header,
        message.c.in_reply_to,
        message.c.answers,
        message.c.internal_date,
    )
    .where(message.c.id.in_(bindparam("some", expanding=True)))
    .order_by(message.c.id)
)
_ACCOUNT_ID: BindParameter[int] = bindparam("account_id")
_SOME: BindParameter[Any] = bindparam("some", expanding=True)
_OF_ACCOUNT = sender.c.account_id == _ACCOUNT_ID
_SINCE = (sender.c.received_since, sender.c.sent_since)
# Added up there: some write under thousands of names (whoever tells of what others did).
_EXACT = (
    select(
        sender.c.address_key,
        cast(func.sum(sender.c.received), BigInteger).label("received"),
        cast(func.sum(sender.c.sent), BigInteger).label("sent"),
        *(func.min(since).label(since.name) for since in _SINCE),
    )
    .where(_OF_ACCOUNT, sender.c.address_key.in_(_SOME))
    .group_by(sender.c.address_key)
)
# Of a name that thousands of addresses bear the first are enough: whoever comes later does not change the answer.
_BY_NAME = (
    select(
        sender.c.name,
        sender.c.address_key,
        sender.c.sent,
        *_SINCE,
        func.row_number()
        .over(
            partition_by=sender.c.name,
            order_by=(func.coalesce(sender.c.received_since, sender.c.sent_since), sender.c.address_key),
        )
        .label("rank"),
    )
    .where(_OF_ACCOUNT, sender.c.name.in_(_SOME), text("sender.name <> ''"))
    .subquery()
)
_NAMES = select(_BY_NAME).where(_BY_NAME.c.rank <= 2 * MAX_NAME_ADDRESSES).order_by(_BY_NAME.c.name, _BY_NAME.c.rank)
_WRITTEN_TO = (
    select(sender.c.address_key, sender.c.sent_since)
    .where(_OF_ACCOUNT, text("sent > 0"))
    .order_by(sender.c.address_key)
    .limit(MAX_CORRESPONDENTS)
)
# A sender may give thousands of messages one id.
_BY_MESSAGE_ID = (
    select(
        message.c.message_id_header,
        message.c.from_name,
        message.c.from_address,
        message.c.recipients,
        message.c.internal_date,
        func.row_number()
        .over(partition_by=message.c.message_id_header, order_by=(message.c.internal_date, message.c.id))
        .label("rank"),
    )
    .where(
        message.c.account_id == _ACCOUNT_ID,
        message.c.message_id_header.in_(_SOME),
        text("length(message_id_header) < 250"),
    )
    .subquery()
)
_THREADS = (
    select(_BY_MESSAGE_ID)
    .where(_BY_MESSAGE_ID.c.rank <= _MAX_THREAD)
    .order_by(_BY_MESSAGE_ID.c.message_id_header, _BY_MESSAGE_ID.c.rank)
)
_OLDEST = (
    select(message.c.internal_date)
    .where(message.c.account_id == _ACCOUNT_ID)
    .order_by(message.c.internal_date, message.c.id)
    .limit(MAX_ACCOUNT_MESSAGES)
)
_COMPLETE = select(
    and_(
        account.c.initialized_at.is_not(None),
        ~exists().where(message.c.account_id == account.c.id, message.c.recipients.is_(None)),
    )
).where(account.c.id == _ACCOUNT_ID)
# An organisation's own addresses, and those of its subdomains: two runs of the key.
_ORGANISATION_SENDERS = (
    select(sender.c.received)
    .where(
        _OF_ACCOUNT,
        or_(
            and_(sender.c.address_key >= bindparam("at"), sender.c.address_key < bindparam("at_end")),
            and_(sender.c.address_key >= bindparam("dot"), sender.c.address_key < bindparam("dot_end")),
        ),
        sender.c.received_since < bindparam("before"),
    )
    .limit(MAX_ORGANISATION_SENDERS)
    .subquery()
)
_ORGANISATION = select(func.coalesce(func.sum(_ORGANISATION_SENDERS.c.received), 0))


async def read_histories(
    connection: AsyncConnection, message_ids: Sequence[int], organisation_of: OrganisationOf
) -> dict[int, SenderHistory]:
    """Message id → what was known of its sender, of those that are there."""
    return await connection.run_sync(_read, message_ids, organisation_of)


def _read(
    connection: Connection, message_ids: Sequence[int], organisation_of: OrganisationOf
) -> dict[int, SenderHistory]:
    histories: dict[int, SenderHistory] = {}
    for some in chunks(message_ids):
        by_account: defaultdict[int, list[AnyRow]] = defaultdict(list)
        for row in connection.execute(_SUBJECTS, {"some": list(some)}):
            by_account[row.account_id].append(row)
        for account_id, rows in by_account.items():
            known = _read_account(connection, account_id, rows, organisation_of)
            histories.update((row.id, _history(row, known)) for row in rows)
    return histories


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store has about the senders of some messages of one account."""

    complete: bool
    oldest: Sequence[float]
    by_key: Mapping[str, AnyRow]
    by_name: Mapping[str, Sequence[AnyRow]]
    by_message_id: Mapping[str, Sequence[AnyRow]]
    of_organisation: Mapping[int, int]
    written_to: Sequence[tuple[str, float]]


def _read_account(
    connection: Connection, account_id: int, rows: Sequence[AnyRow], organisation_of: OrganisationOf
) -> _Known:
    own = {"account_id": account_id}
    keys = {address_key(row.from_address) for row in rows} - {""}
    names = {name_key(row.from_name) for row in rows} - {""}
    answered = {each for row in rows for each in _answered(row)}

    def grouped(statement: Any, some: set[str], column: str) -> Mapping[str, Sequence[AnyRow]]:
        found: defaultdict[str, list[AnyRow]] = defaultdict(list)
        for piece in chunks(sorted(some)):
            for each in connection.execute(statement, {**own, "some": piece}):
                found[getattr(each, column)].append(each)
        return found

    return _Known(
        complete=bool(connection.scalar(_COMPLETE, own)),
        oldest=connection.scalars(_OLDEST, own).all(),
        by_key={key: row for key, [row] in grouped(_EXACT, keys, "address_key").items()},
        by_name=grouped(_NAMES, names, "name"),
        by_message_id=grouped(_THREADS, answered, "message_id_header"),
        of_organisation=_of_organisations(connection, account_id, rows, organisation_of),
        written_to=[
            (reversed_domain(each.address_key.partition("@")[0]), each.sent_since)
            for each in connection.execute(_WRITTEN_TO, own)
        ],
    )


def _of_organisations(
    connection: Connection, account_id: int, rows: Sequence[AnyRow], organisation_of: OrganisationOf
) -> dict[int, int]:
    """Message id → mail that its sender's organisation had sent before."""
    counts: dict[int, int] = {}
    for row in rows:
        domain = reversed_domain(address_key(row.from_address).partition("@")[0])
        organisation = organisation_of(domain) if domain else ""
        # A domain whose letters were decoded is another text than its key.
        if not organisation or not f".{domain}".endswith(f".{organisation}"):
            continue
        start = reversed_domain(organisation)
        # "A" follows "@", and "/" follows ".".
        spans = {"at": f"{start}@", "at_end": f"{start}A", "dot": f"{start}.", "dot_end": f"{start}/"}
        asked = {"account_id": account_id, "before": row.internal_date, **spans}
        counts[row.id] = int(connection.scalar(_ORGANISATION, asked) or 0)
    return counts


def _history(row: AnyRow, known: _Known) -> SenderHistory:
    before = row.internal_date
    key = address_key(row.from_address)
    same = known.by_key.get(key)
    others = [
        each
        for each in known.by_name.get(name_key(row.from_name), ())
        if each.address_key != key and (_is_before(each.received_since, before) or _is_before(each.sent_since, before))
    ][:MAX_NAME_ADDRESSES]
    received = same.received if same is not None and _is_before(same.received_since, before) else 0
    sent = same.sent if same is not None and _is_before(same.sent_since, before) else 0
    return SenderHistory(
        known=known.complete,
        account_messages=bisect_left(known.oldest, before),
        received=max(1, received - 1) if received else 0,  # the message itself is one
        sent=sent,
        organisation_received=known.of_organisation.get(row.id, 0),
        name_addresses=tuple(_address(each.address_key) for each in others),
        name_sent=sum(each.sent for each in others if _is_before(each.sent_since, before)),
        thread=_thread(row, known),
        correspondents=tuple(sorted({domain for domain, since in known.written_to if since < before})),
    )


def _is_before(since: float | None, before: float) -> bool:
    return since is not None and since < before


def _answered(row: AnyRow) -> set[str]:
    return {row.in_reply_to, *(row.answers or "").split("\n")} - {"", row.message_id_header}


def _thread(row: AnyRow, known: _Known) -> tuple[Address, ...]:
    """Who wrote or got the earlier messages. Nobody where one of those messages does not say whom it went to: whoever
    writes next may be one of them.
    """
    earlier = [
        each
        for named in sorted(_answered(row))
        for each in known.by_message_id.get(named, ())
        if each.internal_date < row.internal_date
    ]
    if not all(each.recipients for each in earlier):
        return ()
    parties: dict[str, Address] = {}
    for each in earlier:
        got = (Address("", one) for one in each.recipients.split("\n"))
        for party in (Address(each.from_name, each.from_address), *got):
            parties.setdefault(party.address.strip().lower(), party)
    return tuple(parties.values())


def _address(key: str) -> str:
    domain, _, local = key.partition("@")
    return f"{local}@{reversed_domain(domain)}"
