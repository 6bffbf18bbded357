"""An event row → the envelope of the public contract. What is sent to destinations and what the API shows is the same.

A message that was purged, or whose raw bytes cannot be read, is shown with what is known: an event is never held back
because of what it tells.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog
from sqlalchemy import select

from mailmill.errors import StorageUnavailableError, StoreError
from mailmill.message_parser import parse_message
from mailmill.model import EventName
from mailmill.store import messages as message_store
from mailmill.store.tables import account

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.message_parser import Attachment
    from mailmill.model import Address
    from mailmill.store.blobs import BlobStore
    from mailmill.store.database import Database
    from mailmill.store.event_log import EventRow
    from mailmill.store.messages import MessageRow, PlaceRow

MAX_TEXT_CHARS: Final = 32 << 10
"""Of each of ``text.plain`` and ``text.html``; ``hasMore`` says that there is more (GET …/message/{id})."""

MAX_HEADER_CHARS: Final = 32 << 10
MAX_ADDRESSES: Final = 200
MAX_ATTACHMENTS: Final = 200

MAX_CONTENT_BYTES: Final = 32 << 20
"""A larger message is shown without text, headers and attachments."""

BATCH_BYTES: Final = 16 << 20
"""Raw mail held in memory at a time."""

INLINE_BYTES: Final = 64 << 10
"""What is parsed on the loop (under a millisecond); more goes to a thread."""

_WITH_CONTENT: Final = frozenset(
    {EventName.MESSAGE_NEW, EventName.MESSAGE_PROCESSED, EventName.MESSAGE_FAILED, EventName.THREAT_FOUND}
)
_WITH_RESULTS: Final = frozenset({EventName.MESSAGE_PROCESSED, EventName.MESSAGE_FAILED, EventName.THREAT_FOUND})

_log = structlog.get_logger(__name__)


def event_key(event_id: int) -> str:
    """The id an event carries outside: the envelope's ``id`` and the ``webhook-id``, at every try and destination."""
    return f"evt_{event_id}"


