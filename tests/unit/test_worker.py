"""The worker on a real store: what arrives is run and recorded, whatever processors, children and the store do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import runner_jobs
from sqlalchemy import select, update
from work_rows import add_account, add_mail, add_place, claim, events, new_work

from mailmill.errors import ProcessorError, StorageFullError, StoreError
from mailmill.message_parser import ParsedMessage, parse_message
from mailmill.processing import worker as worker_module
from mailmill.processing.loader import MessageLoader
from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.store import queue
from mailmill.store.blobs import BlobRef, BlobStore
from mailmill.store.database import Database
from mailmill.store.tables import result, work, worker

# Polls so rare that only hints can be what makes a test pass.
PATIENT = WorkerSettings(threads=2, children=1, poll_seconds=3600.0)


class Store:
    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self.database = database
        self.blobs = blobs
        self.next_id = 1

    async def add(self, subjects: Sequence[str], *processors: str, account_id: int = 1) -> list[int]:
        """Mail with these subjects, and work over it for ``processors``; the ids."""
        contents = [f"Subject: {subject}\r\nFrom: a@example.org\r\n\r\nHello.\r\n".encode() for subject in subjects]
        async with self.database.write() as connection:
            ids = await add_mail(connection, self.blobs, contents, first_id=self.next_id, account_id=account_id)
            self.next_id += len(ids)
            rows = [new_work(one, name, account_id=account_id) for one in ids for name in processors]
            await queue.enqueue(connection, rows, 100.0)
        return ids

    async def results(self) -> dict[tuple[int, str], str]:
        async with self.database.read() as connection:
            rows = await connection.execute(select(result.c.message_id, result.c.processor, result.c.value))
            return {(row.message_id, row.processor): row.value for row in rows}

    async def rows(self) -> list[Any]:
        async with self.database.read() as connection:
            return list((await connection.execute(select(work).order_by(work.c.message_id))).all())


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[Store]:
    database = await Database.open(f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}", data_dir=data_dir)
    blobs = BlobStore(data_dir / "mail")
    async with database.write() as connection:
        await add_account(connection)
    yield Store(database, blobs)
    await database.close()
    await blobs.close()


def subject_of(message: ParsedMessage, context: Any) -> str:
    return message.summary.subject


async def subject_of_async(message: ParsedMessage, context: Any) -> str:
    return message.summary.subject


def a_processor(name: str, function: Callable[..., Any] = subject_of_async, kind: Any = None, **more: Any) -> Processor:
    return Processor(
        name, 1, function, kind or ("async" if asyncio.iscoroutinefunction(function) else "thread"), **more
    )


@asynccontextmanager
async def working(
    store: Store, *processors: Processor, settings: WorkerSettings = PATIENT, worker_id: str = "w", **more: Any
) -> AsyncIterator[Worker]:
    made = Worker(store.database, store.blobs, processors, worker_id, settings=settings, **more)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    try:
        yield made
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await task


async def settled(made: Worker) -> None:
    async with asyncio.timeout(60):
        await made.settle()


async def test_work_that_is_there_is_run_by_each_kind(store: Store) -> None:
    ids = await store.add([f"mail {n}" for n in range(25)], "a", "t", "c")
    kinds = [a_processor("a"), a_processor("t", subject_of), a_processor("c", subject_of, "process")]
    async with working(store, *kinds) as made:
        await settled(made)
    assert await store.results() == {(n, name): f'"mail {n - 1}"' for n in ids for name in "atc"}
    assert await store.rows() == []
    async with store.database.read() as connection:
        assert sorted(await events(connection)) == [("messageProcessed", n) for n in ids]


async def test_an_outcome_that_cannot_be_written_fails_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await store.add([f"mail {n}" for n in range(5)], "a")
    finish = queue.finish

    async def choosy(connection: Any, worker_id: str, finished: Any, failed: Any, now: float) -> Any:
        if any(one.claim.message_id == ids[2] for one in finished):
            raise ValueError("this value fits into no column")
        return await finish(connection, worker_id, finished, failed, now)

    monkeypatch.setattr(queue, "finish", choosy)
    async with working(store, a_processor("a")) as made:
        await settled(made)
    assert sorted(number for number, _ in await store.results()) == [*ids[:2], *ids[3:]]
    [row] = await store.rows()
    assert (row.message_id, row.state) == (ids[2], "failed")
    assert "this value fits into no column" in row.last_error
    async with store.database.read() as connection:
        assert ("messageFailed", ids[2]) in await events(connection)


async def test_a_full_disk_fails_no_outcome(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await store.add(["one", "two"], "a")
    finish, refusals = queue.finish, 4

    async def full(*arguments: Any) -> Any:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise StorageFullError("the disk is full")
        return await finish(*arguments)

    monkeypatch.setattr(worker_module, "_MAX_BACK_OFF_SECONDS", 0.01)
    monkeypatch.setattr(queue, "finish", full)
    async with working(store, a_processor("a")) as made:
        await settled(made)
    assert sorted(number for number, _ in await store.results()) == ids
    assert refusals == 0


async def test_a_hint_starts_work_at_once(store: Store) -> None:
    async with working(store, a_processor("a")) as made:
        await settled(made)
        with store.database.wake.events.subscribe() as seen:
            await store.add(["new"], "a")
            assert await seen.wait(60)
    assert await store.results() == {(1, "a"): '"new"'}


async def test_behind_the_hint_stands_a_poll(store: Store) -> None:
    settings = WorkerSettings(threads=1, poll_seconds=0.01)
    await store.add(["unhinted"], "a")
    async with store.database.write() as connection:
        await connection.execute(update(work).values(state="failed"))
    async with working(store, a_processor("a"), settings=settings) as made:
        await settled(made)
        with store.database.wake.events.subscribe() as seen:
            async with store.database.write() as connection:
                await connection.execute(update(work).values(state="pending"))  # an update gives no hint
            assert await seen.wait(60)
    assert await store.results() == {(1, "a"): '"unhinted"'}


async def test_the_context(store: Store) -> None:
    contexts = []

    async def look(message: Any, context: Any) -> None:
        contexts.append(context)

    (message_id,) = await store.add(["x"], "a")
    async with store.database.write() as connection:
        await add_place(connection, message_id, "INBOX")
        await add_place(connection, message_id, "Archive")
    async with working(store, a_processor("a", look), authserv_id={"account1": "mx.example.org"}.get) as made:
        await settled(made)
    (context,) = contexts
    assert (context.account, context.account_email, context.message_id) == ("account1", "me1@example.org", 1)
    assert (context.paths, context.authserv_id) == (("Archive", "INBOX"), "mx.example.org")
    assert (context.attempt, context.historical) == (1, False)


async def test_a_failure_waits_for_its_time_and_is_tried_again(store: Store) -> None:
    attempts = []

    async def fails_once(message: Any, context: Any) -> str:
        attempts.append(context.attempt)
        if context.attempt == 1:
            raise ValueError("not yet")
        return "ok"

    now = 1000.0
    await store.add(["x"], "a")
    async with working(store, a_processor("a", fails_once), clock=lambda: now) as made:
        await settled(made)
        (row,) = await store.rows()
        assert (row.state, row.attempt, row.last_error) == ("waiting", 1, "ValueError: not yet")
        assert 1000.0 <= row.run_at <= 1005.0
    now = row.run_at
    async with working(store, a_processor("a", fails_once), clock=lambda: now) as made:
        await settled(made)
    assert attempts == [1, 2]
    assert await store.results() == {(1, "a"): '"ok"'}


async def test_a_failure_for_good_is_told_and_the_others_go_on(store: Store) -> None:
    async def picky(message: ParsedMessage, context: Any) -> str:
        if message.summary.subject == "bad":
            raise ProcessorError("never", permanent=True)
        return "ok"

    await store.add(["good", "bad", "fine"], "a")
    async with working(store, a_processor("a", picky)) as made:
        await settled(made)
    assert set(await store.results()) == {(1, "a"), (3, "a")}
    (row,) = await store.rows()
    assert (row.message_id, row.state, row.last_error) == (2, "failed", "never")
    async with store.database.read() as connection:
        assert ("messageFailed", 2) in await events(connection)


async def test_a_slow_processor_holds_back_no_other(store: Store) -> None:
    go_on = asyncio.Event()

    async def slow(message: Any, context: Any) -> str:
        await go_on.wait()
        return "slow"

    await store.add([f"{n}" for n in range(30)], "slow", "quick")
    async with working(store, a_processor("slow", slow), a_processor("quick")) as made:
        with store.database.wake.events.subscribe() as _:
            async with asyncio.timeout(60):
                while len(await store.results()) < 30:
                    await asyncio.sleep(0)
        assert {name for _, name in await store.results()} == {"quick"}
        assert made.stats.in_hand["slow"] == 8
        go_on.set()
        await settled(made)
    assert len(await store.results()) == 60


async def test_no_more_run_at_once_than_stated(store: Store) -> None:
    running, most = 0, 0

    async def counts(message: Any, context: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10):
            await asyncio.sleep(0)
        running -= 1

    await store.add([f"{n}" for n in range(40)], "a")
    async with working(store, a_processor("a", counts, concurrency=3)) as made:
        await settled(made)
    assert most == 3


async def test_several_processors_parse_a_message_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def counting(raw: bytes) -> ParsedMessage:
        parsed.append(raw)
        return parse_message(raw)

    monkeypatch.setattr(worker_module, "MessageLoader", lambda *a, **k: MessageLoader(*a, parse=counting, **k))
    await store.add([f"{n}" for n in range(20)], "a", "b", "c")
    async with working(store, a_processor("a"), a_processor("b", subject_of), a_processor("c")) as made:
        await settled(made)
    assert len(parsed) == 20


async def test_big_messages_are_parsed_once_and_read_in_turns(store: Store) -> None:
    big = [f"Subject: {n}\r\n\r\n".encode() + b"line of text\r\n" * 30_000 for n in range(4)]
    async with store.database.write() as connection:
        ids = await add_mail(connection, store.blobs, big)
    loader = MessageLoader(store.database, store.blobs, read_ahead_bytes=len(big[0]) * 2 + 10)
    first = await loader.load(ids)
    assert [one.message_id for one in first if one] == ids[:2]
    one = first[0]
    assert one is not None
    left, right = await asyncio.gather(one.parsed(loader.parse), one.parsed(loader.parse))
    assert left is right
    assert left.summary.subject == "0"
    assert [message.message_id for message in await loader.load(ids[2:]) if message] == ids[2:]


async def test_the_cache_keeps_to_its_bound(store: Store) -> None:
    reads: list[int] = []

    class Counting:
        async def get_many(self, refs: Any) -> dict[bytes, bytes]:
            reads.append(len(refs))
            return await store.blobs.get_many(refs)

    ids = await store.add([f"{n}" for n in range(10)])
    size = (await MessageLoader(store.database, store.blobs).load(ids[:1]))[0].size_bytes  # type: ignore[union-attr]
    loader = MessageLoader(store.database, Counting(), cache_bytes=5 * size)
    await loader.load(ids)
    await loader.load(ids[5:])
    assert reads == [10]
    await loader.load(ids[:5])
    assert reads == [10, 5]


async def test_damaged_raw_bytes_fail_their_message_alone(store: Store) -> None:
    class Damaged:
        async def get_many(self, refs: Sequence[BlobRef]) -> dict[bytes, bytes]:
            contents = await store.blobs.get_many(refs)
            if any(b"damaged" in content for content in contents.values()):
                raise StoreError("segment ab/1.seg is damaged")
            return contents

    await store.add(["well", "damaged", "fine"], "a")
    made = Worker(store.database, Damaged(), [a_processor("a", max_attempts=1)], "w", settings=PATIENT)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    await settled(made)
    stop.set()
    await task
    assert set(await store.results()) == {(1, "a"), (3, "a")}
    (row,) = await store.rows()
    assert "segment ab/1.seg is damaged" in row.last_error


async def test_what_a_dead_worker_held_is_run_at_the_next_start(store: Store) -> None:
    await store.add(["a", "b"], "a")
    async with store.database.write() as connection:
        await queue.heartbeat(connection, "dead", 100.0)
        await claim(connection, "dead", processor="a")
    async with working(store, a_processor("a")) as made:
        await settled(made)
    assert len(await store.results()) == 2


async def test_beside_others_only_the_dead_are_robbed(store: Store) -> None:
    await store.add(["a", "b"], "a")
    async with store.database.write() as connection:
        await queue.heartbeat(connection, "dead", 100.0)
        await claim(connection, "dead", limit=1, processor="a", now=1000.0)
        await queue.heartbeat(connection, "alive", 990.0)
        await claim(connection, "alive", limit=1, processor="a", now=1000.0)
    settings = WorkerSettings(threads=1, poll_seconds=3600.0, alone=False)
    async with working(store, a_processor("a"), settings=settings, clock=lambda: 1000.0) as made:
        await settled(made)
    assert set(await store.results()) == {(1, "a")}
    assert [row.worker_id for row in await store.rows()] == ["alive"]


async def test_a_failed_round_is_repeated_and_nothing_recorded_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at first; then a commit stands although its caller saw an error."""
    real_finish, finishes = queue.finish, 0

    async def finish(*arguments: Any) -> Any:
        nonlocal finishes
        finishes += 1
        if finishes == 1:
            raise StorageFullError("the database cannot grow")
        return await real_finish(*arguments)

    real_write, torn = store.database.write, []

    @asynccontextmanager
    async def write(**options: Any) -> AsyncIterator[Any]:
        async with real_write(**options) as connection:
            yield connection
        if finishes == 2 and not torn:
            torn.append(True)
            raise StoreError("the connection was lost while committing")

    monkeypatch.setattr(queue, "finish", finish)
    monkeypatch.setattr(store.database, "write", write)
    runs = []

    async def once(message: Any, context: Any) -> str:
        runs.append(context.message_id)
        return "ok"

    await store.add(["x"], "a")
    async with working(store, a_processor("a", once)) as made:
        await settled(made)
    assert torn == [True]
    assert runs == [1]
    assert await store.results() == {(1, "a"): '"ok"'}
    async with store.database.read() as connection:
        assert await events(connection) == [("messageProcessed", 1)]


