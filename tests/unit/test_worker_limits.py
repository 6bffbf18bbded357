"""What an operator holds a processor to: a pause, a limit for each account, a rate."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import delete
from work_rows import add_account, new_work
from working import PATIENT, Stages, Store, a_processor, open_store, settled, working

from mailmill.app.work_desk import WorkDesk
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.store import processors as operated
from mailmill.store import queue
from mailmill.store.tables import result

if TYPE_CHECKING:
    from mailmill.app.application import Application

pytestmark = pytest.mark.both_databases


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[Store]:
    async with open_store(data_dir) as made:
        yield made


async def test_a_pause_holds_and_gives_back_what_has_not_begun(store: Store) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message: Any, context: Any) -> None:
        began.set()
        await go_on.wait()

    settings = WorkerSettings(threads=1, poll_seconds=3600.0, heartbeat_seconds=0.01)
    ids = await store.add([f"{n}" for n in range(6)], "a")
    stages = Stages()
    async with working(store, a_processor("a", slow, concurrency=1), settings=settings, observe=stages) as made:
        await began.wait()
        async with store.database.write() as connection:
            await operated.pause(connection, "a", 1.0)
        go_on.set()
        await settled(made)
        assert len(await store.results()) == 1
        assert {row.state for row in await store.rows()} == {"pending"}
        # Told of as whoever resumes it tells: the worker may have looked in vain, and not have learnt of the pause.
        async with store.database.write(wake=("work",)) as connection:
            await operated.resume(connection, "a")
        await stages.until("recorded", len(ids))


async def test_a_resumed_processor_goes_on_at_once(store: Store) -> None:
    """Neither the poll nor the upkeep comes within the test: it is the hint that wakes the worker."""
    settings = WorkerSettings(threads=1, poll_seconds=3600.0, heartbeat_seconds=3600.0)
    processor, stages = a_processor("a"), Stages()
    application = SimpleNamespace(database=store.database, clock=time.time, processors=[processor])
    desk = WorkDesk(cast("Application", application))
    assert (await desk.pause("a"))["paused"]
    ids = await store.add(["one", "two"], "a")
    async with working(store, processor, settings=settings, observe=stages) as made:
        await settled(made)
        assert await store.results() == {}
        assert (await desk.resume("a"))["changed"]
        await stages.until("recorded", len(ids))


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
    stages = Stages()
    settings = WorkerSettings(threads=1, poll_seconds=3600.0, alone=False)
    processor = a_processor("a", counts, concurrency=6, account_concurrency=2)
    async with (
        working(store, processor, settings=settings, worker_id="w1", observe=stages),
        working(store, processor, settings=settings, worker_id="w2", observe=stages),
    ):
        await stages.until("recorded", len(ids))
    assert most == {"account1": 2, "account2": 2}
    assert await store.rows() == []


async def test_a_rate_holds_starts_back(store: Store) -> None:
    ids = await store.add([f"{n}" for n in range(5)], "slow", "quick")
    slow = a_processor("slow", rate_per_minute=0.001)
    stages = Stages()
    async with working(store, slow, a_processor("quick", rate_per_minute=600_000), observe=stages) as made:
        await stages.until("recorded", 1 + len(ids))
        assert made.stats.in_hand["slow"] <= 1
    assert sum(name == "slow" for _, name in await store.results()) == 1
    assert {(row.state, row.attempt, row.crashes) for row in await store.rows()} == {("pending", 0, 0)}


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
