"""The outbox: an event is planned once, claimed under a fence, and ends delivered or failed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event as sa_event
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.model import EventName
from mailmill.store import dialect, event_log, outbox, queue, sequencer
from mailmill.store.database import Database
from mailmill.store.event_log import EventRow, NewEvent
from mailmill.store.outbox import DeliveryClaim, DeliveryOutcome
from mailmill.store.tables import delivery


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    yield opened
    await opened.close()


def to_both(_event: EventRow) -> list[str]:
    return ["hook", "chat"]


async def add_events(connection: AsyncConnection, count: int, *, historical: bool = False) -> None:
    one = NewEvent("default", EventName.MESSAGE_NEW, 5.0, historical=historical)
    await event_log.append(connection, [one] * count)
    await sequencer.number(connection)


async def claim(
    connection: AsyncConnection, destination: str = "hook", worker_id: str = "w", limit: int = 10, now: float = 100.0
) -> list[DeliveryClaim]:
    return await outbox.claim(
        connection, destination=destination, worker_id=worker_id, limit=limit, deadline_seconds=60, now=now
    )


async def test_each_event_is_planned_once_for_each_destination(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 3)
        assert await outbox.plan_deliveries(connection, 2, to_both, 10.0) == 2
        assert await outbox.plan_deliveries(connection, 2, to_both, 10.0) == 1
        assert await outbox.plan_deliveries(connection, 2, to_both, 10.0) == 0
        assert [one.event_id for one in await claim(connection)] == [1, 2, 3]
        assert [one.event_id for one in await claim(connection, "chat")] == [1, 2, 3]
        assert await claim(connection) == []


async def test_a_plan_that_was_undone_is_made_again(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1)
    with pytest.raises(RuntimeError):
        async with database.write() as connection:
            await outbox.plan_deliveries(connection, 10, to_both, 10.0)
            raise RuntimeError
    async with database.write() as connection:
        assert await outbox.plan_deliveries(connection, 10, to_both, 10.0) == 1
        assert await outbox.counts(connection) == outbox.DeliveryCounts(2, 0, 0, 0)


async def test_history_is_passed_over(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 2, historical=True)
        await add_events(connection, 1)
        assert await outbox.plan_deliveries(connection, 2, to_both, 10.0) == 2
        assert await outbox.plan_deliveries(connection, 2, to_both, 10.0) == 1
        assert [one.event_id for one in await claim(connection)] == [3]


async def test_outcomes(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 3)
        await outbox.plan_deliveries(connection, 10, lambda _: ["hook"], 10.0)
        one, two, three = await claim(connection)
        written = await outbox.finish(
            connection,
            "w",
            [
                DeliveryOutcome(one, delivered=True, status=204),
                DeliveryOutcome(two, delivered=False, retry_after_seconds=49.0, status=503, error="busy\x00"),
                DeliveryOutcome(three, delivered=False, status=410, error="gone"),
            ],
            101.0,
        )
        assert written == 3
        assert await outbox.counts(connection) == outbox.DeliveryCounts(pending=1, sending=0, delivered=1, failed=1)
        assert await outbox.next_due_seconds(connection, "hook", 101.0) == 49.0
        assert await outbox.next_due_seconds(connection, "hook", 160.0) == -10.0
        assert await outbox.next_due_seconds(connection, "chat", 101.0) is None
        rows = (await connection.execute(select(delivery).order_by(delivery.c.id))).all()
        assert [(row.last_status, row.last_error, row.finished_at) for row in rows] == [
            (204, "", 101.0),
            (503, "busy\ufffd", None),
            (410, "gone", 101.0),
        ]
        assert await claim(connection, now=149.0) == []
        (again,) = await claim(connection, now=150.0)
        assert (again.id, again.event_id, again.attempt, again.fence) == (two.id, two.event_id, 1, 2)


async def test_a_zombie_writes_nothing(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1)
        await outbox.plan_deliveries(connection, 10, lambda _: ["hook"], 10.0)
        (old,) = await claim(connection, worker_id="w")
        assert await outbox.recover(connection, dead_after_seconds=10.0, now=60.0) == 1
        (new,) = await claim(connection, worker_id="w")
        assert new.attempt == 1
        assert await outbox.finish(connection, "w", [DeliveryOutcome(old, delivered=True)], 61.0) == 0
        assert await outbox.finish(connection, "other", [DeliveryOutcome(new, delivered=True)], 61.0) == 0
        assert await outbox.release(connection, "w", [old]) == 0
        assert await outbox.finish(connection, "w", [DeliveryOutcome(new, delivered=True)], 61.0) == 1


async def test_only_what_the_dead_hold_is_recovered(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 2)
        await outbox.plan_deliveries(connection, 10, lambda _: ["hook"], 10.0)
        await queue.heartbeat(connection, "alive", 95.0)
        await claim(connection, worker_id="alive", limit=1)
        (lost,) = await claim(connection, worker_id="dead", limit=1)
        assert await outbox.recover(connection, dead_after_seconds=10.0, now=100.0) == 1
        assert [one.id for one in await claim(connection)] == [lost.id]
        assert await outbox.recover(connection, dead_after_seconds=71.0, now=161.0) == 2


async def test_release_gives_back_without_a_try(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1)
        await outbox.plan_deliveries(connection, 10, lambda _: ["hook"], 10.0)
        assert await outbox.release(connection, "w", await claim(connection)) == 1
        assert [one.attempt for one in await claim(connection)] == [0]


async def test_planning_wakes_the_senders(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1)
        await outbox.plan_deliveries(connection, 10, to_both, 10.0)
    assert await database.wake.deliveries.wait(5)


async def test_steps_use_indexes_alone(database: Database) -> None:
    statements: list[tuple[str, object]] = []
    async with database.write() as connection:
        await add_events(connection, 2)
        listen = (
            connection.sync_connection.engine,
            "before_cursor_execute",
            lambda *seen: statements.append((seen[2], seen[3])),
        )
        sa_event.listen(*listen)
        now = dialect.now(connection)
        await outbox.plan_deliveries(connection, 10, to_both, now)
        one, two = await outbox.claim(
            connection, destination="hook", worker_id="w", limit=2, deadline_seconds=60, now=dialect.now(connection)
        )
        await outbox.finish(connection, "w", [DeliveryOutcome(one, delivered=True)], now)
        await outbox.release(connection, "w", [two])
        await outbox.recover(connection, dead_after_seconds=30.0, now=now)
        await outbox.next_due_seconds(connection, "hook", now)
        sa_event.remove(*listen)
        scans = []
        if dialect.is_postgresql(connection):
            # The tables are too small to be worth an index; what matters is whether there is one to use.
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
        for statement, parameters in statements:
            first = parameters[0] if isinstance(parameters, list) else parameters
            scans += [(step, statement) for step in await scanned(connection, statement, first)]
    assert len(statements) > 6
    assert scans == []


async def scanned(connection: AsyncConnection, statement: str, parameters: object) -> list[str]:
    """The steps of its plan that read all of the outbox or of the log, or all that waits for a destination."""
    if dialect.is_postgresql(connection):
        plan = [row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]
        return [step for step in plan if re.search(r"Seq Scan on (delivery|event)|Filter:.*run_at <=", step)]
    plan = [row[3] for row in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    return [step for step in plan if step.startswith(("SCAN delivery", "SCAN event"))]
