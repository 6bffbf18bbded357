"""The events that the queue raises about messages: whose the message is and where it lies are looked up here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Float, Integer, and_, bindparam, exists, func, insert, literal_column, or_, select

from mailmill.model import EventName
from mailmill.store import dialect
from mailmill.store.event_log import NewEvent
from mailmill.store.given_rows import GivenRows
from mailmill.store.queue_rows import BACKLOG, MAX_ERROR_CHARACTERS
from mailmill.store.statement import Statement
from mailmill.store.tables import account, event, mailbox, message, place, work

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Column, ColumnElement, Connection, FromClause, Insert, Select

    from mailmill.store.queue_rows import Claim


class Scene(NamedTuple):
    """Whose a message is, and a mailbox it is in now (None where it is in none)."""

    tenant_id: str
    account_id: int
    historical: bool
    path: str | None
    special_use: str | None


def _scenes(
    connection: Connection, given: FromClause, *wanted: ColumnElement[bool], also: Sequence[ColumnElement[Any]] = ()
) -> Select[Any]:
    """By given message (its column ``id``) that is as ``wanted``: the columns of a :class:`Scene` after its id, then
    ``processed_at`` and those of ``also``, which are of ``given``."""
    # Of a sum: of the column itself PostgreSQL may take the minimum by walking the primary key, up to where the message
    # stands, as it does for a table that was filled and not yet analyzed.
    first_place = (
        select(func.min(place.c.mailbox_id + literal_column("0")))
        .where(place.c.message_id == message.c.id, place.c.expunged_at.is_(None))
        .scalar_subquery()
    )
    seen = dialect.found_first(
        connection,
        select(
            message.c.id,
            message.c.account_id,
            message.c.historical,
            message.c.processed_at,
            first_place.label("mailbox_id"),
            *also,
        ).where(message.c.id == given.c.id, *wanted),
        "seen",
    )
    return (
        select(
            seen.c.id,
            account.c.tenant_id,
            seen.c.account_id,
            seen.c.historical,
            mailbox.c.path,
            mailbox.c.special_use,
            seen.c.processed_at,
            *(seen.c[column.key] for column in also if column.key is not None),
        )
        .join(account, account.c.id == seen.c.account_id)
        .outerjoin(mailbox, mailbox.c.id == seen.c.mailbox_id)
    )


def _told_processed(connection: Connection, *, past: bool, once: bool = False) -> Insert:
    """Events of those given messages that have no work left. ``past``: they are history where it was told before;
    ``once``: where it was, nothing is told."""
    done = [~exists().where(work.c.message_id == message.c.id)]
    if once:
        done.append(message.c.processed_at.is_(None))
    told = _scenes(connection, _MESSAGES.table(connection), *done).subquery("scene")
    telling = _telling(told, told.c.processed_at.is_not(None) if past else None)
    return telling.returning(event.c.message_id) if dialect.is_postgresql(connection) else telling


def telling_processed(connection: Connection, given: FromClause) -> Insert:
    """Append ``messageProcessed`` for the messages of ``given`` (``id``), of which the caller knows that they have no
    work left; as history where ``past`` is true there and it was told before. ``at`` is when."""
    told = _scenes(connection, given, also=[given.c.past]).subquery("scene")
    return _telling(told, and_(told.c.past, told.c.processed_at.is_not(None)))


def _telling(told: FromClause, again: ColumnElement[bool] | None) -> Insert:
    columns: dict[Column[Any], ColumnElement[Any]] = {
        event.c.tenant_id: told.c.tenant_id,
        event.c.event: literal_column(f"'{EventName.MESSAGE_PROCESSED}'"),
        event.c.account_id: told.c.account_id,
        event.c.path: told.c.path,
        event.c.special_use: told.c.special_use,
        event.c.message_id: told.c.id,
        event.c.historical: told.c.historical if again is None else or_(told.c.historical, again),
        event.c.data: literal_column("'{}'"),
        event.c.created_at: bindparam("at", type_=Float),
    }
    # Ids ascend with the messages'.
    return insert(event).from_select(list(columns), select(*columns.values()).order_by(told.c.id))


_MESSAGES: Final = GivenRows("messages", message.c.id)
_SCENES: Final = Statement(lambda connection: _scenes(connection, _MESSAGES.table(connection)))
_PROCESSED: Final = Statement(lambda connection: _told_processed(connection, past=False))
_PROCESSED_PAST: Final = Statement(lambda connection: _told_processed(connection, past=True))
_PROCESSED_ONCE: Final = Statement(lambda connection: _told_processed(connection, past=False, once=True))
_OF_EVENTS: Final = Statement(
    lambda _connection: (
        select(event.c.message_id)
        .where(event.c.id >= bindparam("first", type_=Integer), event.c.id < bindparam("end", type_=Integer))
        .order_by(event.c.id)
    )
)


def scenes(connection: Connection, message_ids: Iterable[int]) -> dict[int, Scene]:
    """Whose the messages are, and a mailbox each is in now."""
    found: dict[int, Scene] = {}
    for some in dialect.chunks(sorted(message_ids)):
        rows = _SCENES.rows(connection, **_MESSAGES.parameters(connection, [(each,) for each in some]))
        for message_id, tenant_id, account_id, historical, path, special_use, _ in rows:
            found[message_id] = Scene(tenant_id, account_id, bool(historical), path, special_use)
    return found


def tell_processed(
    connection: Connection, message_ids: Sequence[int], now: float, *, past: bool = False, once: bool = False
) -> list[int]:
    """Append ``messageProcessed`` for those of these messages that have no work left, in the order of their ids;
    returns these.

    Law: to be called by who has just deleted a row of theirs, or each call would tell it once more. ``past``: where it
    was told before (a reprocessing marked the message so: ``processed_at``) it is told as history. ``once``: there it
    is not told at all.
    """
    statement = _PROCESSED_ONCE if once else _PROCESSED_PAST if past else _PROCESSED
    told: list[int] = []
    for some in dialect.chunks(message_ids):
        parameters = {**_MESSAGES.parameters(connection, [(each,) for each in some]), "at": now}
        if dialect.is_postgresql(connection):
            told += [row[0] for row in statement.rows(connection, **parameters)]
            continue
        # Of nearly all batches all are told, and to be given back as many rows costs as much as to insert them.
        ids = statement.inserted(connection, **parameters)
        if len(ids) == len(some):
            told += some
        else:
            told += [row[0] for row in _OF_EVENTS.rows(connection, first=ids.start, end=ids.stop)]
    return told


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


def failed(scenes: dict[int, Scene], of: Claim, error: str, now: float) -> NewEvent | None:
    data = {"processor": of.processor, "version": of.version, "error": dialect.storable(error[:MAX_ERROR_CHARACTERS])}
    return about(scenes, of.message_id, EventName.MESSAGE_FAILED, now, data, past=is_past(of))
