"""Reading messages: each with all about it. Nothing here writes; listings are ``message_listing``'s, counts
``message_counts``'s.

Processing status is the view ``email_status``'s word alone; what processors returned is read from ``result``, the
newest version of each.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    String,
    and_,
    case,
    column,
    exists,
    func,
    or_,
    select,
    table,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import NotFoundError
from mailmill.store.blobs import BlobRef
from mailmill.store.dialect import MAX_ROWS
from mailmill.store.message_places import flags_of_text
from mailmill.store.tables import account, blob, mailbox, message, place, result, work

STATUS = table("email_status", column("message_id"), column("processing_status", String))


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """A living place of a message."""

    path: str
    special_use: str | None
    uid_validity: int
    uid: int
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What one processor returned for one message. ``value`` is JSON, parsed; ``finished_at`` epoch seconds."""

    processor: str
    version: int
    value: Any
    attempts: int
    seconds: float
    finished_at: float


@dataclass(frozen=True, slots=True)
class MessageWorkRow:
    """A processor that is still to run over a message, or failed for good."""

    processor: str
    version: int
    state: str
    attempt: int
    crashes: int
    run_at: float
    error: str


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message as stored. Dates are epoch seconds; ``processed_at`` is when its last result came, once no processor is
    left to run for the first time; ``deleted_at`` is set once it is gone from the server for sure.

    Once ``raw_expired_at`` is set the raw bytes are not to be had, also where another account still keeps the same:
    ``blob`` has no segment then.
    """

    id: int
    account_id: int
    account: str
    email_id: str | None
    x_gm_msgid: str | None
    thread_id: str | None
    size_bytes: int
    internal_date: float
    date_header: float | None
    subject: str
    from_name: str
    from_address: str
    message_id_header: str
    in_reply_to: str
    historical: bool
    stored_at: float
    processed_at: float | None
    deleted_at: float | None
    raw_expired_at: float | None
    status: str
    blob: BlobRef

    @property
    def has_raw(self) -> bool:
        """Whether the store knows where its raw bytes lie, and may give them out."""
        return bool(self.blob.segment)


async def get_message(connection: AsyncConnection, message_id: int, *, account_id: int | None = None) -> MessageRow:
    """Raises NotFoundError, also where the message is another account's than ``account_id``."""
    found = (await get_messages(connection, [message_id])).get(message_id)
    if found is None or account_id not in (None, found.account_id):
        raise NotFoundError(f"there is no message {message_id}")
    return found


async def get_messages(connection: AsyncConnection, message_ids: Collection[int]) -> dict[int, MessageRow]:
    """The messages with these ids, deleted ones included; an id that is not there is left out."""
    rows = await for_ids(connection, stored_messages(), message.c.id, message_ids)
    return {row.id: message_row(row) for row in rows}


async def places_of(connection: AsyncConnection, message_ids: Collection[int]) -> dict[int, list[PlaceRow]]:
    """The living places of each message, in the order they were seen."""
    wanted = (
        select(place.c.message_id, *PLACE_COLUMNS)
        .join(mailbox, mailbox.c.id == place.c.mailbox_id)
        .where(place.c.expunged_at.is_(None))
        .order_by(place.c.seen_at, place.c.mailbox_id, place.c.uid_validity, place.c.uid)
    )
    found: dict[int, list[PlaceRow]] = defaultdict(list)
    for row in await for_ids(connection, wanted, place.c.message_id, message_ids):
        found[row.message_id].append(place_row(row))
    return dict(found)


async def results_of(connection: AsyncConnection, message_id: int) -> list[ResultRow]:
    """All that processors returned for a message, by name, newest version first."""
    wanted = (
        select(result).where(result.c.message_id == message_id).order_by(result.c.processor, result.c.version.desc())
    )
    return [
        ResultRow(row.processor, row.version, json.loads(row.value), row.attempts, row.seconds, row.finished_at)
        for row in await connection.execute(wanted)
    ]


async def work_of(connection: AsyncConnection, message_id: int) -> list[MessageWorkRow]:
    """What is still to be done with a message, or failed, by processor."""
    wanted = select(work).where(work.c.message_id == message_id).order_by(work.c.processor)
    return [
        MessageWorkRow(row.processor, row.version, row.state, row.attempt, row.crashes, row.run_at, row.last_error)
        for row in await connection.execute(wanted)
    ]


# -- parts ------------------------------------------------------------------------------------------------------------

PLACE_COLUMNS = (
    mailbox.c.path.label("place_path"),
    mailbox.c.special_use.label("place_special_use"),
    place.c.uid_validity.label("place_uid_validity"),
    place.c.uid.label("place_uid"),
    place.c.flags.label("place_flags"),
)


_HAS_WORK = exists().where(work.c.message_id == message.c.id)
_LAST_RESULT_AT = select(func.max(result.c.finished_at)).where(result.c.message_id == message.c.id).scalar_subquery()
# In its first run it is not processed; in a later one it stays so.
_COMPLETED_AT = case(
    (or_(message.c.processed_at.is_not(None), ~_HAS_WORK), func.coalesce(_LAST_RESULT_AT, message.c.processed_at))
)


def stored_messages() -> Select[Any]:
    """All that `message_row` wants, of the messages that are there for anybody."""
    return (
        select(
            message,
            account.c.name.label("account"),
            STATUS.c.processing_status,
            _COMPLETED_AT.label("completed_at"),
            blob.c.segment,
            blob.c.offset_bytes,
            blob.c.size_bytes.label("blob_size_bytes"),
        )
        .join(account, account.c.id == message.c.account_id)
        .outerjoin(blob, and_(blob.c.sha256 == message.c.sha256, message.c.raw_expired_at.is_(None)))
        .join(STATUS, STATUS.c.message_id == message.c.id)
        .where(account.c.removing_at.is_(None))
    )


async def for_ids(
    connection: AsyncConnection, wanted: Select[Any], column: ColumnElement[int], ids: Collection[int]
) -> list[Row[Any]]:
    """The rows of ``wanted`` whose ``column`` is one of ``ids``, however many there are."""
    values: Sequence[int] = sorted(set(ids))
    rows: list[Row[Any]] = []
    for start in range(0, len(values), MAX_ROWS):
        rows += await connection.execute(wanted.where(column.in_(values[start : start + MAX_ROWS])))
    return rows


def message_row(row: Row[Any]) -> MessageRow:
    """A row of `stored_messages`."""
    return MessageRow(
        id=row.id,
        account_id=row.account_id,
        account=row.account,
        email_id=row.email_id,
        x_gm_msgid=row.x_gm_msgid,
        thread_id=row.thread_id,
        size_bytes=row.size_bytes,
        internal_date=row.internal_date,
        date_header=row.date_header,
        subject=row.subject,
        from_name=row.from_name,
        from_address=row.from_address,
        message_id_header=row.message_id_header,
        in_reply_to=row.in_reply_to,
        historical=row.historical,
        stored_at=row.stored_at,
        processed_at=row.completed_at,
        deleted_at=row.deleted_at,
        raw_expired_at=row.raw_expired_at,
        status=row.processing_status,
        blob=BlobRef(row.sha256, row.segment or "", row.offset_bytes or 0, row.blob_size_bytes or 0),
    )


def place_row(row: Row[Any]) -> PlaceRow:
    """A row that holds `PLACE_COLUMNS`."""
    return PlaceRow(
        path=row.place_path,
        special_use=row.place_special_use,
        uid_validity=row.place_uid_validity,
        uid=row.place_uid,
        flags=flags_of_text(row.place_flags),
    )
