"""Whose raw messages lie in a place: what is refused before anything is written there or removed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from mailmill.errors import StorageRefusedError, StorageUnavailableError, StoreError
from mailmill.store.blob_marker import prove_place
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.local_segments import LocalSegments
from mailmill.store.object_location import ObjectLocation
from mailmill.store.object_segments import ObjectSegments
from mailmill.store.segments import MARKER_NAME, Segments
from mailmill.store.tables import blob, setting
from servers.proxy import Proxy
from servers.s3 import IMPATIENT, S3
from servers.s3_answers import S3Answers


@pytest.fixture
async def database(data_dir: Path) -> AsyncIterator[Database]:
    opened = await Database.open(f"sqlite+aiosqlite:///{data_dir}/mailmill.db", data_dir=data_dir)
    yield opened
    await opened.close()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Database]:
    """Another store's database."""
    folder = tmp_path / "other"
    opened = await Database.open(f"sqlite+aiosqlite:///{folder}/mailmill.db", data_dir=folder)
    yield opened
    await opened.close()


@pytest.fixture(params=["folder", "bucket"])
def server(request: pytest.FixtureRequest) -> S3 | None:
    """Apart from `place`: a server is not started while a loop runs."""
    return request.getfixturevalue("s3") if request.param == "bucket" else None


@pytest.fixture
async def place(server: S3 | None, tmp_path: Path) -> AsyncIterator[Segments]:
    made = LocalSegments(tmp_path / "mail") if server is None else ObjectSegments(await bucket_of(server))
    yield made
    await made.close()


async def bucket_of(server: S3) -> ObjectLocation:
    return server.location(await server.new_bucket())


async def said(database: Database) -> str | None:
    async with database.read() as connection:
        return await connection.scalar(select(setting.c.value).where(setting.c.name == "blob_place"))


async def put(database: Database, place: Segments, content: bytes) -> None:
    [ref] = await BlobStore(place).put_batch([content])
    async with database.write() as connection:
        await connection.execute(
            insert(blob).values(
                sha256=ref.sha256,
                segment=ref.segment,
                offset_bytes=ref.offset_bytes,
                size_bytes=ref.size_bytes,
                created_at=1.0,
            )
        )


async def test_an_empty_place_becomes_ours_and_stays_so(database: Database, place: Segments) -> None:
    assert await place.read_marker() is None
    await prove_place(database, place)
    text = await place.read_marker()
    assert text
    assert text == await said(database)
    await prove_place(database, place)
    assert await place.read_marker() == text


async def test_another_stores_place_is_refused_and_left_alone(
    database: Database, other: Database, place: Segments
) -> None:
    await prove_place(other, place)
    await put(other, place, b"theirs")
    ours = BlobStore(place, proof=partial(prove_place, database))
    with pytest.raises(StoreError, match="another store") as error:
        await ours.collect_orphans(set(), 4e9)
    assert "delete" in error.value.hint
    with pytest.raises(StoreError, match="another store"):
        await ours.put_batch([b"ours"])
    assert await BlobStore(place).collect_orphans(set(), 4e9) == 1


async def test_a_place_that_lost_what_the_database_names_is_refused(database: Database, tmp_path: Path) -> None:
    mounted = LocalSegments(tmp_path / "mount")
    await prove_place(database, mounted)
    await put(database, mounted, b"content")
    await asyncio.to_thread(shutil.move, tmp_path / "mount", tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="does not hold the raw messages") as error:
        await prove_place(database, mounted)
    assert "mounted" in error.value.hint
    assert not await asyncio.to_thread((tmp_path / "mount").exists)
    # A copy without the text is as good as one with it.
    await asyncio.to_thread(shutil.copytree, tmp_path / "elsewhere" / "segments", tmp_path / "mount" / "segments")
    await prove_place(database, mounted)
    assert await mounted.read_marker() == await said(database)
    await mounted.close()


async def test_an_empty_database_is_at_home_in_a_new_place(database: Database, place: Segments, tmp_path: Path) -> None:
    first = LocalSegments(tmp_path / "first")
    await prove_place(database, first)
    await prove_place(database, place)
    assert await place.read_marker() == await first.read_marker()
    await first.close()


async def test_a_crash_before_the_place_knew_is_completed(database: Database, place: Segments) -> None:
    async with database.write() as connection:
        await connection.execute(insert(setting).values(name="blob_place", value="pending abc"))
    await prove_place(database, place)
    text = await place.read_marker()
    assert text
    assert text.startswith("abc.")
    assert await said(database) == text


async def test_a_crash_before_the_database_knew_is_completed(database: Database, place: Segments) -> None:
    async with database.write() as connection:
        await connection.execute(insert(setting).values(name="blob_place", value="pending abc"))
    await place.write_marker("abc.1")
    await prove_place(database, place)
    assert await said(database) == "abc.1"


# -- nodes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def fleet_database(postgres_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(postgres_url, data_dir=tmp_path / "node")
    yield opened
    await opened.close()


