"""What accounts keep and for how long, on both databases; blobs that nobody needs; accounts deleted for good."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text, update
from store_mail import NOW, Store, arrival, content, new_store, open_database

from mailmill.app import housekeeping, removal
from mailmill.errors import ConflictError, CursorAheadError, NotFoundError
from mailmill.model import Backlog, EventName, MailboxRef, Uid
from mailmill.store import (
    account_removal,
    accounts,
    blob_references,
    event_log,
    messages,
    requests,
    retention,
    sequencer,
)
from mailmill.store.account_removal import Removal
from mailmill.store.blobs import BlobRef, BlobStore
from mailmill.store.database import Database
from mailmill.store.event_log import NewEvent
from mailmill.store.messages import Arrival, Cursor, MailboxRow, StoredContent, SyncBatch, WorkPlan
from mailmill.store.request_rows import NewRequest, Place, RequestKind, Upload
from mailmill.store.retention import Retention
from mailmill.store.tables import account, blob, delivery, event, message, metadata, place, result, work
from mailmill.uid_set import UidSet

DAY = 86_400.0
NO_WORK = WorkPlan((), Backlog.PROCESS)
KEEPS_LITTLE = Retention(10 * DAY, 20 * DAY, 30 * DAY)


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    async with open_database(data_dir, database_url) as opened:
        yield opened


@pytest.fixture
async def store(database: Database) -> Store:
    return await new_store(database, "Archive")


@pytest.fixture
async def blobs(data_dir: Path) -> AsyncIterator[BlobStore]:
    opened = BlobStore(data_dir / "blobs")
    yield opened
    await opened.close()


async def second_account(store: Store, name: str = "other") -> Store:
    async with store.database.write() as connection:
        row = await accounts.ensure_account(
            connection, name=name, email="", backlog=Backlog.PROCESS, credential_mark="", now=NOW
        )
        await messages.apply_mailbox_list(connection, row.id, [MailboxRef("INBOX", "/")], NOW)
    return Store(store.database, row)


async def put(blobs: BlobStore, *contents: str) -> list[Arrival]:
    """Arrivals whose raw bytes are really there, in one segment."""
    refs = await blobs.put_batch([content.encode() for content in contents])
    return [
        replace(arrival(uid, content), content=StoredContent(ref, subject=content))
        for uid, (content, ref) in enumerate(zip(contents, refs, strict=True), 1)
    ]


async def write(database: Database, *statements: Any) -> None:
    async with database.write() as connection:
        for statement in statements:
            await connection.execute(statement)


async def count(database: Database, table: Any, *where: Any) -> int:
    async with database.read() as connection:
        found: int = (await connection.execute(select(func.count()).select_from(table).where(*where))).scalar_one()
    return found


def finished(message_id: int, processor: str, version: int, at: float) -> Any:
    return insert(result).values(
        message_id=message_id, processor=processor, version=version, value="{}", attempts=1, seconds=0, finished_at=at
    )


async def due(store: Store, kept: Retention, now: float, limit: int = 100) -> retention.Due:
    async with store.database.read() as connection:
        return await retention.due(connection, store.account.id, kept, now, None, limit)


# -- what is past its time --------------------------------------------------------------------------------------------


async def test_ages_count_from_when_things_came_here(store: Store) -> None:
    await store.apply([arrival(1, "old", internal_date=1.0), arrival(2, "later")], work=NO_WORK)
    await write(
        store.database,
        update(message).where(message.c.id == 2).values(stored_at=NOW + 5 * DAY),
        finished(1, "threat", 1, NOW + DAY),
        finished(2, "threat", 1, NOW + 9 * DAY),
    )
    assert await due(store, KEEPS_LITTLE, NOW + 10 * DAY) == retention.Due((), (), (), None)
    assert (await due(store, KEEPS_LITTLE, NOW + 11 * DAY)).raw == (1,)
    assert (await due(store, KEEPS_LITTLE, NOW + 22 * DAY)).results == (1,)
    assert sorted((await due(store, KEEPS_LITTLE, NOW + 99 * DAY)).results) == [1, 2]
    # Nothing is past its time where it is kept for good.
    assert await due(store, Retention(), NOW + 9999 * DAY) == retention.Due((), (), (), None)


async def test_pages_go_through_all_messages_once(store: Store) -> None:
    same_date = [arrival(uid, f"m{uid}", internal_date=float(uid // 3)) for uid in range(1, 12)]
    await store.apply(same_date, work=NO_WORK)
    seen: list[int] = []
    after: retention.Mark | None = None
    pages = 0
    while True:
        async with store.database.read() as connection:
            page = await retention.due(connection, store.account.id, KEEPS_LITTLE, NOW + 11 * DAY, after, 4)
        seen += page.raw
        pages += 1
        if page.next is None:
            break
        after = page.next
    assert sorted(seen) == list(range(1, 12))
    assert pages == 3


async def test_raw_mail_that_work_needs_is_kept(store: Store) -> None:
    await store.apply([arrival(1, "waits"), arrival(2, "failed"), arrival(3, "done")])
    await write(
        store.database,
        work.delete().where(work.c.message_id == 3),
        update(work).where(work.c.message_id == 2).values(state="failed"),
    )
    now = NOW + 99 * DAY
    assert (await due(store, KEEPS_LITTLE, now)).raw == (3,)
    async with store.database.write() as connection:
        # Judged anew: work that came since the look keeps its message.
        assert await retention.expire_raw(connection, [1, 2, 3], KEEPS_LITTLE, now) == 1
        assert await retention.expire_raw(connection, [1, 2, 3], KEEPS_LITTLE, now) == 0


async def test_an_expired_message_stays_in_its_places(store: Store, blobs: BlobStore) -> None:
    await store.apply(await put(blobs, "one", "two"), work=NO_WORK)
    async with store.database.write() as connection:
        assert await retention.expire_raw(connection, [1], KEEPS_LITTLE, NOW + 11 * DAY) == 1
    async with store.database.read() as connection:
        row = await messages.get_message(connection, 1)
        assert (row.raw_expired_at, row.has_raw, row.subject) == (NOW + 11 * DAY, False, "one")
        assert [each.message.id for each in (await messages.list_messages(connection)).messages] == [2, 1]
        assert (await messages.get_message(connection, 2)).has_raw
    # It comes again, with its bytes, into another mailbox: known, and nothing of it is kept again.
    outcome = await store.apply(await put(blobs, "one"), path="Archive", work=NO_WORK)
    assert (outcome.new, outcome.updated) == (0, 1)
    async with store.database.read() as connection:
        assert not (await messages.get_message(connection, 1)).has_raw


async def test_messages_deleted_long_ago_go_with_all_that_hangs_on_them(store: Store) -> None:
    await store.apply([arrival(1, "gone"), arrival(2, "there again"), arrival(3, "there")])
    await store.apply(expunged=[1])
    await write(
        store.database,
        finished(1, "threat", 1, NOW),
        update(message).where(message.c.id.in_([1, 2])).values(deleted_at=NOW),
    )
    now = NOW + 31 * DAY
    found = await due(store, KEEPS_LITTLE, now)
    assert sorted(found.deleted) == [1, 2]
    assert 1 not in {*found.raw, *found.results}
    async with store.database.write() as connection:
        # The second has a place again: a pass is about to revive it.
        assert await retention.purge_deleted(connection, [1, 2, 3], KEEPS_LITTLE, now) == 1
    async with store.database.read() as connection:
        with pytest.raises(NotFoundError):
            await messages.get_message(connection, 1)
    for table in (place, work, result):
        assert await count(store.database, table, table.c.message_id == 1) == 0
        assert table is result or await count(store.database, table, table.c.message_id == 3) > 0


async def test_the_configuration_says_what_is_kept(store: Store) -> None:
    other = await second_account(store)
    async with store.database.write() as connection:
        await retention.set_retention(connection, {store.account.id: KEEPS_LITTLE, other.account.id: Retention()})
    async with store.database.read() as connection:
        assert await retention.limited_accounts(connection) == {store.account.id: KEEPS_LITTLE}
    async with store.database.write() as connection:
        await retention.set_retention(connection, {store.account.id: Retention()})
    async with store.database.read() as connection:
        assert await retention.limited_accounts(connection) == {}


async def test_housekeeping_lets_go_of_what_is_due(
    store: Store, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PIECE", 2)
    arrivals = await put(blobs, *(f"m{number}" for number in range(5)))
    await store.apply(arrivals, work=NO_WORK)
    await write(store.database, *(finished(message_id, "threat", 1, NOW) for message_id in range(1, 6)))
    async with store.database.write() as connection:
        await retention.set_retention(connection, {store.account.id: KEEPS_LITTLE})
    await housekeeping.expire(store.database)
    assert await count(store.database, result) == 0
    assert await count(store.database, message, message.c.raw_expired_at.is_(None)) == 0
    await housekeeping.collect(store.database, blobs, older_than_seconds=0)
    assert await count(store.database, blob) == 0
    assert arrivals[0].content is not None
    assert blobs.segments_folder is not None
    assert not await asyncio.to_thread((blobs.segments_folder / arrivals[0].content.blob.segment).exists)


# -- blobs ------------------------------------------------------------------------------------------------------------


async def forgotten(database: Database, touched_before: float = NOW + 1) -> int:
    async with database.read() as connection:
        found = await blob_references.unneeded(connection, touched_before)
    async with database.write() as connection:
        return await blob_references.forget(connection, found, touched_before)


async def test_a_shared_blob_stays_until_nobody_needs_it(store: Store) -> None:
    other = await second_account(store)
    await store.apply([arrival(1, "shared"), arrival(2, "own")], work=NO_WORK)
    await other.apply([arrival(1, "shared")], work=NO_WORK)
    async with store.database.write() as connection:
        await retention.expire_raw(connection, [1, 2], KEEPS_LITTLE, NOW + 11 * DAY)
    assert await forgotten(store.database) == 1
    assert await count(store.database, blob) == 1
    async with store.database.read() as connection:
        assert not (await messages.get_message(connection, 1)).has_raw  # theirs, not ours to read
        assert (await messages.get_message(connection, 3)).has_raw
    async with store.database.write() as connection:
        await retention.expire_raw(connection, [3], KEEPS_LITTLE, NOW + 11 * DAY)
    assert await forgotten(store.database) == 1


async def test_young_blobs_and_awaited_uploads_are_kept(store: Store) -> None:
    digest = hashlib.sha256(b"draft").digest()
    asked = NewRequest("default", store.account.id, RequestKind.APPEND, target_path="Archive", upload=Upload(digest))
    async with store.database.write() as connection:
        await requests.keep_blob(connection, BlobRef(digest, "ab/1-1.seg", 0, 5), NOW)
        row = await requests.add(connection, asked, NOW)
    assert await forgotten(store.database, NOW - 1) == 0
    assert await forgotten(store.database) == 0
    async with store.database.write() as connection:
        await requests.finish(connection, row, NOW)
    assert await forgotten(store.database) == 1


async def test_nothing_is_collected_under_a_hold(store: Store, blobs: BlobStore) -> None:
    await store.apply(await put(blobs, "one"), work=NO_WORK)
    await write(store.database, message.delete())
    async with store.database.write() as connection:
        await blob_references.hold(connection, 600)
    await housekeeping.collect(store.database, blobs, older_than_seconds=0)
    assert await count(store.database, blob) == 1
    await write(store.database, blob.delete())  # as if it had been forgotten just before the hold
    await housekeeping.collect(store.database, blobs, older_than_seconds=0)
    assert blobs.segments_folder is not None
    assert await asyncio.to_thread(lambda: len(list(blobs.segments_folder.glob("*/*.seg")))) == 1  # type: ignore[union-attr]
    async with store.database.write() as connection:
        await connection.execute(text("UPDATE setting SET value = '0' WHERE name = 'blobs_held_until'"))
    await housekeeping.collect(store.database, blobs, older_than_seconds=0)
    assert await asyncio.to_thread(lambda: len(list(blobs.segments_folder.glob("*/*.seg")))) == 0  # type: ignore[union-attr]


async def orphaned(store: Store) -> list[bytes]:
    """A blob that no message needs, found by a look; what is to follow races with another account's arrival."""
    await store.apply([arrival(1, "same")], work=NO_WORK)
    await write(store.database, message.delete())
    async with store.database.read() as connection:
        found = await blob_references.unneeded(connection, NOW + 1)
    assert len(found) == 1
    return found


