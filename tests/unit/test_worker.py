"""The worker on a real store: what arrives is run and recorded, whatever processors, children and the store do."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import runner_jobs
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from work_rows import add_account, add_mail, add_place, claim, events, new_work

from mailmill.errors import ProcessorError, StorageFullError, StoreError
from mailmill.message_parser import ParsedMessage, parse_message
from mailmill.processing import worker as worker_module
from mailmill.processing.loader import MessageLoader
from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.store import processors as operated
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

    await store.add(["x"], "a")
    before = time.time()
    async with working(store, a_processor("a", fails_once)) as made:
        await settled(made)
        (row,) = await store.rows()
    assert (row.state, row.attempt, row.last_error) == ("waiting", 1, "ValueError: not yet")
    assert before <= row.run_at <= time.time() + 5.0
    async with store.database.write() as connection:
        await connection.execute(update(work).values(run_at=before))
    async with working(store, a_processor("a", fails_once)) as made:
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
        await queue.heartbeat(connection, "dead", time.time() - 100)
        await claim(connection, "dead", limit=1, processor="a", now=time.time())
        await queue.heartbeat(connection, "alive", time.time())
        await claim(connection, "alive", limit=1, processor="a", now=time.time())
    settings = WorkerSettings(threads=1, poll_seconds=3600.0, alone=False)
    async with working(store, a_processor("a"), settings=settings) as made:
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
    async with working(store, a_processor("a"), settings=settings) as made:
        await settled(made)
        async with store.database.read() as connection:
            first = await connection.scalar(select(worker.c.heartbeat_at))
        async with asyncio.timeout(60):
            while True:
                async with store.database.read() as connection:
                    if await connection.scalar(select(worker.c.heartbeat_at)) > first:
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


async def test_failed_runs_are_observed_and_what_is_given_up(store: Store) -> None:
    seen: list[str] = []

    async def fails(_message: ParsedMessage, _context: Any) -> None:
        raise ProcessorError("no", permanent=True)

    await store.add(["x"], "a")
    async with working(store, a_processor("a", fails), observe=lambda stage, _seconds: seen.append(stage)) as made:
        await settled(made)
    assert [stage for stage in seen if stage.startswith(("failed", "gave_up"))] == ["failed:a", "gave_up:a"]


# -- rows that crashed, limits, a pause -------------------------------------------------------------------------------


async def crashed(store: Store, ids: Sequence[int]) -> None:
    async with store.database.write() as connection:
        await connection.execute(update(work).where(work.c.message_id.in_(ids)).values(crashes=1))


async def test_a_row_that_crashed_runs_while_nothing_else_does(store: Store) -> None:
    running: set[int] = set()
    beside: dict[int, set[int]] = {}

    async def watches(message: Any, context: Any) -> None:
        running.add(context.message_id)
        for one in running:
            beside.setdefault(one, set()).update(running - {one})
        for _ in range(20):
            await asyncio.sleep(0)
        running.discard(context.message_id)

    ids = await store.add([f"{n}" for n in range(60)], "a")
    suspects = ids[5:40:7]
    await crashed(store, suspects)
    async with working(store, a_processor("a", watches, concurrency=4)) as made:
        await settled(made)
    assert sorted(number for number, _ in await store.results()) == ids
    assert {one: beside[one] for one in suspects} == {one: set() for one in suspects}
    assert any(beside[one] for one in ids), "the others did run side by side"


async def test_rows_that_crashed_and_others_take_turns(store: Store) -> None:
    order: list[int] = []

    async def notes(message: Any, context: Any) -> None:
        order.append(context.message_id)

    ids = await store.add([f"{n}" for n in range(40)], "a")
    suspects = set(ids[:20])
    await crashed(store, sorted(suspects))
    async with working(store, a_processor("a", notes, concurrency=2)) as made:
        await settled(made)
    kinds = [one in suspects for one in order[:10]]
    assert True in kinds and False in kinds, "neither waits for all of the other"
    assert sorted(order) == ids


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_row_that_crashed_runs_in_a_child(store: Store, kind: str) -> None:
    ids = await store.add(["one", "two"], "a")
    await crashed(store, ids[:1])
    function = runner_jobs.where_it_ran_async if kind == "async" else runner_jobs.where_it_ran
    async with working(store, a_processor("a", function)) as made:
        await settled(made)
    found = {number: json.loads(value) for (number, _), value in (await store.results()).items()}
    assert found[1]["pid"] != os.getpid() == found[2]["pid"]
    assert found[1]["subject"] == "one"


async def test_a_poison_message_is_contained_after_one_crash(store: Store) -> None:
    """Its processor kills the process it runs in: alone in a child it costs attempts, and the service stands."""
    ids = await store.add(["poison", "good"], "a")
    await crashed(store, ids[:1])
    made = a_processor("a", runner_jobs.kill_self_over_poison, "thread", max_attempts=1)
    async with working(store, made) as one:
        await settled(one)
    assert set(await store.results()) == {(2, "a")}
    (row,) = await store.rows()
    assert (row.state, row.attempt, row.crashes) == ("failed", 1, 1)
    assert "died (signal 9)" in row.last_error


async def test_a_message_whose_parsing_kills_is_parsed_in_the_child(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(raw: bytes) -> ParsedMessage:
        raise AssertionError("parsed in the service")

    monkeypatch.setattr(worker_module, "MessageLoader", lambda *a, **k: MessageLoader(*a, parse=never, **k))
    ids = await store.add(["x"], "a")
    await crashed(store, ids)
    async with working(store, a_processor("a", runner_jobs.where_it_ran)) as made:
        await settled(made)
    assert set(await store.results()) == {(1, "a")}


@pytest.mark.parametrize(
    ("subject", "error"),
    [("kill", "died (signal 9)"), ("hang", "took longer than"), ("eat", "wanted more memory")],
)
async def test_a_child_that_misbehaves_costs_one_attempt(
    store: Store, subject: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With jitter the second try may be over before the first was looked at.
    monkeypatch.setattr("mailmill.processing.pump.retry_after", lambda **_: 3600.0)
    await store.add([subject, "good"], "a")
    processor = a_processor(
        "a", runner_jobs.misbehave, "process", timeout_seconds=30 if subject != "hang" else 3, memory_bytes=256 << 20
    )
    async with working(store, processor) as made:
        await settled(made)
        (row,) = await store.rows()
        assert (row.state, row.attempt, row.crashes) == ("waiting", 1, 0)
        assert error in row.last_error
        assert set(await store.results()) == {(2, "a")}
        async with store.database.write() as connection:
            await connection.execute(update(work).values(run_at=0.0, state="pending"))
        await settled(made)
    assert set(await store.results()) == {(1, "a"), (2, "a")}


async def test_a_pause_holds_and_gives_back_what_has_not_begun(store: Store) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message: Any, context: Any) -> None:
        began.set()
        await go_on.wait()

    settings = WorkerSettings(threads=1, poll_seconds=3600.0, heartbeat_seconds=0.01)
    ids = await store.add([f"{n}" for n in range(6)], "a")
    async with working(store, a_processor("a", slow, concurrency=1), settings=settings) as made:
        await began.wait()
        async with store.database.write() as connection:
            await operated.pause(connection, "a", 1.0)
        go_on.set()
        await settled(made)
        assert len(await store.results()) == 1
        assert {row.state for row in await store.rows()} == {"pending"}
        async with store.database.write() as connection:
            await operated.resume(connection, "a")
        async with asyncio.timeout(60):
            while len(await store.results()) < len(ids):
                await asyncio.sleep(0)


async def test_a_limit_by_account_holds_over_all_workers(store: Store) -> None:
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def counts(message: Any, context: Any) -> None:
        running[context.account] += 1
        most[context.account] = max(most[context.account], running[context.account])
        for _ in range(10):
            await asyncio.sleep(0)
        running[context.account] -= 1

    async with store.database.write() as connection:
        await add_account(connection, 2)
    ids = [*await store.add([f"{n}" for n in range(20)], "a")]
    ids += await store.add([f"{n}" for n in range(20, 40)], "a", account_id=2)
    settings = WorkerSettings(threads=1, poll_seconds=3600.0, alone=False)
    processor = a_processor("a", counts, concurrency=6, account_concurrency=2)
    async with (
        working(store, processor, settings=settings, worker_id="w1") as one,
        working(store, processor, settings=settings, worker_id="w2") as two,
    ):
        async with asyncio.timeout(60):
            while len(await store.results()) < len(ids):
                await settled(one)
                await settled(two)
    assert most == {"account1": 2, "account2": 2}
    assert await store.rows() == []


async def test_a_rate_holds_starts_back(store: Store) -> None:
    first = asyncio.Event()

    async def notes(message: Any, context: Any) -> None:
        first.set()

    ids = await store.add([f"{n}" for n in range(5)], "slow", "quick")
    slow = a_processor("slow", notes, rate_per_minute=0.001)
    async with working(store, slow, a_processor("quick", rate_per_minute=600_000)) as made:
        await first.wait()
        async with asyncio.timeout(60):
            while sum(name == "quick" for _, name in await store.results()) < len(ids):
                await asyncio.sleep(0)
        assert made.stats.in_hand["slow"] <= 1
    assert sum(name == "slow" for _, name in await store.results()) == 1
    assert {(row.state, row.attempt, row.crashes) for row in await store.rows()} == {("pending", 0, 0)}


async def test_a_worker_that_was_stopped_for_long_proves_life_before_it_claims(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it claims is taken back at once: others have given it up for dead."""
    clock = 1000.0
    monkeypatch.setattr(worker_module, "_running_clock", lambda: clock)
    async with working(store, a_processor("a")) as made:
        await settled(made)
        async with store.database.write() as connection:
            await connection.execute(delete(worker))
        clock += 20.0
        await store.add(["x"], "a")
        await settled(made)
        async with store.database.read() as connection:
            assert (await connection.execute(select(worker.c.id))).scalars().all() == ["w"]