@pytest.fixture
async def folders(tmp_path: Path) -> AsyncIterator[list[LocalSegments]]:
    """What two nodes have that were given no common place."""
    made = [LocalSegments(tmp_path / name) for name in ("a", "b")]
    yield made
    for each in made:
        await each.close()


async def test_of_nodes_that_start_at_once_in_folders_of_their_own_one_does(
    fleet_database: Database, folders: list[LocalSegments], monkeypatch: pytest.MonkeyPatch
) -> None:
    both_look = asyncio.Barrier(len(folders))

    async def read_marker(place: LocalSegments) -> str | None:
        await both_look.wait()
        return await read(place)

    read = LocalSegments.read_marker
    monkeypatch.setattr(LocalSegments, "read_marker", read_marker)
    outcomes = await asyncio.gather(*(prove_place(fleet_database, each) for each in folders), return_exceptions=True)
    assert [outcome for outcome in outcomes if outcome is None] == [None]
    [refused] = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(refused, StoreError)
    assert "another node" in refused.message
    assert "service.blob_url" in refused.hint
    # For ever, not only at that moment.
    again = await asyncio.gather(*(prove_place(fleet_database, each) for each in folders), return_exceptions=True)
    assert [type(outcome) for outcome in again] == [type(outcome) for outcome in outcomes]


async def test_a_node_that_comes_later_with_a_folder_of_its_own_is_refused(
    fleet_database: Database, folders: list[LocalSegments]
) -> None:
    first, second = folders
    await prove_place(fleet_database, first)
    with pytest.raises(StoreError, match="does not hold") as refused:
        await prove_place(fleet_database, second)
    assert await second.read_marker() is None
    text = await first.read_marker()
    assert text
    assert text in refused.value.hint
    # That is how an operator says that it is the place.
    await second.write_marker(text)
    await prove_place(fleet_database, second)


async def test_nodes_of_a_common_place_agree(fleet_database: Database, place: Segments) -> None:
    await asyncio.gather(*(prove_place(fleet_database, place) for _ in range(5)))
    assert await place.read_marker() == await said(fleet_database)


async def test_nodes_that_start_at_once_agree(database: Database, place: Segments) -> None:
    await asyncio.gather(*(prove_place(database, place) for _ in range(5)))
    assert await place.read_marker() == await said(database)


async def test_what_is_written_there_is_written_once(place: Segments) -> None:
    answers = await asyncio.gather(*(place.write_marker(f"text{number}") for number in range(5)))
    assert len(set(answers)) == 1
    assert await place.read_marker() == answers[0]


async def test_a_proof_that_failed_for_an_outage_is_made_again(database: Database, s3: S3) -> None:
    async with Proxy(s3.host, s3.port) as proxy:
        bucket = await s3.new_bucket()
        segments = ObjectSegments(s3.location(bucket, port=proxy.port), IMPATIENT)
        store = BlobStore(segments, proof=partial(prove_place, database))
        proxy.refusing = True
        with pytest.raises(StorageUnavailableError):
            await store.prove()
        with pytest.raises(StorageUnavailableError):
            await store.put_batch([b"content"])
        assert store.trouble is not None
        proxy.refusing = False
        [ref] = await store.put_batch([b"content"])
        assert f"some/prefix/{MARKER_NAME}" in await s3.keys(bucket)
        asked = proxy.connections
        await store.prove()
        assert proxy.connections == asked
        assert await store.get(ref) == b"content"


async def test_of_nodes_whose_first_words_meet_none_is_refused(database: Database, s3: S3) -> None:
    """AWS answers 409 to conditional PUTs that meet, and to both of them if it comes to that."""
    async with S3Answers(s3.host, s3.port) as answers:
        limits = replace(IMPATIENT, request_seconds=60)
        segments = ObjectSegments(s3.location(await s3.new_bucket(), port=answers.port), limits)
        answers.give(f"PUT .*{MARKER_NAME}", 409, "ConditionalRequestConflict", times=3)
        await asyncio.gather(*(prove_place(database, segments) for _ in range(2)))
        assert await segments.read_marker() == await said(database)


async def test_a_conflict_without_end_is_an_outage(database: Database, s3: S3) -> None:
    async with S3Answers(s3.host, s3.port) as answers:
        segments = ObjectSegments(s3.location(await s3.new_bucket(), port=answers.port), IMPATIENT)
        answers.give(f"PUT .*{MARKER_NAME}", 409, "ConditionalRequestConflict", times=None)
        with pytest.raises(StorageUnavailableError) as error:
            await prove_place(database, segments)
        assert type(error.value) is StorageUnavailableError


async def test_an_empty_text_is_anothers(database: Database, s3: S3) -> None:
    bucket = await s3.new_bucket()
    await s3.overwrite(bucket, f"some/prefix/{MARKER_NAME}", b"")
    with pytest.raises(StoreError, match="another store"):
        await prove_place(database, ObjectSegments(s3.location(bucket)))


async def test_a_missing_bucket_is_refused_at_the_proof(database: Database, s3: S3) -> None:
    with pytest.raises(StorageRefusedError, match="no bucket 'nowhere'"):
        await prove_place(database, ObjectSegments(s3.location("nowhere")))