async def arrive(store: Store, row: MailboxRow, written: asyncio.Event, may_commit: asyncio.Event) -> None:
    ref = replace(content("same").blob, segment="ab/2-2.seg")
    batch = SyncBatch(row, 7, [replace(arrival(1, "same"), content=StoredContent(ref))], (), UidSet(), Cursor(7, 2))
    async with store.database.write() as connection:
        await messages.apply_batch(connection, batch, NO_WORK, NOW + 5)
        written.set()
        await may_commit.wait()


async def forget(store: Store, found: list[bytes], written: asyncio.Event, may_commit: asyncio.Event) -> int:
    async with store.database.write() as connection:
        gone = await blob_references.forget(connection, found, NOW + 1)
        written.set()
        await may_commit.wait()
    return gone


async def the_arrival_has_its_bytes(store: Store) -> str:
    """The segment of the one blob there is."""
    async with store.database.read() as connection:
        [message_id] = (await connection.execute(select(message.c.id))).scalars()
        held = await messages.get_message(connection, message_id)
    assert held.has_raw
    return held.blob.segment


async def test_bytes_that_arrive_while_their_blob_is_judged_keep_it(store: Store) -> None:
    found, other = await orphaned(store), await second_account(store)
    row = await other.mailbox()
    written, may_commit, at_once = asyncio.Event(), asyncio.Event(), asyncio.Event()
    at_once.set()
    arriving = asyncio.create_task(arrive(other, row, written, may_commit))
    await written.wait()
    forgetting = asyncio.create_task(forget(store, found, asyncio.Event(), at_once))
    if not store.database.alone:  # several write at once: it passes over the row that the arrival holds
        assert await forgetting == 0
    may_commit.set()
    await arriving
    assert await forgetting == 0
    assert await the_arrival_has_its_bytes(store) == "ab/0-0.seg"


