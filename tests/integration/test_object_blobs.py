"""Raw messages in an object store that is cut off, silent, gone, closed to us, or wrong: a server of its own behind a
proxy. What must hold: nothing half stored is ever named, no message fails for what is the store's trouble, and all goes
on by itself.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest
from sqlalchemy import select

from harness import stores
from harness.fake_imap import FakeImap
from harness.on_fake_imap import account_on, raw
from harness.patience import eventually
from mailmill.alerts.rendering import render
from mailmill.errors import ConfigurationError, StorageRefusedError, StorageUnavailableError, StoreError
from mailmill.model import Uid
from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.store import object_segments, queue
from mailmill.store.blobs import BlobRef, BlobStore
from mailmill.store.database import Database
from mailmill.store.object_client import ObjectClient
from mailmill.store.object_location import ObjectLimits, ObjectLocation
from mailmill.store.object_segments import ObjectSegments
from mailmill.store.tables import result, work
from mailmill.store.verify_reads import StoredContent, find_faults
from servers.proxy import Proxy
from servers.s3 import IMPATIENT, S3, SECRET_ACCESS_KEY
from servers.s3_answers import S3Answers
from unit.work_rows import add_account, add_mail, new_work

# Enough for a slow machine; what is not meant to time out has all of it.
PATIENT = ObjectLimits(first_pause_seconds=0.01, longest_pause_seconds=0.1)

BIG = b"line of text\r\n" * 800_000


@pytest.fixture
async def proxy(s3: S3) -> AsyncIterator[Proxy]:
    async with Proxy(s3.host, s3.port) as running:
        yield running


@pytest.fixture
async def bucket(s3: S3) -> str:
    return await s3.new_bucket()


Opened = Callable[..., BlobStore]


@pytest.fixture
def through(s3: S3, proxy: Proxy, bucket: str) -> Opened:
    """``through(limits)``: the bucket, by way of the proxy."""

    def opened(limits: ObjectLimits = PATIENT) -> BlobStore:
        return BlobStore(ObjectSegments(s3.location(bucket, port=proxy.port), limits))

    return opened


def nothing_secret(error: BaseException) -> None:
    said = "".join(traceback.format_exception(error)) + repr(error) + getattr(error, "hint", "")
    assert SECRET_ACCESS_KEY not in said
    assert "obstore.exceptions" not in said


# -- one request ------------------------------------------------------------------------------------------------------


async def test_a_put_whose_answer_is_lost_is_one_object(s3: S3, proxy: Proxy, bucket: str, through: Opened) -> None:
    store = through()
    await store.put_batch([b"warm"])
    before = await s3.keys(bucket)
    proxy.cut_soon(1)
    [ref] = await store.put_batch([b"content"])
    assert proxy.bytes_down > 1
    assert [key for key in await s3.keys(bucket) if key not in before] == [f"some/prefix/segments/{ref.segment}"]
    assert await store.get(ref) == b"content"
    assert store.trouble is None


async def test_an_empty_segment_whose_answer_is_lost(proxy: Proxy, through: Opened) -> None:
    store = through()
    proxy.cut_soon(1)
    [ref] = await store.put_batch([b""])
    assert await store.get(ref) == b""


async def test_what_another_wrote_under_our_name_is_not_taken_for_ours(
    s3: S3, bucket: str, through: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = through()
    monkeypatch.setattr(object_segments, "new_segment_name", lambda: "ab/taken.seg")
    await s3.overwrite(bucket, "some/prefix/segments/ab/taken.seg", b"c0ntent")
    with pytest.raises(StoreError, match="other bytes"):
        await store.put_batch([b"content"])
    assert await s3.read(bucket, "some/prefix/segments/ab/taken.seg") == b"c0ntent"


async def test_a_read_that_is_cut_is_read_again(proxy: Proxy, through: Opened) -> None:
    store = through()
    refs = await store.put_batch([b"first" * 10_000, b"second"])
    proxy.cut_soon(20_000)
    assert await store.get_many(refs) == {refs[0].sha256: b"first" * 10_000, refs[1].sha256: b"second"}


async def test_an_upload_in_parts_that_is_cut_shows_nothing(
    s3: S3, proxy: Proxy, bucket: str, through: Opened, tmp_path: Path
) -> None:
    spooled = tmp_path / "big"
    await asyncio.to_thread(spooled.write_bytes, BIG)
    proxy.refusing = True
    with pytest.raises(StorageUnavailableError):
        await through(IMPATIENT).put_batch([spooled, b"small"])
    assert await s3.keys(bucket) == []
    assert await asyncio.to_thread(spooled.read_bytes) == BIG
    proxy.refusing = False
    store = through()
    refs = await store.put_batch([spooled, b"small"])
    assert await store.get(refs[0]) == BIG
    assert not await asyncio.to_thread(spooled.exists)


async def test_an_upload_that_came_short_is_no_success(s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = object_segments._streamed

    async def short(parts: Sequence[bytes | Path]) -> AsyncIterator[bytes]:
        async for piece in real(parts):
            yield piece[:-1]

    monkeypatch.setattr(object_segments, "_streamed", short)
    with pytest.raises(StoreError, match="not stored whole"):
        await BlobStore(ObjectSegments(s3.location(bucket))).put_batch([BIG])


async def test_a_store_that_falls_silent_is_not_waited_for(
    s3: S3, proxy: Proxy, bucket: str, through: Opened, tmp_path: Path
) -> None:
    store = through(IMPATIENT)
    [ref] = await store.put_batch([b"content"])
    spooled = tmp_path / "spooled"
    await asyncio.to_thread(spooled.write_bytes, b"spooled")
    proxy.stall()
    asked: list[Awaitable[Any]] = [
        store.put_batch([b"more"]),
        store.put_batch([spooled]),
        store.get(ref),
        store.orphan_limit(),
        store.collect_orphans({ref.segment}, 0.0),
    ]
    for error in await asyncio.gather(*asked, return_exceptions=True):
        assert type(error) is StorageUnavailableError
        assert f"s3://{bucket}/some/prefix" in error.message
        assert error.hint
        nothing_secret(error)
    assert type(store.trouble) is StorageUnavailableError
    assert await asyncio.to_thread(spooled.exists)
    proxy.resume()
    assert await store.get(ref) == b"content"
    assert store.trouble is None
    await store.put_batch([spooled])


async def test_nobody_listens(s3: S3, proxy: Proxy, through: Opened) -> None:
    store = through(IMPATIENT)
    [ref] = await store.put_batch([b"content"])
    proxy.refusing = True
    proxy.cut()
    for asked in (
        store.put_batch([b"more"]),
        store.get(ref),
        store.orphan_limit(),
        store.collect_orphans(set(), 0.0),
    ):
        with pytest.raises(StorageUnavailableError, match=f"at http://{s3.host}:{proxy.port}") as error:
            await asked
        assert type(error.value) is StorageUnavailableError
    proxy.refusing = False
    assert await store.get(ref) == b"content"


async def test_a_server_that_was_restarted_is_used_again(start_s3: Callable[[], Awaitable[S3]]) -> None:
    server = await start_s3()
    bucket = await server.new_bucket()
    store = BlobStore(ObjectSegments(server.location(bucket), IMPATIENT))
    [ref] = await store.put_batch([b"content"])
    kept = await server.read(bucket, f"some/prefix/segments/{ref.segment}")
    await asyncio.to_thread(server.stop)
    with pytest.raises(StorageUnavailableError):
        await store.get(ref)
    await asyncio.to_thread(server.start)
    # It has forgotten all: a missing bucket is no missing message.
    with pytest.raises(StorageRefusedError, match="no bucket"):
        await store.get(ref)
    await server.make_bucket(bucket)
    await server.overwrite(bucket, f"some/prefix/segments/{ref.segment}", kept)
    assert await store.get(ref) == b"content"
    assert await store.get((await store.put_batch([b"more"]))[0]) == b"more"


async def test_a_missing_bucket_is_named(s3: S3) -> None:
    store = BlobStore(ObjectSegments(s3.location("nowhere"), PATIENT))
    somewhere = BlobRef(b"\0" * 32, "ab/x.seg", 0, 1)
    for asked in (
        store.put_batch([b"content"]),
        store.put_batch([BIG]),
        store.get(somewhere),
        store.orphan_limit(),
    ):
        with pytest.raises(StorageRefusedError, match="'nowhere'") as error:
            await asked
        assert "service.blob_url" in error.value.hint


async def test_denied_credentials_are_told_from_an_outage(start_s3: Callable[[], Awaitable[S3]]) -> None:
    server = await start_s3()
    bucket = await server.new_bucket()
    store = BlobStore(ObjectSegments(server.location(bucket), IMPATIENT))
    [ref] = await store.put_batch([b"content"])
    await server.deny()
    for asked in (store.put_batch([b"more"]), store.get(ref), store.orphan_limit()):
        with pytest.raises(StorageRefusedError, match="refuses the credentials") as error:
            await asked
        assert "blob_secret_access_key" in error.value.hint
        assert "403" in error.value.message
        nothing_secret(error.value)
    await server.allow()
    assert await store.get(ref) == b"content"


async def test_an_object_that_alone_is_denied_is_its_own_trouble(
    s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = ObjectSegments(s3.location(bucket))
    await segments.write_marker("ours")
    store = BlobStore(segments)
    [ref] = await store.put_batch([b"content"])

    async def denied(_self: ObjectClient, key: str, *_: int) -> bytes:
        raise object_segments.DeniedObjectError(f"no {key}")

    monkeypatch.setattr(ObjectClient, "get_range", denied)
    with pytest.raises(StoreError, match="does not give out") as error:
        await store.get(ref)
    assert not isinstance(error.value, StorageUnavailableError)


async def test_requests_are_bounded_in_number(through: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    store = through(replace(PATIENT, concurrency=3))
    refs = [(await store.put_batch([b"content %d" % number]))[0] for number in range(20)]
    under_way, together = 0, []
    real = obstore.get_range_async

    async def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal under_way
        under_way += 1
        together.append(under_way)
        try:
            return await real(*arguments, **named)
        finally:
            under_way -= 1

    monkeypatch.setattr(obstore, "get_range_async", counted)
    assert len(await store.get_many(refs)) == 20
    assert (len(together), max(together)) == (20, 3)


async def test_a_reader_that_gives_up_gives_back_its_place(proxy: Proxy, through: Opened) -> None:
    store = through(replace(PATIENT, concurrency=1))
    [ref] = await store.put_batch([b"content"])
    proxy.stall()
    reading = asyncio.create_task(store.get(ref))
    await proxy.until(lambda: proxy.open_connections > 0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    proxy.resume()
    assert await store.get(ref) == b"content"


async def test_what_cannot_be_set_up_is_a_matter_of_configuration(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    location = replace(s3.location("mail"), endpoint="not a url")
    with pytest.raises((ConfigurationError, StorageUnavailableError)) as error:
        await BlobStore(ObjectSegments(location, IMPATIENT)).put_batch([b"content"])
    nothing_secret(error.value)


async def test_credentials_come_from_the_environment(s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = s3.location(bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given.secret_access_key)
    monkeypatch.setenv("AWS_REGION", given.region)
    location = ObjectLocation(given.kind, bucket, endpoint=given.endpoint)
    assert SECRET_ACCESS_KEY not in repr(given)
    store = BlobStore(ObjectSegments(location))
    assert await store.get((await store.put_batch([b"content"]))[0]) == b"content"


async def test_more_orphans_than_one_answer_lists(s3: S3, bucket: str) -> None:
    store = BlobStore(ObjectSegments(s3.location(bucket)))
    names = [f"some/prefix/segments/{number % 256:02x}/{number}.seg" for number in range(1200)]
    for start in range(0, len(names), 50):
        await asyncio.gather(*(s3.overwrite(bucket, name, b"x") for name in names[start : start + 50]))
    kept = {name.removeprefix("some/prefix/segments/") for name in names[::100]}
    assert await stores.collected(store, kept, -5) == 1200 - len(kept)
    left = [key.removeprefix("some/prefix/segments/") for key in await s3.keys(bucket) if key.endswith(".seg")]
    assert set(left) == kept


# -- answers that contradict each other ------------------------------------------------------------------------------


@pytest.fixture
async def answers(s3: S3) -> AsyncIterator[S3Answers]:
    async with S3Answers(s3.host, s3.port) as running:
        yield running


@pytest.fixture
def answered(s3: S3, answers: S3Answers, bucket: str) -> BlobStore:
    limits = replace(PATIENT, longest_pause_seconds=0.01)
    return BlobStore(ObjectSegments(s3.location(bucket, port=answers.port), limits))


@pytest.mark.parametrize("content", [b"content", b""])
async def test_a_put_that_met_another_is_put_again(
    s3: S3, answers: S3Answers, bucket: str, answered: BlobStore, content: bytes
) -> None:
    answers.give(r"PUT .*\.seg", 409, "ConditionalRequestConflict", times=2)
    [ref] = await answered.put_batch([content])
    assert len(answers.given) == 2
    assert await s3.read(bucket, f"some/prefix/segments/{ref.segment}") == content


async def test_a_conflict_without_end_is_the_stores_trouble(answers: S3Answers, answered: BlobStore) -> None:
    answers.give(r"PUT .*\.seg", 409, "ConditionalRequestConflict", times=None)
    with pytest.raises(StorageUnavailableError, match="is not there") as error:
        await answered.put_batch([b"content"])
    assert type(error.value) is StorageUnavailableError
    assert 1 < len(answers.given) < 10


@pytest.mark.parametrize(
    ("request_", "code"),
    [(r"PUT .*\.seg(\?.*)?$", "NoSuchKey"), (r"PUT .*partNumber=", "NoSuchUpload"), (r"HEAD .*\.seg", "NoSuchKey")],
)
async def test_a_404_is_no_missing_bucket(answers: S3Answers, answered: BlobStore, request_: str, code: str) -> None:
    """A bucket that is there when it is looked at."""
    content = BIG if code == "NoSuchUpload" or request_.startswith("HEAD") else b"content"
    answers.give(request_, 404, code, times=None)
    with pytest.raises(StorageUnavailableError) as error:
        await answered.put_batch([content])
    assert type(error.value) is StorageUnavailableError
    assert answers.given


@pytest.mark.parametrize("request_", [r"PUT .*\.seg", r"HEAD .*\.seg"])
async def test_a_404_that_passes_is_waited_out(answers: S3Answers, answered: BlobStore, request_: str) -> None:
    content = BIG if request_.startswith("HEAD") else b"content"
    answers.give(request_, 404, "NoSuchKey")
    [ref] = await answered.put_batch([content])
    assert await answered.get(ref) == content
    assert len(answers.given) == 1


ASKED: dict[str, Callable[[BlobStore, BlobRef], Awaitable[Any]]] = {
    r"GET .*\.seg": lambda store, ref: store.get(ref),
    r"PUT .*partNumber=": lambda store, _: store.put_batch([BIG]),
    r"HEAD .*\.seg": lambda store, _: store.put_batch([BIG]),
    r"PUT .*mailmill-clock": lambda store, _: store.orphan_limit(),
}


@pytest.mark.parametrize("request_", list(ASKED))
async def test_a_conflict_where_nothing_was_conditional(answers: S3Answers, answered: BlobStore, request_: str) -> None:
    """Says nothing of what is there."""
    [ref] = await answered.put_batch([b"content"])
    answers.give(request_, 409, "OperationAborted", times=None)
    with pytest.raises(StorageUnavailableError, match="409"):
        await ASKED[request_](answered, ref)


# -- who depends on it ------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
async def test_new_mail_waits_on_its_server_and_is_stored_when_the_store_is_back(
    proxy: Proxy, through: Opened, data_dir: Path
) -> None:
    async with FakeImap() as server:
        server.inbox.add(raw(1))
        async with account_on(server, data_dir, blobs=through(IMPATIENT)) as account:
            await account.once()
            proxy.refusing = True
            proxy.cut()
            server.inbox.add(raw(2))
            report = await account.sync.sync_now()
            assert [type(error) for error in report.errors] == [StorageUnavailableError]
            await account.wait_for(lambda rows: any(row.event == "connectError" for row in rows))
            # It is tried again at once, and says so in between.
            await eventually(
                lambda: account.scalar("SELECT state_reason FROM account"),
                lambda reason: "cannot be reached" in str(reason),
            )
            assert list(await account.held()) == [1]
            proxy.refusing = False
            await account.wait_for(lambda rows: sum(row.event == "messageNew" for row in rows) == 2)
            assert await account.contents() == {1: raw(1), 2: raw(2)}


@asynccontextmanager
async def worked(database: Database, blobs: BlobStore) -> AsyncIterator[Worker]:
    async def subject(message: Any, _context: Any) -> str:
        text: str = message.summary.subject
        return text

    worker = Worker(
        database,
        blobs,
        [Processor("a", 1, subject, "async")],
        "w",
        settings=WorkerSettings(heartbeat_seconds=0.05, poll_seconds=0.05),
    )
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await task


@pytest.mark.both_databases
async def test_work_waits_for_the_store_and_no_attempt_is_counted(
    proxy: Proxy, through: Opened, data_dir: Path
) -> None:
    database = await stores.open_database(data_dir)
    blobs = through(IMPATIENT)
    async with database.write() as connection:
        await add_account(connection)
        ids = await add_mail(connection, blobs, [raw(number) for number in range(5)])
        await queue.enqueue(connection, [new_work(message_id, "a") for message_id in ids], 1.0)
    proxy.refusing = True
    proxy.cut()

    async def rows() -> list[tuple[str, int, int, int]]:
        async with database.read() as connection:
            found = await connection.execute(select(work.c.state, work.c.attempt, work.c.crashes, work.c.fence))
            return [tuple(row) for row in found]  # type: ignore[misc]

    try:
        async with worked(database, blobs) as worker:
            # Claimed and given back more than once: a deadline never ends while the store is away.
            await eventually(rows, lambda found: all(fence >= 2 and state == "pending" for state, _, _, fence in found))
            assert {(attempt, crashes) for _, attempt, crashes, _ in await rows()} == {(0, 0)}
            assert worker.stats.unrecorded == 0
            proxy.refusing = False
            async with asyncio.timeout(60):
                await worker.settle()
            assert await rows() == []
        async with database.read() as connection:
            found = dict((await connection.execute(select(result.c.message_id, result.c.value))).all())
        assert found == {message_id: f'"{number}"' for number, message_id in enumerate(ids)}
    finally:
        await database.close()


@pytest.mark.both_databases
async def test_nothing_is_told_without_the_text_of_its_message(proxy: Proxy, through: Opened, data_dir: Path) -> None:
    async with FakeImap() as server:
        server.inbox.add(raw(1))
        async with account_on(server, data_dir, blobs=through(IMPATIENT)) as account:
            await account.once()
            rows = [row for row in await account.events() if row.event == "messageNew"]
            proxy.refusing = True
            proxy.cut()
            with pytest.raises(StorageUnavailableError):
                await render(account.database, account.blobs, rows)
            proxy.refusing = False
            [envelope] = await render(account.database, account.blobs, rows)
            assert envelope["data"]["text"]["plain"].strip() == "1"


async def test_verify_tells_damage_from_an_outage(s3: S3, proxy: Proxy, bucket: str, through: Opened) -> None:
    blobs = through(IMPATIENT)
    contents = [b"well", b"damaged", os.urandom(9_000_000)]
    refs = await blobs.put_batch(contents)
    held = [
        StoredContent(Uid(uid), uid, ref.sha256, ref.size_bytes, ref.segment, ref.offset_bytes, ref.size_bytes)
        for uid, ref in enumerate(refs, 1)
    ]
    assert await find_faults(blobs, held) == {}
    key = f"some/prefix/segments/{refs[0].segment}"
    whole = await s3.read(bucket, key)
    await s3.overwrite(bucket, key, whole.replace(b"damaged", b"d4maged")[:-1])
    faults = await find_faults(blobs, held)
    assert list(faults) == [2, 3]
    assert "damaged" in faults[Uid(2)]
    assert "ends before" in faults[Uid(3)] or "damaged" in faults[Uid(3)]
    await s3.remove(bucket, key)
    assert {"gone" in fault for fault in (await find_faults(blobs, held)).values()} == {True}
    proxy.refusing = True
    proxy.cut()
    with pytest.raises(StorageUnavailableError):
        await find_faults(blobs, held)
