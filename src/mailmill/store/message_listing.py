"""Listing messages, newest first, page by page. Nothing here writes."""

from __future__ import annotations

import base64
import binascii
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import InvalidRequestError
from mailmill.model import VerdictName
from mailmill.store.dialect import storable
from mailmill.store.json_text import json_text
from mailmill.store.message_counts import newest_result
from mailmill.store.message_queries import (
    PLACE_COLUMNS,
    STATUS,
    MessageRow,
    PlaceRow,
    for_ids,
    message_row,
    place_row,
    places_of,
    stored_messages,
)
from mailmill.store.tables import mailbox, message, place, result

STATUSES = ("pending", "processing", "completed", "failed")
SHOWN_PROCESSORS = ("threat", "summary", "category")
"""Whose results listings carry."""

MAX_PAGE_SIZE = 500


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
    wanted = stored_messages().where(*conditions)
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
            .add_columns(*PLACE_COLUMNS)
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
        shown = place_row(row) if path is not None else next(iter(places.get(row.id, ())), None)
        listed.append(ListedMessage(message_row(row), shown, results.get(row.id, {})))
    next_cursor = None
    if len(rows) > page_size:
        next_cursor = _format_cursor([getattr(page[-1], f"key{index}") for index in range(len(key))])
    return MessagePage(tuple(listed), next_cursor)


def _filters(account_id: int | None, status: str | None, verdict: str | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if account_id is not None:
        conditions.append(message.c.account_id == account_id)
    if status is not None:
        if status not in STATUSES:
            raise InvalidRequestError(f"there is no status {status!r}", hint=f"one of {', '.join(STATUSES)}")
        conditions.append(STATUS.c.processing_status == status)
    if verdict is not None:
        names = [str(name) for name in VerdictName]
        if verdict not in names:
            raise InvalidRequestError(f"there is no verdict {verdict!r}", hint=f"one of {', '.join(names)}")
        conditions.append(
            exists().where(
                result.c.message_id == message.c.id,
                newest_result("threat"),
                json_text(result.c.value, "verdict") == verdict,
            )
        )
    return conditions


async def _shown_results(connection: AsyncConnection, message_ids: Collection[int]) -> dict[int, dict[str, Any]]:
    wanted = (
        select(result.c.message_id, result.c.processor, result.c.value)
        .where(or_(*(result.c.processor == name for name in SHOWN_PROCESSORS)))
        .order_by(result.c.version)
    )
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for row in await for_ids(connection, wanted, result.c.message_id, message_ids):
        found[row.message_id][row.processor] = row.value
    return {
        message_id: {processor: json.loads(value) for processor, value in values.items()}
        for message_id, values in found.items()
    }


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