async def test_bytes_that_arrive_while_their_blob_is_forgotten_are_named_anew(store: Store) -> None:
    found, other = await orphaned(store), await second_account(store)
    row = await other.mailbox()
    written, may_commit, at_once = asyncio.Event(), asyncio.Event(), asyncio.Event()
    at_once.set()
    forgetting = asyncio.create_task(forget(store, found, written, may_commit))
    await written.wait()
    arriving = asyncio.create_task(arrive(other, row, asyncio.Event(), at_once))
    may_commit.set()
    assert await forgetting == 1
    await arriving
    # With the segment that was just written: the old one may be gone.
    assert await the_arrival_has_its_bytes(store) == "ab/2-2.seg"


# -- accounts ---------------------------------------------------------------------------------------------------------


async def rows_per_table(database: Database) -> dict[str, int]:
    return {name: await count(database, table) for name, table in metadata.tables.items()}


async def filled(store: Store) -> None:
    """Something of the account in every table that holds what is an account's own."""
    own = content(f"own of {store.account.name}", from_address="anna@farm.example")
    await store.apply([arrival(1, "shared"), replace(arrival(2, ""), content=own)])
    await store.apply(parked=[(Uid(9), "too large", NOW)])
    async with store.database.read() as connection:
        ids = (await connection.execute(select(message.c.id).where(message.c.account_id == store.account.id))).scalars()
        first = min(ids)
        events = (await connection.execute(select(event.c.id).where(event.c.account_id == store.account.id))).scalars()
        told = list(events)
    asked = NewRequest("default", store.account.id, RequestKind.FLAGS, first, Place("INBOX", 7, Uid(1)))
    async with store.database.write() as connection:
        await connection.execute(finished(first, "threat", 1, NOW))
        await requests.add(connection, asked, NOW)
        for event_id in told:
            await connection.execute(
                insert(delivery).values(
                    tenant_id="default", destination="hook", event_id=event_id, state="pending", run_at=1, created_at=1
                )
            )


