"""What the database holds about everything a sync batch names, read before anything is decided."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, bindparam, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import StoreError
from mailmill.store.dialect import MAX_ROWS
from mailmill.store.mailboxes import Cursor, StaleBatchError, cursor_of
from mailmill.store.message_places import Origin
from mailmill.store.row_locks import hold_account
from mailmill.store.sync_batch import SyncBatch
from mailmill.store.tables import account, mailbox, message, parked, place


@dataclass(frozen=True, slots=True)
class HeldPlace:
    message_id: int
    flags: str
    expunged: bool


@dataclass(frozen=True, slots=True)
class HeldMessage:
    id: int
    deleted: bool
    email_id: str | None
    x_gm_msgid: str | None


@dataclass(frozen=True, slots=True)
class StoredState:
    """What the database holds about what a batch names. ``outdated``: message id → its living places in earlier
    generations of this mailbox, as ``(uid_validity, uid)``."""

    origin: Origin
    own_address: str
    mailbox_id: int
    shard: int
    cursor: Cursor
    has_parked: bool
    places: dict[int, HeldPlace]
    new_digests: int
    by_digest: dict[bytes, HeldMessage]
    by_id: dict[int, HeldMessage]
    outdated: dict[int, list[tuple[int, int]]]


_HEAD = (
    select(
        mailbox,
        account.c.tenant_id,
        account.c.shard,
        account.c.email,
        exists().where(parked.c.mailbox_id == mailbox.c.id).label("has_parked"),
    )
    .join(account, account.c.id == mailbox.c.account_id)
    .where(mailbox.c.id == bindparam("mailbox_id"))
)
_PLACES = select(place.c.uid, place.c.message_id, place.c.flags, place.c.expunged_at).where(
    place.c.mailbox_id == bindparam("mailbox_id"),
    place.c.uid_validity == bindparam("uid_validity"),
    place.c.uid.in_(bindparam("some", expanding=True)),
)
_MESSAGE = select(message.c.id, message.c.sha256, message.c.deleted_at, message.c.email_id, message.c.x_gm_msgid).where(
    message.c.account_id == bindparam("account_id")
)
_BY_DIGEST = _MESSAGE.where(message.c.sha256.in_(bindparam("some", expanding=True)))
_BY_ID = _MESSAGE.where(message.c.id.in_(bindparam("some", expanding=True)))
_OUTDATED = (
    select(place.c.message_id, place.c.uid_validity, place.c.uid)
    .where(
        place.c.message_id.in_(bindparam("some", expanding=True)),
        place.c.mailbox_id == bindparam("mailbox_id"),
        place.c.uid_validity != bindparam("uid_validity"),
        place.c.expunged_at.is_(None),
    )
    .order_by(place.c.uid_validity.desc(), place.c.uid.desc())
)


async def read_state(connection: AsyncConnection, batch: SyncBatch) -> StoredState:
    await hold_account(connection, batch.mailbox.account_id)
    head = (await connection.execute(_HEAD, {"mailbox_id": batch.mailbox.id})).first()
    _refuse_stale(head, batch)
    assert head is not None
    generation = {"mailbox_id": head.id, "uid_validity": batch.uid_validity}
    uids = {arrival.meta.uid for arrival in batch.arrivals} | {meta.uid for meta in batch.flag_changes}
    places = {
        row.uid: HeldPlace(row.message_id, row.flags, row.expunged_at is not None)
        for row in await _named(connection, _PLACES, uids, generation)
    }
    # Also of UIDs that have a place already: it may be another message's by now.
    digests = {arrival.content.blob.sha256 for arrival in batch.arrivals if arrival.content is not None}
    known = {arrival.known_message_id for arrival in batch.arrivals if arrival.known_message_id is not None}
    own = {"account_id": head.account_id}
    by_digest = {row.sha256: _held(row) for row in await _named(connection, _BY_DIGEST, digests, own)}
    by_id = {row.id: _held(row) for row in await _named(connection, _BY_ID, known, own)}
    if missing := known - by_id.keys():
        raise StaleBatchError(f"there is no message {min(missing)} in this account", mailbox=head.path)
    matched = {held.id for held in by_digest.values()} | by_id.keys()
    outdated: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row in await _named(connection, _OUTDATED, matched, generation):
        outdated[row.message_id].append((row.uid_validity, row.uid))
    return StoredState(
        origin=Origin(head.tenant_id, head.account_id, head.path, head.special_use),
        own_address=head.email,
        mailbox_id=head.id,
        shard=head.shard,
        cursor=cursor_of(head),
        has_parked=bool(head.has_parked),
        places=places,
        new_digests=len(digests - by_digest.keys()),
        by_digest=by_digest,
        by_id=by_id,
        outdated=outdated,
    )


def _refuse_stale(head: Row[Any] | None, batch: SyncBatch) -> None:
    if batch.cursor.uid_validity != batch.uid_validity:
        raise StoreError("a batch and its cursor are of different generations", mailbox=batch.mailbox.path)
    if head is None or head.deleted_at is not None:
        raise StaleBatchError("the mailbox was deleted meanwhile", mailbox=batch.mailbox.path)
    if head.uid_validity not in (0, batch.uid_validity):
        raise StaleBatchError(
            f"the mailbox is in generation {head.uid_validity}, the batch in {batch.uid_validity}", mailbox=head.path
        )


def _held(row: Row[Any]) -> HeldMessage:
    return HeldMessage(row.id, row.deleted_at is not None, row.email_id, row.x_gm_msgid)


async def _named(
    connection: AsyncConnection, statement: Select[Any], some: Iterable[Any], parameters: Mapping[str, Any]
) -> list[Row[Any]]:
    """The rows of ``statement`` for all values of ``some``, a statement's worth at a time."""
    values = list(some)
    rows: list[Row[Any]] = []
    for start in range(0, len(values), MAX_ROWS):
        rows += await connection.execute(statement, {**parameters, "some": values[start : start + MAX_ROWS]})
    return rows
