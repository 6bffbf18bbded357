"""The worker on a real store: what arrives is run and recorded, each processor by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from work_rows import add_place, events
from working import Stages, Store, a_processor, open_store, settled, subject_of, working

from mailmill.errors import ProcessorError
from mailmill.message_parser import ParsedMessage
from mailmill.processing import pump
from mailmill.processing.worker import WorkerSettings
from mailmill.store import queue, queue_front
from mailmill.store.queue_front import Front
from mailmill.store.tables import work

pytestmark = pytest.mark.both_databases


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[Store]:
    async with open_store(data_dir) as made:
        yield made


async def test_work_that_is_there_is_run_by_each_kind(store: Store) -> None:
    ids = await store.add([f"mail {n}" for n in range(25)], "a", "t", "c")
    kinds = [a_processor("a"), a_processor("t", subject_of), a_processor("c", subject_of, "process")]
    async with working(store, *kinds) as made:
        await settled(made)
    assert await store.results() == {(n, name): f'"mail {n - 1}"' for n in ids for name in "atc"}
    assert await store.rows() == []
    async with store.database.read() as connection:
        assert sorted(await events(connection)) == [("messageProcessed", n) for n in ids]


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


async def test_new_mail_is_run_before_a_backlog_that_is_being_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims go on where the last one ended; a hint has them look at what came before that."""
    monkeypatch.setattr(queue_front, "BELIEVED_SECONDS", 1e6)
    monkeypatch.setattr(queue_front, "LOOKING_SHARE", 1e9)
    begun, hinted, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    ran = []

    async def note(message: Any, context: Any) -> None:
        ran.append(context.message_id)
        begun.set()
        await go_on.wait()

    class Watched(Front):
        def doubt(self) -> None:
            super().doubt()
            if begun.is_set():
                hinted.set()

    monkeypatch.setattr(pump, "Front", Watched)
    backlog = await store.add([f"mail {n}" for n in range(4)], "a")
    async with store.database.write() as connection:
        await connection.execute(update(work).values(priority=queue.BACKLOG))
    async with working(store, a_processor("a", note, concurrency=1)) as made, asyncio.timeout(60):
        await begun.wait()
        [new] = await store.add(["new"], "a")
        await hinted.wait()
        go_on.set()
        await settled(made)
    assert ran == [backlog[0], new, *backlog[1:]]


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

    stages = Stages()
    await store.add([f"{n}" for n in range(30)], "slow", "quick")
    async with working(store, a_processor("slow", slow), a_processor("quick"), observe=stages) as made:
        await stages.until("recorded", 30)
        assert {name for _, name in await store.results()} == {"quick"}
        assert made.stats.in_hand["slow"] == 8
        go_on.set()
        await settled(made)
    assert len(await store.results()) == 60


async def test_a_lane_that_is_free_does_not_wait_for_slow_ones(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four that run for long one ends: the fifth begins, though the others go on."""
    monkeypatch.setattr(pump, "_GATHER_SECONDS", 0.0)  # as where a run takes many times as long as a transaction
    ids = await store.add([f"mail {n}" for n in range(5)], "a")
    begun = {message_id: asyncio.Event() for message_id in ids}
    ends = {message_id: asyncio.Event() for message_id in ids}

    async def slow(message: Any, context: Any) -> None:
        begun[context.message_id].set()
        await ends[context.message_id].wait()

    async with working(store, a_processor("a", slow, concurrency=4)) as made, asyncio.timeout(60):
        for message_id in ids[:4]:
            await begun[message_id].wait()
        ends[ids[2]].set()
        await begun[ids[4]].wait()
        for end in ends.values():
            end.set()
        await settled(made)
    assert len(await store.results()) == 5


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
