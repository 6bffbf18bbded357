"""Which raw mail the collector removes while other nodes write, and the clock of the place jumps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from store_mail import Store, arrival, new_store, open_database

from harness import stores
from mailmill.app import housekeeping
from mailmill.errors import StoreError
from mailmill.model import Backlog
from mailmill.store import local_segments, message_counts, messages
from mailmill.store.blobs import ORPHAN_SECONDS, BlobStore
from mailmill.store.local_segments import LocalSegments
from mailmill.store.messages import StoredContent, WorkPlan
from mailmill.store.object_client import ObjectClient, ObjectFacts
from mailmill.store.object_segments import ObjectSegments
from mailmill.store.segments import Segments
from servers.s3 import S3

NO_WORK = WorkPlan((), Backlog.PROCESS)


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[Store]:
    async with open_database(data_dir) as database:
        yield await new_store(database)


@pytest.fixture(params=["folder", "bucket"])
def server(request: pytest.FixtureRequest) -> S3 | None:
    """Apart from `nodes`: a server is not started while a loop runs."""
    return None if request.param == "folder" else request.getfixturevalue("s3")


@pytest.fixture
async def nodes(server: S3 | None, data_dir: Path) -> AsyncIterator[tuple[BlobStore, BlobStore]]:
    """Two nodes with one place for raw mail: who collects, and who writes."""
    bucket = "" if server is None else await server.new_bucket()

    def place() -> Segments:
        return LocalSegments(data_dir / "blobs") if server is None else ObjectSegments(server.location(bucket))

    both = BlobStore(place()), BlobStore(place())
    yield both
    for each in both:
        await each.close()


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """From then on the clock of every place is so far ahead of what was written before, as after a sleep."""
    ahead = 0.0

    def set_ahead(seconds: float) -> None:
        nonlocal ahead
        ahead = seconds

    file_system_now, head = local_segments._file_system_now, ObjectClient.head

    async def head_later(client: ObjectClient, key: str) -> ObjectFacts:
        found = await head(client, key)
        return replace(found, modified_at=found.modified_at + ahead)

    monkeypatch.setattr(local_segments, "_file_system_now", lambda folder: file_system_now(folder) + ahead)
    monkeypatch.setattr(ObjectClient, "head", head_later)
    return set_ahead


async def receive(store: Store, blobs: BlobStore, uid: int, content: str) -> None:
    [ref] = await blobs.put_batch([content.encode()])
    await store.apply([replace(arrival(uid, content), content=StoredContent(ref))], work=NO_WORK)


async def read(store: Store, blobs: BlobStore, message_id: int) -> bytes | None:
    async with store.database.read() as connection:
        found = await messages.get_message(connection, message_id)
    try:
        return await blobs.get(found.blob)
    except StoreError:
        return None


async def test_mail_that_came_since_the_names_were_read_stays_when_the_clock_jumps(
    store: Store, nodes: tuple[BlobStore, BlobStore], jump: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    collecting, writing = nodes
    await receive(store, writing, 1, "old mail")
    read_names = message_counts.referenced_segments

    async def names_then_mail_then_a_jump(connection: AsyncConnection) -> set[str]:
        names = await read_names(connection)
        await receive(store, writing, 2, "new mail")
        jump(ORPHAN_SECONDS + 3600)
        return names

    monkeypatch.setattr(message_counts, "referenced_segments", names_then_mail_then_a_jump)
    await housekeeping.collect(store.database, collecting)
    assert [await read(store, collecting, number) for number in (1, 2)] == [b"old mail", b"new mail"]
    # Nor did it collect nothing: what nobody has named for a day goes.
    monkeypatch.undo()
    await writing.put_batch([b"nobody names this"])
    async with store.database.read() as connection:
        assert await stores.collected(collecting, await read_names(connection), -5) == 1
