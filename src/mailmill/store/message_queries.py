"""Reading messages: listings, one message with all about it, counts for the status page. Nothing here writes.

Processing status is the view ``email_status``'s word alone; what processors returned is read from ``result``, the
newest version of each.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
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
    literal_column,
    or_,
    select,
    table,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from mailmill.errors import InvalidRequestError, NotFoundError
from mailmill.model import VerdictName
from mailmill.store.blobs import BlobRef
from mailmill.store.dialect import MAX_ROWS, storable
from mailmill.store.message_places import flags_of_text
from mailmill.store.tables import account, blob, mailbox, message, place, result, work

STATUSES = ("pending", "processing", "completed", "failed")
SHOWN_PROCESSORS = ("threat", "summary", "category")
"""Whose results listings carry."""

MAX_PAGE_SIZE = 500

_status = table("email_status", column("message_id"), column("processing_status", String))


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


@dataclass(frozen=True, slots=True)
class ListedMessage:
    """A line of a listing: the message, the place it is listed for (None: it has none at the moment), and the values
    of `SHOWN_PROCESSORS` by name."""

    message: MessageRow
    place: PlaceRow | None
    results: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MessagePage:
    """``next_cursor`` asks for the lines after these; None at the end."""

    messages: tuple[ListedMessage, ...]
    next_cursor: str | None


async def list_messages(
    connection: AsyncConnection,
    *,
    account_id: int | None = None,
    path: str | None = None,
    status: str | None = None,
    verdict: str | None = None,
    page_size: int = 50,
    cursor: str | None = None,
) -> MessagePage:
    """A page, newest first. With ``path``: the mailbox's places, highest UID first. Without: each message that has a
    place once, by its internal date, shown at the place it came to first.

    ``cursor`` is the ``next_cursor`` of a page asked with the same filters; a listing that goes on while mail arrives
    neither repeats a line nor leaves one out. Raises InvalidRequestError for a filter or cursor that cannot be.
    """
    page_size = max(1, min(page_size, MAX_PAGE_SIZE))
    conditions = _filters(account_id, status, verdict)
    wanted = _messages().where(*conditions)
    if path is None:
        key: tuple[Any, ...] = (message.c.internal_date, message.c.id)
        wanted = wanted.where(
            exists().where(place.c.message_id == message.c.id, place.c.expunged_at.is_(None)),
            message.c.deleted_at.is_(None),
        )
    else:
        key = (place.c.uid_validity, place.c.uid, message.c.id)
        wanted = (
            wanted.join(place, place.c.message_id == message.c.id)
            .join(mailbox, mailbox.c.id == place.c.mailbox_id)
            .where(mailbox.c.path == storable(path), place.c.expunged_at.is_(None))
            .add_columns(*_PLACE_COLUMNS)
        )
    if cursor is not None:
        wanted = wanted.where(tuple_(*key) < tuple_(*_parse_cursor(cursor, len(key))))
    wanted = wanted.add_columns(*(column.label(f"key{index}") for index, column in enumerate(key)))
    rows = (await connection.execute(wanted.order_by(*(part.desc() for part in key)).limit(page_size + 1))).all()
    page = rows[:page_size]
    ids = [row.id for row in page]
    results = await _shown_results(connection, ids)
    places = await places_of(connection, ids) if path is None else {}
    listed = []
    for row in page:
        shown = _place_row(row) if path is not None else next(iter(places.get(row.id, ())), None)
        listed.append(ListedMessage(_message_row(row), shown, results.get(row.id, {})))
    next_cursor = None
    if len(rows) > page_size:
        next_cursor = _format_cursor([getattr(page[-1], f"key{index}") for index in range(len(key))])
    return MessagePage(tuple(listed), next_cursor)


async def get_message(connection: AsyncConnection, message_id: int, *, account_id: int | None = None) -> MessageRow:
    """Raises NotFoundError, also where the message is another account's than ``account_id``."""
    found = (await get_messages(connection, [message_id])).get(message_id)
    if found is None or account_id not in (None, found.account_id):
        raise NotFoundError(f"there is no message {message_id}")
    return found


async def get_messages(connection: AsyncConnection, message_ids: Collection[int]) -> dict[int, MessageRow]:
    """The messages with these ids, deleted ones included; an id that is not there is left out."""
    rows = await _for_ids(connection, _messages(), message.c.id, message_ids)
    return {row.id: _message_row(row) for row in rows}


async def places_of(connection: AsyncConnection, message_ids: Collection[int]) -> dict[int, list[PlaceRow]]:
    """The living places of each message, in the order they were seen."""
    wanted = (
        select(place.c.message_id, *_PLACE_COLUMNS)
        .join(mailbox, mailbox.c.id == place.c.mailbox_id)
        .where(place.c.expunged_at.is_(None))
        .order_by(place.c.seen_at, place.c.mailbox_id, place.c.uid_validity, place.c.uid)
    )
    found: dict[int, list[PlaceRow]] = defaultdict(list)
    for row in await _for_ids(connection, wanted, place.c.message_id, message_ids):
        found[row.message_id].append(_place_row(row))
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


async def count_messages(connection: AsyncConnection) -> dict[int, int]:
    """Account id → how many messages it has that are not deleted; accounts without any are left out."""
    wanted = (
        select(message.c.account_id, func.count()).where(message.c.deleted_at.is_(None)).group_by(message.c.account_id)
    )
    return {row[0]: row[1] for row in await connection.execute(wanted)}


