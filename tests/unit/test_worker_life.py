"""A worker starts beside others or after a dead one, proves that it lives, stops, and is stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import runner_jobs
from sqlalchemy import delete, select, update
from work_rows import claim
from working import PATIENT, Stages, Store, a_processor, open_store, settled, working

from harness.patience import eventually
from mailmill.errors import StoreError
from mailmill.processing import worker as worker_module
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.store import queue
from mailmill.store.tables import worker

pytestmark = pytest.mark.both_databases


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[Store]:
    async with open_store(data_dir) as made:
        yield made


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
    stages = Stages()
    async with working(store, a_processor("a", function, kind), settings=settings, observe=stages):
        await (stages.until("picked_up", 1) if kind == "process" else began.wait())
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

    async def heartbeat() -> float:
        async with store.database.read() as connection:
            found: float = await connection.scalar(select(worker.c.heartbeat_at))
        return found

    async with working(store, a_processor("a"), settings=settings) as made:
        await settled(made)
        first = await heartbeat()
        await eventually(heartbeat, lambda now: now > first)


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
    clock = 1000.0
    monkeypatch.setattr(worker_module, "_running_clock", lambda: clock)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message: Any, context: Any) -> None:
        began.set()
        await go_on.wait()

    async def looked(made: Worker) -> None:
        made._upkeep.set()

        async def over() -> bool:
            return made._upkeep_at > clock

        await eventually(over)

    await store.add(["x", "y"], "a")
    async with store.database.write() as connection:
        await queue.heartbeat(connection, "other", time.time())
        await claim(connection, "other", limit=1, processor="a", now=time.time())
    settings = WorkerSettings(threads=1, poll_seconds=3600.0, alone=False)
    async with working(store, a_processor("a", slow), settings=settings) as made, asyncio.timeout(60):
        await began.wait()

        async def look_after(seconds: float) -> list[str]:
            nonlocal clock
            clock += seconds
            async with store.database.write() as connection:
                await connection.execute(update(worker).values(heartbeat_at=time.time() - 100.0))
            await looked(made)
            return [row.worker_id for row in await store.rows()]

        assert await look_after(100.0) == ["other", "w"]
        assert await look_after(10.0) == ["other", "w"]
        await look_after(10.0)
        await look_after(10.0)  # reaps
        rows = await store.rows()
        assert [(row.worker_id, row.crashes) for row in rows][1] == ("w", 0)
        assert rows[0].crashes == 1
        go_on.set()


async def test_after_a_long_outage_the_first_one_back_robs_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None could prove its life meanwhile, so all are given the time to, however long the outage was."""
    clock, refused = 1000.0, 0
    monkeypatch.setattr(worker_module, "_running_clock", lambda: clock)
    monkeypatch.setattr(worker_module, "_MAX_BACK_OFF_SECONDS", 0.01)
    heartbeat = queue.heartbeat

    async def refusing(*arguments: Any) -> None:
        nonlocal clock, refused
        if refused < 10:
            refused += 1
            clock += 60.0
            raise StoreError("the server is not there")
        await heartbeat(*arguments)

    async with working(store, a_processor("a"), settings=WorkerSettings(threads=1, alone=False)) as made:
        await store.add(["x"], "b")
        async with store.database.write() as connection:
            await queue.heartbeat(connection, "other", time.time() - 600.0)
            await claim(connection, "other", limit=1, processor="b", now=time.time())
        monkeypatch.setattr(queue, "heartbeat", refusing)
        clock += 60.0
        made._upkeep.set()

        async def back() -> bool:
            return refused == 10 and made._upkeep_at > clock

        await eventually(back)
        assert [(row.worker_id, row.crashes) for row in await store.rows()] == [("other", 0)]