def iso_time(seconds: float | None) -> str | None:
    """Epoch seconds as ISO 8601 in UTC, with milliseconds: ``2026-03-03T10:00:00.000Z``.

    None stays None, and what no calendar holds becomes None: dates come from mail.
    """
    if seconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the database knows of some events. By message id, ``names`` by account id."""

    messages: dict[int, MessageRow]
    places: dict[int, list[PlaceRow]]
    names: dict[int, str]
    results: dict[int, dict[str, Any]]


async def render(database: Database, blobs: BlobStore, rows: Sequence[EventRow]) -> list[dict[str, Any]]:
    """The envelopes of ``rows``, in their order, ready for JSON.

    The reading connection is given back before raw mail is read and parsed: that takes its time, and there are few.
    """
    async with database.read() as connection:
        facts = await _look_up(connection, rows)
    shown = {row.message_id for row in rows if row.event in _WITH_CONTENT}
    contents = await _contents(blobs, [message for message in facts.messages.values() if message.id in shown])
    return [_envelope(row, facts, contents) for row in rows]


async def _look_up(connection: AsyncConnection, rows: Sequence[EventRow]) -> _Facts:
    ids = {row.message_id for row in rows if row.message_id is not None}
    messages = await message_store.get_messages(connection, ids) if ids else {}
    places = await message_store.places_of(connection, ids) if ids else {}
    names = {message.account_id: message.account for message in messages.values()}
    missing = {row.account_id for row in rows if row.account_id is not None} - names.keys()
    if missing:
        found = await connection.execute(select(account.c.id, account.c.name).where(account.c.id.in_(missing)))
        names.update((row.id, row.name) for row in found)
    judged = {row.message_id for row in rows if row.event in _WITH_RESULTS}
    results = {message_id: await _results(connection, message_id) for message_id in messages if message_id in judged}
    return _Facts(messages, places, names, results)


def _envelope(row: EventRow, facts: _Facts, contents: dict[int, dict[str, Any]]) -> dict[str, Any]:
    # Of an account that was deleted the event itself has the name.
    name = facts.names.get(row.account_id) if row.account_id is not None else row.data.get("account")
    envelope = bare_envelope(row, name)
    message = facts.messages.get(row.message_id) if row.message_id is not None else None
    if message is not None:
        data = _message(message, _place(row, facts.places.get(message.id, ())))
        if row.event in _WITH_CONTENT:
            data |= contents[message.id]
        if row.event in _WITH_RESULTS:
            data |= facts.results[message.id]
        envelope["data"] = data | envelope["data"]
    return envelope


def addresses(found: Sequence[Address]) -> list[dict[str, str]]:
    return [{"name": one.name, "address": one.address} for one in found]


def attachment(part: Attachment) -> dict[str, Any]:
    return {
        "id": part.id,
        "contentType": part.content_type,
        "encodedSize": part.encoded_size_bytes,
        "filename": part.filename,
        "inline": part.inline,
        "contentId": part.content_id or None,
    }


def threat(value: Any) -> dict[str, Any] | None:
    """What the processor ``threat`` returned, as the contract has it: ``{"verdict", "score", "findings", "reasons",
    "promptInjection"}``; None for what is none.

    Results of its version 1 have no ``promptInjection``, since nobody looked: None, which is not False.
    """
    if not isinstance(value, dict):
        return None
    return {
        "verdict": value.get("verdict"),
        "score": value.get("score"),
        "findings": value.get("findings") or [],
        "reasons": value.get("reasons") or [],
        "promptInjection": value.get("promptInjection"),
    }


def bare_envelope(row: EventRow, account_name: str | None) -> dict[str, Any]:
    """What the row itself says; ``data`` is what was recorded with the event, and the id of its message."""
    envelope: dict[str, Any] = {
        "id": event_key(row.id),
        "event": row.event,
        "account": account_name,
        "path": row.path,
        "specialUse": row.special_use,
        "date": iso_time(row.created_at),
        "data": dict(row.data),
    }
    if row.historical:
        envelope["historical"] = True
    if row.message_id is not None:
        envelope["data"]["id"] = str(row.message_id)
    return envelope


def _place(row: EventRow, places: Sequence[PlaceRow]) -> PlaceRow | None:
    """The place the event is about, or where the message is now."""
    uid = row.data.get("uid")
    here = [place for place in places if place.path == row.path]
    return next((place for place in here if place.uid == uid), None) or next(iter([*here, *places]), None)


def _message(message: MessageRow, place: PlaceRow | None) -> dict[str, Any]:
    return {
        "uid": place.uid if place is not None else None,
        "emailId": message.email_id or message.x_gm_msgid,
        "threadId": message.thread_id,
        "messageId": message.message_id_header or None,
        "inReplyTo": message.in_reply_to or None,
        "date": iso_time(message.internal_date if message.date_header is None else message.date_header),
        "flags": list(place.flags) if place is not None else [],
        "size": message.size_bytes,
        "subject": message.subject,
        "from": {"name": message.from_name, "address": message.from_address},
    }


async def _results(connection: AsyncConnection, message_id: int) -> dict[str, Any]:
    """What processors returned: the built-in ones under the contract's names, the user's own under ``results``."""
    shown: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for result in await message_store.results_of(connection, message_id):  # newest version of a name first
        value = result.value
        if result.processor == "summary":
            shown.setdefault("summary", value.get("text") if isinstance(value, dict) else value)
        elif result.processor == "category" and isinstance(value, dict):
            shown.setdefault("category", value.get("category"))
            shown.setdefault("priority", value.get("priority"))
        elif result.processor == "threat" and isinstance(value, dict):
            shown.setdefault("threat", threat(value))
        else:
            own.setdefault(result.processor, value)
    return {**shown, "results": own} if own else shown


# -- content ----------------------------------------------------------------------------------------------------------


async def _contents(blobs: BlobStore, messages: Collection[MessageRow]) -> dict[int, dict[str, Any]]:
    """Message id → what its raw bytes say, read in batches of bounded size."""
    contents: dict[int, dict[str, Any]] = {each.id: _NO_CONTENT for each in messages if not each.has_raw}
    for batch in _batches([each for each in messages if each.has_raw]):
        raws: dict[bytes, bytes] = {}
        try:
            raws = await blobs.get_many([message.blob for message in batch])
        except StorageUnavailableError:
            raise  # they can be had later: nothing is told without them
        except StoreError:
            for message in batch:  # one of them cannot be read: the others can
                try:
                    raws[message.blob.sha256] = await blobs.get(message.blob)
                except StorageUnavailableError:
                    raise
                except StoreError as error:
                    _log.error("raw message cannot be read", message_id=message.id, error=str(error), hint=error.hint)
        for message in batch:
            raw = raws.get(message.blob.sha256)
            if raw is None:
                contents[message.id] = _NO_CONTENT
            elif len(raw) <= INLINE_BYTES:
                contents[message.id] = _content(raw)
            else:
                contents[message.id] = await asyncio.to_thread(_content, raw)
    for message in messages:
        contents.setdefault(message.id, _TOO_LARGE)
    return contents


def _batches(messages: Iterable[MessageRow]) -> Iterable[list[MessageRow]]:
    batch: list[MessageRow] = []
    size = 0
    for message in messages:
        if message.blob.size_bytes > MAX_CONTENT_BYTES:
            continue
        if batch and size + message.blob.size_bytes > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += message.blob.size_bytes
    if batch:
        yield batch


@dataclass(slots=True)
class _Room:
    """Characters still to be given out."""

    left: int

    def take(self, text: str) -> bool:
        self.left -= len(text)
        return self.left >= 0


def _content(raw: bytes) -> dict[str, Any]:
    parsed = parse_message(raw)
    summary = parsed.summary
    headers: dict[str, list[str]] = {}
    room = _Room(MAX_HEADER_CHARS)
    for name, value in parsed.headers:
        if room.take(name) and room.take(value):
            headers.setdefault(name.lower(), []).append(value)
    return {
        "to": addresses(summary.to[:MAX_ADDRESSES]),
        "cc": addresses(summary.cc[:MAX_ADDRESSES]),
        "replyTo": addresses(summary.reply_to[:MAX_ADDRESSES]),
        "attachments": [attachment(each) for each in parsed.attachments[:MAX_ATTACHMENTS]],
        "headers": headers,
        "text": {
            "plain": parsed.text_plain[:MAX_TEXT_CHARS],
            "html": parsed.text_html[:MAX_TEXT_CHARS],
            "hasMore": max(len(parsed.text_plain), len(parsed.text_html)) > MAX_TEXT_CHARS,
        },
    }


def _without_content(has_more: bool) -> dict[str, Any]:
    text = {"plain": "", "html": "", "hasMore": has_more}
    return {"to": [], "cc": [], "replyTo": [], "attachments": [], "headers": {}, "text": text}


_NO_CONTENT: Final = _without_content(has_more=False)
_TOO_LARGE: Final = _without_content(has_more=True)