async def test_a_pump_that_breaks_is_started_again_with_what_it_held(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_load, broken = MessageLoader.load, []

    async def load(self: MessageLoader, message_ids: Sequence[int]) -> Any:
        if not broken:
            broken.append(True)
            raise RuntimeError("a mistake of ours")
        return await real_load(self, message_ids)

    monkeypatch.setattr(MessageLoader, "load", load)
    await store.add(["a", "b", "c"], "a")
    async with working(store, a_processor("a")) as made:
        await settled(made)
    assert len(await store.results()) == 3


async def test_messages_that_cannot_be_read_now_cost_no_attempt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real_load, failures = MessageLoader.load, []

    async def load(self: MessageLoader, message_ids: Sequence[int]) -> Any:
        if len(failures) < 2:
            failures.append(True)
            raise StoreError("the database failed")
        return await real_load(self, message_ids)

    monkeypatch.setattr(MessageLoader, "load", load)
    await store.add(["a"], "a")
    async with working(store, a_processor("a", max_attempts=1)) as made:
        await settled(made)
    assert await store.results() == {(1, "a"): '"a"'}


async def test_a_graceful_stop_lets_what_runs_end_and_gives_back_the_rest(store: Store) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message: Any, context: Any) -> str:
        began.set()
        await go_on.wait()
        return "ended"

    await store.add([f"{n}" for n in range(6)], "a")
    made = Worker(store.database, store.blobs, [a_processor("a", slow, concurrency=2)], "w", settings=PATIENT)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    await began.wait()
    stop.set()
    await asyncio.sleep(0)
    go_on.set()
    await task
    ended = await store.results()
    assert ended
    rows = await store.rows()
    assert len(rows) + len(ended) == 6
    assert {(row.state, row.attempt, row.crashes, row.worker_id) for row in rows} == {("pending", 0, 0, "")}
    async with store.database.read() as connection:
        assert (await connection.execute(select(worker.c.id))).all() == []