async def mark(store: Store) -> Removal:
    async with store.database.write() as connection:
        await accounts.pause_missing(connection, {"other"}, NOW)
        return await account_removal.mark(connection, store.account.name, NOW)


async def test_an_account_in_use_is_not_deleted(store: Store) -> None:
    with pytest.raises(ConflictError) as refused:
        async with store.database.write() as connection:
            await account_removal.mark(connection, "me", NOW)
    assert "[accounts.me]" in refused.value.hint
    with pytest.raises(NotFoundError):
        async with store.database.write() as connection:
            await account_removal.mark(connection, "nobody", NOW)


async def test_all_that_is_its_own_goes_and_nothing_that_is_shared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_removal, "EVENT_WINDOW", 3)
    other = await second_account(store)
    await filled(other)
    with_other = await rows_per_table(store.database)
    # What was its own before it was filled goes too: its row, its mailboxes, what was told of it.
    events = await count(store.database, event, event.c.account_id == store.account.id)
    own = {"account": 1, "mailbox": 2, "event": events - 1}  # accountDeleted is told
    await filled(store)
    assert {name for name, rows in (await rows_per_table(store.database)).items() if rows > with_other[name]} == {
        "blob", "message", "place", "parked", "lane", "work", "result", "event", "delivery", "request",
        "sender",
    }  # fmt: skip

    marked = await mark(store)
    assert await removal.finish_removal(store.database, marked.account_id) == 2

    after = await rows_per_table(store.database)
    expected = {name: with_other[name] - own.get(name, 0) for name in with_other}
    expected["blob"] += 1  # its own content, until it is collected
    expected["setting"] = after["setting"]  # places in the log, and the like
    assert after == expected
    assert await forgotten(store.database) == 1
    async with store.database.read() as connection:
        assert [row.name for row in await accounts.list_accounts(connection)] == ["other"]
        shared = await messages.list_messages(connection, account_id=other.account.id)
        assert len(shared.messages) == 2
        assert all(line.message.has_raw for line in shared.messages)