async def test_after_a_long_stop_life_is_proven_and_nobody_is_robbed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a sleep or an outage of the database all workers look dead, this one and those that are about to return."""
    clock, looks = 1000.0, asyncio.Event()
    monkeypatch.setattr(worker_module, "_running_clock", lambda: clock)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message: Any, context: Any) -> None:
        began.set()
        await go_on.wait()

    promote_due = queue.promote_due

    async def noted(*arguments: Any) -> Any:
        looks.set()
        return await promote_due(*arguments)

    await store.add(["x", "y"], "a")
    async with store.database.write() as connection:
        await queue.heartbeat(connection, "other", time.time())
        await claim(connection, "other", limit=1, processor="a", now=time.time())
    settings = WorkerSettings(threads=1, poll_seconds=3600.0, alone=False)
    async with working(store, a_processor("a", slow), settings=settings) as made, asyncio.timeout(60):
        await began.wait()
        monkeypatch.setattr(queue, "promote_due", noted)

        async def look_after(seconds: float) -> list[str]:
            nonlocal clock
            clock += seconds
            async with store.database.write() as connection:
                await connection.execute(update(worker).values(heartbeat_at=time.time() - 100.0))
            looks.clear()
            made._upkeep.set()
            await looks.wait()
            async with store.database.write():
                pass  # its transaction has ended
            return [row.worker_id for row in await store.rows()]

        assert await look_after(100.0) == ["other", "w"]
        assert await look_after(10.0) == ["other", "w"]
        await look_after(10.0)
        await look_after(10.0)  # reaps
        rows = await store.rows()
        assert [(row.worker_id, row.crashes) for row in rows][1] == ("w", 0)
        assert rows[0].crashes == 1
        go_on.set()


def _told(cause: BaseException, of: type[DBAPIError] = DBAPIError) -> StoreError:
    error = StoreError("the database failed")
    error.__cause__ = of("UPDATE work", {}, cause)
    return error


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (_told(asyncpg.ConnectionDoesNotExistError("gone")), True),
        (_told(asyncpg.DeadlockDetectedError("deadlock detected")), True),
        (_told(asyncpg.QueryCanceledError("too long")), True),
        (_told(Exception("locked"), OperationalError), True),
        (StoreError("no connection to the database became free in time"), True),
        (TimeoutError(), True),
        (_told(asyncpg.CharacterNotInRepertoireError("invalid byte sequence")), False),
        (_told(asyncpg.ForeignKeyViolationError("no such message")), False),
        (_told(Exception("UNIQUE constraint failed"), IntegrityError), False),
        (ValueError("this value fits into no column"), False),
    ],
)
def test_what_is_the_fault_of_the_store(error: Exception, trouble: bool) -> None:
    assert worker_module._is_store_trouble(error) is trouble


async def test_a_claim_whose_commit_was_not_answered_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write, real_claim, torn = store.database.write, queue.claim, []
    lost: list[queue.Claim] = []

    async def claim(*arguments: Any, **options: Any) -> Any:
        claims = await real_claim(*arguments, **options)
        lost.extend([] if torn else claims)
        return claims

    @asynccontextmanager
    async def write(**options: Any) -> AsyncIterator[Any]:
        async with real_write(**options) as connection:
            yield connection
        if lost and not torn:
            torn.append(True)
            raise StoreError("the connection was lost while committing")

    monkeypatch.setattr(queue, "claim", claim)
    monkeypatch.setattr(store.database, "write", write)
    ids = await store.add(["x", "y"], "a")
    async with working(store, a_processor("a", concurrency=2)) as made:
        await settled(made)
    assert [one.message_id for one in lost] == ids
    assert sorted(number for number, _ in await store.results()) == ids


async def test_what_is_let_in_wakes_whoever_waits_for_it(store: Store) -> None:
    """Also where the worker that made room asks for nothing itself."""
    ids = await store.add(["x", "y"], "a")
    async with working(store, a_processor("a", account_concurrency=1)) as made:
        await settled(made)
        async with store.database.write() as connection:
            await connection.execute(delete(result))
    async with store.database.write() as connection:
        await queue.enqueue(connection, [new_work(one, "a") for one in ids], 200.0)
        await queue.heartbeat(connection, "w2", time.time())
        first, _ = await queue.claim_limited(
            connection,
            processor="a",
            worker_id="w2",
            limit=2,
            account_limit=1,
            deadline_seconds=3600.0,
            now=time.time(),
        )
    made = Worker(store.database, store.blobs, [a_processor("a", account_concurrency=1)], "w2", settings=PATIENT)
    made._pumps[0].look = False
    with store.database.wake.work.subscribe() as hints:
        await made._exchange([queue.Finished(first[0], "null", 0.0)], [])
        assert await hints.wait(60)
    assert made._pumps[0].look
    assert made._round.is_set()
    assert [row.state for row in await store.rows()] == ["pending"]
