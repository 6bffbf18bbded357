"""Bytes that arrive again while their first copy is well, lost or out of reach. Segments go behind the store's back, as
disks take them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select
from store_mail import NOW, Store, arrival, new_store

from harness import stores
from mailmill.app import housekeeping, removal
from mailmill.errors import StorageUnavailableError, StoreError
from mailmill.model import Backlog, MailboxRef
from mailmill.store import account_removal, accounts, messages, requests
from mailmill.store.blob_marker import prove_place
from mailmill.store.blob_places import lost_places, name_blobs
from mailmill.store.blobs import BlobRef, BlobStore
from mailmill.store.database import Database
from mailmill.store.local_segments import LocalSegments
from mailmill.store.messages import Arrival, BatchOutcome, Cursor, StoredContent, SyncBatch, WorkPlan
from mailmill.store.segments import MARKER_NAME
from mailmill.store.tables import blob
from mailmill.uid_set import UidSet

pytestmark = pytest.mark.both_databases

DAY = 86_400.0
NO_WORK = WorkPlan((), Backlog.PROCESS)


@pytest.fixture
async def database(data_dir: Path) -> AsyncIterator[Database]:
    opened = await stores.open_database(data_dir)
    yield opened
    await opened.close()


@pytest.fixture
async def blobs(data_dir: Path, database: Database) -> AsyncIterator[BlobStore]:
    opened = BlobStore(data_dir / "blobs", proof=partial(prove_place, database))
    yield opened
    await opened.close()


@pytest.fixture
async def store(database: Database) -> Store:
    return await new_store(database, "Archive")


async def another_account(database: Database) -> Store:
    async with database.write() as connection:
        row = await accounts.ensure_account(
            connection, name="other", email="", backlog=Backlog.PROCESS, credential_mark="", now=NOW
        )
        await messages.apply_mailbox_list(connection, row.id, [MailboxRef("INBOX", "/")], NOW)
    return Store(database, row)


async def put(blobs: BlobStore, *contents: str, first_uid: int = 1) -> list[Arrival]:
    refs = await blobs.put_batch([content.encode() for content in contents])
    return [
        replace(arrival(uid, content), content=StoredContent(ref, subject=content))
        for uid, (content, ref) in enumerate(zip(contents, refs, strict=True), first_uid)
    ]


def refs_of(arrivals: Iterable[Arrival]) -> list[BlobRef]:
    return [each.content.blob for each in arrivals if each.content is not None]


async def store_mail(
    store: Store, blobs: BlobStore, *contents: str, path: str = "INBOX", now: float = NOW
) -> BatchOutcome:
    """As a download does it: on the disk, a look at what is known, one transaction."""
    row = await store.mailbox(path)
    arrivals = await put(blobs, *contents, first_uid=max(1, row.cursor.uid_next))
    cursor = Cursor(7, max(1, row.cursor.uid_next) + len(contents))
    batch = SyncBatch(
        row, 7, arrivals, (), UidSet(), cursor, lost=await lost_places(store.database, blobs, refs_of(arrivals))
    )
    async with store.database.write() as connection:
        return await messages.apply_batch(connection, batch, NO_WORK, now)


async def place_of(database: Database, content: str) -> BlobRef:
    digest = hashlib.sha256(content.encode()).digest()
    async with database.read() as connection:
        row = (await connection.execute(select(blob).where(blob.c.sha256 == digest))).one()
    return BlobRef(bytes(row.sha256), row.segment, row.offset_bytes, row.size_bytes)


async def read(database: Database, blobs: BlobStore, content: str) -> str:
    return (await blobs.get(await place_of(database, content))).decode()


async def segment_files(blobs: BlobStore) -> list[Path]:
    folder = blobs.segments_folder
    assert folder is not None
    return await asyncio.to_thread(lambda: sorted(folder.glob("*/*.seg")))


async def lose(blobs: BlobStore) -> None:
    """All that is stored so far."""
    for path in await segment_files(blobs):
        await asyncio.to_thread(path.unlink)


async def a_day_later(database: Database, blobs: BlobStore) -> int:
    """How many segments are left when the orphans have gone."""
    for path in await segment_files(blobs):
        await asyncio.to_thread(os.utime, path, (1, 1))
    await housekeeping.collect(database, blobs)
    return len(await segment_files(blobs))


async def test_an_account_that_is_added_again_reads_what_it_downloads_again(
    database: Database, store: Store, blobs: BlobStore
) -> None:
    contents = [f"mail {number}" for number in range(3)]
    await store_mail(store, blobs, *contents)
    await lose(blobs)
    async with database.write() as connection:
        await accounts.pause_missing(connection, set(), NOW)
        gone = await account_removal.mark(connection, "me", NOW)
    await removal.finish_removal(database, gone.account_id)
    assert (await store_mail(await new_store(database), blobs, *contents)).new == 3
    assert await a_day_later(database, blobs) == 1
    assert [await read(database, blobs, content) for content in contents] == contents


async def test_a_letter_that_another_account_holds_a_damaged_copy_of(
    database: Database, store: Store, blobs: BlobStore
) -> None:
    await store_mail(store, blobs, "well", "newsletter", "also well")
    damaged, place = (await segment_files(blobs))[0], await place_of(database, "newsletter")
    before = await place_of(database, "also well")

    def damage() -> None:
        with damaged.open("r+b") as file:
            file.seek(place.offset_bytes)
            file.write(b"N")

    await asyncio.to_thread(damage)
    await store_mail(await another_account(database), blobs, "also well", "newsletter", "new", now=NOW + DAY)
    touched = await store.rows("SELECT created_at FROM blob ORDER BY created_at")
    assert touched == [(NOW,), *[(NOW + DAY,)] * 3]
    assert await a_day_later(database, blobs) == 2
    for content in ("well", "newsletter", "also well", "new"):
        assert await read(database, blobs, content) == content
    assert await place_of(database, "also well") == before


async def test_a_copy_in_another_mailbox_mends_the_message(database: Database, store: Store, blobs: BlobStore) -> None:
    await store_mail(store, blobs, "one", "two")
    await lose(blobs)
    assert await store_mail(store, blobs, "two", "two", path="Archive") == BatchOutcome(0, 2, 0, ())
    assert await a_day_later(database, blobs) == 1
    assert await read(database, blobs, "two") == "two"


async def test_a_sound_place_stays_and_is_touched(database: Database, store: Store, blobs: BlobStore) -> None:
    await store_mail(store, blobs, "one")
    before = await place_of(database, "one")
    await store_mail(await another_account(database), blobs, "one", now=NOW + DAY)
    assert await place_of(database, "one") == before
    assert await store.rows("SELECT created_at FROM blob") == [(NOW + DAY,)]
    assert await a_day_later(database, blobs) == 1
    assert await read(database, blobs, "one") == "one"


async def test_an_upload_of_bytes_that_are_lost(database: Database, store: Store, blobs: BlobStore) -> None:
    await store_mail(store, blobs, "one", "two")
    before = await place_of(database, "two")
    [damaged] = await segment_files(blobs)
    await asyncio.to_thread(damaged.write_bytes, b"ONEtwo")
    for content in ("one", "two"):
        [ref] = await blobs.put_batch([content.encode()])
        lost = await lost_places(database, blobs, [ref])
        async with database.write() as connection:
            await requests.keep_blob(connection, ref, NOW + DAY, lost)
        assert await read(database, blobs, content) == content
    assert await place_of(database, "two") == before
    assert await store.rows("SELECT created_at FROM blob") == [(NOW + DAY,)] * 2


async def test_what_changed_since_the_old_place_was_read(database: Database, store: Store, blobs: BlobStore) -> None:
    await store_mail(store, blobs, "one", "two")
    await lose(blobs)
    fresh = refs_of(await put(blobs, "one", "two"))
    lost = await lost_places(database, blobs, fresh)
    assert {ref.sha256 for ref in lost} == {ref.sha256 for ref in fresh}
    [first, _], [_, second] = fresh, refs_of(await put(blobs, "one", "two"))
    async with database.write() as connection:
        # Another writer was here, and the collector.
        await name_blobs(connection, [second], lost, NOW)
        await connection.execute(blob.delete().where(blob.c.sha256 == first.sha256))
    async with database.write() as connection:
        await name_blobs(connection, fresh, lost, NOW)
    assert [await place_of(database, content) for content in ("one", "two")] == [first, second]


async def test_without_its_mount_nothing_is_lost(
    database: Database, store: Store, blobs: BlobStore, data_dir: Path
) -> None:
    await store_mail(store, blobs, "one")
    before = await place_of(database, "one")
    mounted, elsewhere = data_dir / "blobs", data_dir / "not mounted"
    await asyncio.to_thread(mounted.rename, elsewhere)
    await asyncio.to_thread(lambda: [(mounted / "segments" / f"{n:02x}").mkdir(parents=True) for n in range(256)])
    with pytest.raises(StoreError, match="does not hold the raw messages"):
        await store_mail(await another_account(database), blobs, "one")
    assert not await asyncio.to_thread((mounted / MARKER_NAME).exists)
    assert await place_of(database, "one") == before


async def test_what_cannot_be_reached_is_not_lost(database: Database, store: Store, data_dir: Path) -> None:
    class Away(LocalSegments):
        async def read(self, refs: object) -> dict[bytes, bytes]:
            raise StorageUnavailableError("no answer")

    await store_mail(store, BlobStore(data_dir / "blobs"), "one")
    before = await place_of(database, "one")
    with pytest.raises(StorageUnavailableError):
        await store_mail(store, BlobStore(Away(data_dir / "blobs")), "one", path="Archive")
    assert await place_of(database, "one") == before


async def test_of_many_the_lost_ones_are_found(blobs: BlobStore) -> None:
    refs = [(await blobs.put_batch([b"%d" % number * 3_000_000]))[0] for number in range(9)]
    sound = [ref for number, ref in enumerate(refs) if number not in (2, 7)]
    for ref in set(refs).difference(sound):
        folder = blobs.segments_folder
        assert folder is not None
        await asyncio.to_thread((folder / ref.segment).unlink)
    assert await blobs.lost(sound) == []
    assert set(await blobs.lost(refs)) == set(refs).difference(sound)