async def test_a_marked_account_is_gone_for_everybody(store: Store) -> None:
    await filled(store)
    head = await store.head()
    marked = await mark(store)
    async with store.database.read() as connection:
        assert await accounts.list_accounts(connection) == []
        assert (await messages.list_messages(connection)).messages == ()
        assert await account_removal.removals(connection) == [Removal(marked.account_id, "me", NOW)]
        assert await account_removal.messages_left(connection, marked.account_id) == 2
    if store.database.alone:
        told = await store.events(head)
        assert told == [("accountDeleted", None, None, {"account": "me", "email": "me@example.org"})]
    # Its name is free: an account that is configured anew begins from nothing.
    again = await second_account(store, "me")
    assert again.account.id != marked.account_id
    with pytest.raises(ConflictError):
        await mark_unpaused(again)


async def mark_unpaused(store: Store) -> None:
    async with store.database.write() as connection:
        await account_removal.mark(connection, store.account.name, NOW)


@pytest.mark.parametrize("pieces", range(4))
async def test_a_deletion_that_was_cut_goes_on(store: Store, blobs: BlobStore, pieces: int) -> None:
    await filled(store)
    marked = await mark(store)
    steps = (
        lambda connection: account_removal.remove_messages(connection, marked.account_id, 1),
        lambda connection: account_removal.remove_messages(connection, marked.account_id, 1),
        lambda connection: account_removal.remove_requests(connection, marked.account_id),
        lambda connection: account_removal.remove_events(connection, marked.account_id, 0, 1),
    )
    for step in steps[:pieces]:
        async with store.database.write() as connection:
            await step(connection)
    with pytest.raises(RuntimeError):
        async with store.database.write() as connection:
            await steps[pieces](connection)
            raise RuntimeError("killed")
    await housekeeping.one_round(store.database, blobs)
    for table in (account, message, place, work, result, delivery):
        assert await count(store.database, table) == 0, table.name
    assert await count(store.database, event) == 1
    async with store.database.read() as connection:
        assert await account_removal.removals(connection) == []


async def test_no_position_of_a_removed_event_is_given_again(store: Store) -> None:
    """Its events were the newest; who has read them misses nothing that comes later."""

    async def append(account_id: int | None) -> None:
        async with store.database.write() as connection:
            await event_log.append(
                connection, [NewEvent("default", EventName.CONNECT_ERROR, NOW, account_id=account_id)] * 3
            )
        async with store.database.write() as connection:
            await sequencer.number(connection)

    marked = await mark(store)
    await append(marked.account_id)
    stood_at = await store.head()
    async with store.database.write() as connection:
        assert await account_removal.remove_events(connection, marked.account_id) is not None
    async with store.database.read() as connection:
        assert await event_log.head(connection) < stood_at
        assert await event_log.read_after(connection, stood_at, 10) == []
        with pytest.raises(CursorAheadError):
            await event_log.read_after(connection, stood_at + 1, 10)
    await append(None)
    async with store.database.read() as connection:
        assert [row.position for row in await event_log.read_after(connection, stood_at, 10)] == [
            stood_at + number for number in (1, 2, 3)
        ]


async def test_the_row_stays_while_something_hangs_on_it(store: Store) -> None:
    await filled(store)
    marked = await mark(store)
    async with store.database.write() as connection:
        assert not await account_removal.remove_rest(connection, marked.account_id)
    assert await count(store.database, account) == 1


async def test_one_node_keeps_house_at_a_time(store: Store) -> None:
    async with store.database.write() as connection:
        assert await housekeeping.take_turn(connection)
    async with store.database.write() as connection:
        assert not await housekeeping.take_turn(connection)
        assert await housekeeping.take_turn(connection, period_seconds=-2)


def test_the_event_is_one_of_the_contract() -> None:
    assert EventName("accountDeleted") is EventName.ACCOUNT_DELETED