async def count_places(connection: AsyncConnection, account_id: int) -> dict[int, int]:
    """Mailbox id → how many living places it has; empty mailboxes are left out."""
    wanted = (
        select(place.c.mailbox_id, func.count())
        .join(mailbox, mailbox.c.id == place.c.mailbox_id)
        .where(mailbox.c.account_id == account_id, place.c.expunged_at.is_(None))
        .group_by(place.c.mailbox_id)
    )
    return {row[0]: row[1] for row in await connection.execute(wanted)}


async def count_verdicts(connection: AsyncConnection) -> dict[str, int]:
    """Verdict → how many messages have it, by the newest version of the threat processor; all verdicts are there."""
    verdict = json_text(result.c.value, "verdict")
    wanted = (
        select(verdict.label("verdict"), func.count())
        .join(message, message.c.id == result.c.message_id)
        .where(_newest("threat"), message.c.deleted_at.is_(None))
        .group_by(verdict)
    )
    counts = {str(name): 0 for name in VerdictName}
    for name, count in await connection.execute(wanted):
        if name in counts:
            counts[name] = count
    return counts


async def referenced_segments(connection: AsyncConnection) -> set[str]:
    """The segments that hold raw messages (for `BlobStore.collect_orphans`)."""
    return set((await connection.execute(select(blob.c.segment).distinct())).scalars())


# -- JSON inside a text column ----------------------------------------------------------------------------------------


class json_text(ColumnElement[str]):  # noqa: N801 - reads as a function, as SQLAlchemy's own do
    """The text at a top-level key of a JSON object kept in a text column; NULL where it is not there."""

    inherit_cache = False
    type = String()

    def __init__(self, value: ColumnElement[str], key: str) -> None:
        if not key.isalnum():
            raise ValueError(f"not a plain key: {key!r}")
        self.value = value
        self.key = key


@compiles(json_text, "sqlite")
def _json_text_sqlite(element: json_text, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_extract({compiler.process(element.value, **options)}, '$.{element.key}')"


@compiles(json_text, "postgresql")
def _json_text_postgresql(element: json_text, compiler: SQLCompiler, **options: Any) -> str:
    return f"(({compiler.process(element.value, **options)})::json ->> '{element.key}')"


# -- parts ------------------------------------------------------------------------------------------------------------

_PLACE_COLUMNS = (
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


def _messages() -> Select[Any]:
    return (
        select(
            message,
            account.c.name.label("account"),
            _status.c.processing_status,
            _COMPLETED_AT.label("completed_at"),
            blob.c.segment,
            blob.c.offset_bytes,
            blob.c.size_bytes.label("blob_size_bytes"),
        )
        .join(account, account.c.id == message.c.account_id)
        .outerjoin(blob, and_(blob.c.sha256 == message.c.sha256, message.c.raw_expired_at.is_(None)))
        .join(_status, _status.c.message_id == message.c.id)
        .where(account.c.removing_at.is_(None))
    )


def _filters(account_id: int | None, status: str | None, verdict: str | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if account_id is not None:
        conditions.append(message.c.account_id == account_id)
    if status is not None:
        if status not in STATUSES:
            raise InvalidRequestError(f"there is no status {status!r}", hint=f"one of {', '.join(STATUSES)}")
        conditions.append(_status.c.processing_status == status)
    if verdict is not None:
        names = [str(name) for name in VerdictName]
        if verdict not in names:
            raise InvalidRequestError(f"there is no verdict {verdict!r}", hint=f"one of {', '.join(names)}")
        conditions.append(
            exists().where(
                result.c.message_id == message.c.id,
                _newest("threat"),
                json_text(result.c.value, "verdict") == verdict,
            )
        )
    return conditions


def _newest(processor: str) -> ColumnElement[bool]:
    newer = result.alias("newer")
    return and_(
        # As a literal: which partial index covers it cannot be told from a parameter.
        result.c.processor == literal_column(f"'{processor}'"),
        ~exists().where(
            newer.c.message_id == result.c.message_id,
            newer.c.processor == processor,
            newer.c.version > result.c.version,
        ),
    )


async def _shown_results(connection: AsyncConnection, message_ids: Collection[int]) -> dict[int, dict[str, Any]]:
    wanted = (
        select(result.c.message_id, result.c.processor, result.c.value)
        .where(or_(*(result.c.processor == name for name in SHOWN_PROCESSORS)))
        .order_by(result.c.version)
    )
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for row in await _for_ids(connection, wanted, result.c.message_id, message_ids):
        found[row.message_id][row.processor] = row.value
    return {
        message_id: {processor: json.loads(value) for processor, value in values.items()}
        for message_id, values in found.items()
    }


async def _for_ids(
    connection: AsyncConnection, wanted: Select[Any], column: ColumnElement[int], ids: Collection[int]
) -> list[Row[Any]]:
    values: Sequence[int] = sorted(set(ids))
    rows: list[Row[Any]] = []
    for start in range(0, len(values), MAX_ROWS):
        rows += await connection.execute(wanted.where(column.in_(values[start : start + MAX_ROWS])))
    return rows


def _message_row(row: Row[Any]) -> MessageRow:
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


def _place_row(row: Row[Any]) -> PlaceRow:
    return PlaceRow(
        path=row.place_path,
        special_use=row.place_special_use,
        uid_validity=row.place_uid_validity,
        uid=row.place_uid,
        flags=flags_of_text(row.place_flags),
    )


def _format_cursor(key: Sequence[float]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _parse_cursor(text: str, length: int) -> list[float]:
    try:
        key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        key = None
    if (
        not isinstance(key, list)
        or len(key) != length
        or not all(isinstance(part, int | float) and abs(part) < 2**63 for part in key)
    ):
        raise InvalidRequestError("that is not a cursor of this listing", hint="start without one") from None
    return key
