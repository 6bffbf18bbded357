"""What a sync pass writes: one batch of one mailbox in one transaction (design §4.6).

Law: places, flags, tombstones, messages, work rows, events and the cursor of a batch commit together; a batch that is
applied again changes nothing. Three steps keep that plain: read what is stored about everything the batch names
(``batch_state``), decide what must change (``batch_changes``, pure), write it, one statement per table.

What was there before the account was added is history: events that tell of its *arrival* are marked historical,
according to the backlog policy. What happens to it afterwards (a flag, an expunge) is news like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Integer, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import StoreError
from mailmill.store import dialect, event_log, queue, sender_counts
from mailmill.store.batch_changes import BatchChanges, BlobRow, DisplacedRow, NewMessageRow, NewPlaceRow, decide
from mailmill.store.batch_state import StoredState, read_state
from mailmill.store.blob_places import name_blobs
from mailmill.store.blobs import BlobRef
from mailmill.store.bulk_insert import BulkInsert
from mailmill.store.dialect import MAX_ROWS
from mailmill.store.event_log import NewEvent
from mailmill.store.mailboxes import Cursor, cursor_values, park, parked_uids
from mailmill.store.message_places import tombstone, uid_conditions
from mailmill.store.row_locks import hold_messages
from mailmill.store.sync_batch import BatchOutcome, SyncBatch, WorkPlan
from mailmill.store.tables import blob, id_block, mailbox, message, parked, place
from mailmill.uid_set import UidSet

_TAKE_IDS = (
    update(id_block)
    .where(id_block.c.name == "message")
    .values(next_id=id_block.c.next_id + bindparam("count", type_=id_block.c.next_id.type))
    .returning(id_block.c.next_id)
)
_NEXT_IDS = select(func.nextval("message_id_seq")).select_from(
    func.generate_series(1, bindparam("count", type_=Integer))
)
# Known content keeps its first place, unless that is lost (`blob_places`); where these bytes lie besides is slack. The
# touch keeps that row from being forgotten by a transaction that does not see our message yet (`blob_references`).
_INSERT_BLOBS = BulkInsert[BlobRow](blob, BlobRow._fields, touch="created_at")
_INSERT_MESSAGES = BulkInsert[NewMessageRow](message, NewMessageRow._fields)
_INSERT_PLACES = BulkInsert[NewPlaceRow](place, NewPlaceRow._fields)
_INSERT_DISPLACED = BulkInsert[DisplacedRow](place, DisplacedRow._fields, keep_existing=True)
_UPDATE_PLACE = update(place).where(
    place.c.mailbox_id == bindparam("b_mailbox_id"),
    place.c.uid_validity == bindparam("b_uid_validity"),
    place.c.uid == bindparam("b_uid"),
)
_UPDATE_MAILBOX = update(mailbox).where(mailbox.c.id == bindparam("b_id"))


async def apply_batch(connection: AsyncConnection, batch: SyncBatch, work: WorkPlan, now: float) -> BatchOutcome:
    """Everything of ``batch`` within the caller's transaction. Applied again it changes nothing.

    The cursor moves back only on purpose: where the stored one is not the one the batch was planned on, its marks never
    become lower. (On purpose means that a server was restored from a backup; a mark above the server's would hide the
    changes it has yet to number.)

    Raises StaleBatchError where the mailbox is in another generation, or deleted, or a known message is not there.
    """
    stored = await read_state(connection, batch)
    new_ids = await _take_ids(connection, stored.new_digests)
    changes = decide(stored, batch, work, now, new_ids)
    await _write(connection, changes, batch.lost, now)
    await sender_counts.record(connection, stored.origin.account_id, changes.seen)
    gone = await _expunge(connection, stored, batch, now)
    await event_log.append(connection, changes.events + gone)
    cursor = _forward(stored.cursor, batch)
    if stored.has_parked:
        await _unpark(connection, stored.mailbox_id, cursor)
    await park(connection, replace(batch.mailbox, cursor=cursor), batch.parked)
    await connection.execute(
        _UPDATE_MAILBOX,
        [{"b_id": stored.mailbox_id, **cursor_values(cursor), "synced_at": now}],
    )
    new = tuple(row.id for row in changes.messages)
    return BatchOutcome(len(new), changes.updated, len(gone) + changes.lost, new)


def _forward(stored: Cursor, batch: SyncBatch) -> Cursor:
    cursor = batch.cursor
    if stored == batch.mailbox.cursor or stored.uid_validity != cursor.uid_validity:
        return cursor
    mod_seqs = (stored.highest_mod_seq, cursor.highest_mod_seq)
    uncovered = cursor.uncovered
    if cursor.uid_next < stored.uid_next:
        # Above its own mark the batch knows nothing.
        uncovered = uncovered | (stored.uncovered & UidSet.span(max(cursor.uid_next, 1), stored.uid_next))
    return replace(
        cursor,
        uid_next=max(stored.uid_next, cursor.uid_next),
        # None forgets the mark: that costs a look at all flags, and never a change.
        highest_mod_seq=None if None in mod_seqs else max(mark for mark in mod_seqs if mark is not None),
        uncovered=uncovered,
    )


async def _take_ids(connection: AsyncConnection, count: int) -> Sequence[int]:
    """``count`` message ids, ascending, that nobody else gets.

    On SQLite they go back with a transaction that is rolled back, so none is wasted. On PostgreSQL a row that all
    batches of all nodes update would have each wait for the commit of the one before: a sequence gives them.
    """
    if not count:
        return ()
    if dialect.is_postgresql(connection):
        return (await connection.execute(_NEXT_IDS, {"count": count})).scalars().all()
    above: int | None = await connection.scalar(_TAKE_IDS, {"count": count})
    if above is None:
        raise StoreError("the table id_block has no row for messages", hint="restore the latest backup")
    return range(above - count, above)


async def _write(connection: AsyncConnection, changes: BatchChanges, lost: Sequence[BlobRef], now: float) -> None:
    if lost:
        # All in one: rows that two batches share are locked in one order.
        await name_blobs(connection, [BlobRef(*row[:-1]) for row in changes.blobs], lost, now)
    else:
        await _INSERT_BLOBS(connection, sorted(changes.blobs))
    await _INSERT_MESSAGES(connection, changes.messages)
    await _INSERT_PLACES(connection, changes.places)
    await _INSERT_DISPLACED(connection, changes.displaced)
    for rows in (changes.revived_places, changes.replaced_places, changes.given_again, changes.flags):
        if rows:
            await connection.execute(_UPDATE_PLACE, rows)
    await hold_messages(connection, {*changes.revived_messages, *(row["b_id"] for row in changes.identities)})
    if changes.identities:
        await connection.execute(update(message).where(message.c.id == bindparam("b_id")), changes.identities)
    revived = sorted(changes.revived_messages)
    for start in range(0, len(revived), MAX_ROWS):
        some = revived[start : start + MAX_ROWS]
        await connection.execute(update(message).where(message.c.id.in_(some)).values(deleted_at=None))
    await queue.enqueue(connection, changes.work, now)


async def _expunge(connection: AsyncConnection, stored: StoredState, batch: SyncBatch, now: float) -> list[NewEvent]:
    here = (place.c.mailbox_id == stored.mailbox_id) & (place.c.uid_validity == batch.uid_validity)
    gone: list[NewEvent] = []
    for some in uid_conditions(batch.expunged):
        gone += await tombstone(connection, stored.origin, here & some, now)
    return gone


async def _unpark(connection: AsyncConnection, mailbox_id: int, cursor: Cursor) -> None:
    """Forget parked messages that are covered by now: they were stored, or are gone."""
    parked_now = await parked_uids(connection, mailbox_id, cursor.uid_validity)
    covered = [uid for uid in parked_now if uid not in cursor.uncovered]
    for start in range(0, len(covered), MAX_ROWS):
        await connection.execute(
            delete(parked).where(
                parked.c.mailbox_id == mailbox_id,
                parked.c.uid_validity == cursor.uid_validity,
                parked.c.uid.in_(covered[start : start + MAX_ROWS]),
            )
        )