@pytest.mark.parametrize("kind", ["async", "thread", "process"])
async def test_what_does_not_end_within_the_grace_is_given_back(store: Store, kind: str, tmp_path: Path) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def on_loop(message: Any, context: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    def in_thread(message: Any, context: Any) -> None:
        loop.call_soon_threadsafe(began.set)
        runner_jobs.hang(message, context)

    function = {"async": on_loop, "thread": in_thread, "process": runner_jobs.hang}[kind]
    settings = WorkerSettings(threads=1, children=1, poll_seconds=3600.0, grace_seconds=0.05)
    await store.add(["x"], "a")
    async with working(store, a_processor("a", function, kind), settings=settings) as made:
        if kind == "process":
            while not made.stats.in_hand["a"]:
                await asyncio.sleep(0)
        else:
            await began.wait()
    (row,) = await store.rows()
    assert (row.state, row.attempt, row.crashes, row.worker_id) == ("pending", 0, 0, "")


async def test_a_cancelled_worker_gives_back_what_it_held(store: Store) -> None:
    began = asyncio.Event()

    async def hang(message: Any, context: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    await store.add(["x", "y"], "a")
    task = asyncio.create_task(
        Worker(store.database, store.blobs, [a_processor("a", hang)], "w", settings=PATIENT).run(asyncio.Event())
    )
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {(row.state, row.crashes) for row in await store.rows()} == {("pending", 0)}


async def test_life_is_proven(store: Store) -> None:
    settings = WorkerSettings(threads=1, poll_seconds=3600.0, heartbeat_seconds=0.01)
    now = 1000.0
    async with working(store, a_processor("a"), settings=settings, clock=lambda: now) as made:
        await settled(made)
        now = 2000.0
        async with asyncio.timeout(60):
            while True:
                async with store.database.read() as connection:
                    if await connection.scalar(select(worker.c.heartbeat_at)) == 2000.0:
                        break
                await asyncio.sleep(0)


async def test_stages_are_observed(store: Store) -> None:
    seen: list[tuple[str, float]] = []
    await store.add(["x"], "a")
    async with working(
        store, a_processor("a"), clock=lambda: 103.0, observe=lambda stage, seconds: seen.append((stage, seconds))
    ) as made:
        await settled(made)
    assert [stage for stage, _ in seen] == ["picked_up", "ran:a", "recorded"]
    assert (seen[0][1], seen[2][1]) == (3.0, 3.0)
