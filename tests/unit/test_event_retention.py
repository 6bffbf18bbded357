"""Retention: the front of the log goes with its deliveries, but nothing that is still to be done goes with it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.app import housekeeping
from mailmill.errors import CursorTooOldError
from mailmill.model import EventName
from mailmill.store import event_log, event_retention, marks, outbox, sequencer
from mailmill.store.database import Database
from mailmill.store.event_log import NewEvent
from mailmill.store.outbox import DeliveryOutcome
from mailmill.store.tables import delivery


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    yield opened
    await opened.close()


async def add_events(connection: AsyncConnection, *created_at: float) -> None:
    await event_log.append(connection, [NewEvent("default", EventName.CONNECT_ERROR, at) for at in created_at])
    await sequencer.number(connection)


async def plan(connection: AsyncConnection) -> None:
    while await outbox.plan_deliveries(connection, 100, lambda _event: ["hook"], 50.0):
        pass


async def deliver(connection: AsyncConnection, count: int) -> None:
    claims = await outbox.claim(
        connection, destination="hook", worker_id="w", limit=count, deadline_seconds=60, now=50.0
    )
    await outbox.finish(connection, "w", [DeliveryOutcome(one, delivered=True, status=200) for one in claims], 51.0)


async def ids(connection: AsyncConnection) -> list[int]:
    """Of all events that are there, whoever may read them."""
    return sorted(await event_log.get(connection, range(1, 100)))


async def deliveries_of(connection: AsyncConnection) -> list[int]:
    return list((await connection.execute(select(delivery.c.event_id).order_by(delivery.c.event_id))).scalars())


async def test_what_is_old_goes_in_pieces_and_readers_are_told(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1, 2, 3, 4, 5, 100, 101)
        assert await event_retention.prune(connection, 50.0, 2) == 2
        assert await ids(connection) == [3, 4, 5, 6, 7]
        assert await event_retention.prune(connection, 50.0, 2) == 2
        assert await event_retention.prune(connection, 50.0, 2) == 1
        assert await event_retention.prune(connection, 50.0, 2) == 0
        assert await event_log.head(connection) == 7

        with pytest.raises(CursorTooOldError, match="cursor 4 is too old: events up to 5 were removed") as caught:
            await event_log.read_after(connection, 4, 10)
        assert caught.value.oldest == 5
        assert "keep_events_days" in caught.value.hint
        assert [row.id for row in await event_log.read_after(connection, caught.value.oldest, 10)] == [6, 7]
        assert [row.id for row in await event_log.read_after(connection, 0, 10)] == [6, 7]


async def test_an_empty_log_still_knows_how_far_it_came(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1, 2, 3)
        assert await event_retention.prune(connection, 50.0, 10) == 3
        assert await ids(connection) == []
        assert await event_log.head(connection) == 3
        assert await event_log.read_after(connection, 3, 10) == []
        assert await event_log.read_after(connection, 0, 10) == []
        with pytest.raises(CursorTooOldError):
            await event_log.read_after(connection, 2, 10)
        await add_events(connection, 100)
        assert [row.position for row in await event_log.read_after(connection, 3, 10)] == [4]


async def test_deliveries_go_with_their_event(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1, 2, 100)
        await plan(connection)
        await deliver(connection, 3)
        assert await event_retention.prune(connection, 50.0, 10) == 2
        assert await ids(connection) == await deliveries_of(connection) == [3]


async def test_what_a_delivery_still_needs_stays_until_it_is_over(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1, 2, 3, 100)
        await plan(connection)
        await deliver(connection, 1)
        (sending,) = await outbox.claim(
            connection, destination="hook", worker_id="w", limit=1, deadline_seconds=60, now=50.0
        )
        assert await event_retention.prune(connection, 50.0, 10) == 3
        assert await ids(connection) == await deliveries_of(connection) == [2, 3, 4]
        assert [row.id for row in await event_log.read_after(connection, 0, 10)] == [4], "they are nobody's to read"
        with pytest.raises(CursorTooOldError):
            await event_log.read_after(connection, 1, 10)

        await outbox.finish(connection, "w", [DeliveryOutcome(sending, delivered=False, error="gone")], 52.0)
        assert await event_retention.prune(connection, 50.0, 10) == 1
        assert await ids(connection) == await deliveries_of(connection) == [3, 4]


async def test_what_is_kept_goes_in_the_same_sweep_as_what_is_old(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1, 2)
        await plan(connection)
        await event_retention.prune(connection, 50.0, 10)
        await deliver(connection, 2)
        await add_events(connection, 3)
        await plan(connection)
        await deliver(connection, 1)
        assert await event_retention.prune(connection, 50.0, 2) == 2
        assert await event_retention.prune(connection, 50.0, 2) == 1
        assert await ids(connection) == []


async def test_what_the_outbox_has_not_looked_at_stays(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1, 2, 3)
        assert await outbox.plan_deliveries(connection, 2, lambda _event: [], 50.0) == 2
        assert await event_retention.prune(connection, 50.0, 10) == 2
        assert await ids(connection) == [3]
        assert await outbox.plan_deliveries(connection, 2, lambda _event: ["hook"], 50.0) == 1
        assert await deliveries_of(connection) == [3]


async def test_one_event_of_the_future_keeps_nothing_back(database: Database) -> None:
    """A node's clock was years ahead for a moment."""
    async with database.write() as connection:
        await add_events(connection, 1, 1e10, 2, 100)
        assert await event_retention.prune(connection, 50.0, 10) == 3
        assert await ids(connection) == [4]


async def test_a_piece_that_is_undone_removes_nothing(database: Database) -> None:
    async with database.write() as connection:
        await add_events(connection, 1, 2)
    with pytest.raises(RuntimeError):
        async with database.write() as connection:
            await event_retention.prune(connection, 50.0, 10)
            raise RuntimeError
    async with database.read() as connection:
        assert await marks.get(connection, marks.REMOVED) is None
        assert [row.id for row in await event_log.read_after(connection, 0, 10)] == [1, 2]
        assert await connection.scalar(select(func.count()).select_from(delivery)) == 0


async def test_housekeeping_removes_all_that_is_past_its_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_EVENTS_AT_ONCE", 3)
    now = time.time()
    async with database.write() as connection:
        await add_events(connection, *[now - 100] * 7, now)
    await housekeeping.forget_events(database, 50.0)
    async with database.read() as connection:
        assert await ids(connection) == [8]
