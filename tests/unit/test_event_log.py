"""The event log: what goes in comes out, in order, and ids are never given twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete

from mailmill.model import EventName
from mailmill.store import event_log
from mailmill.store.database import Database
from mailmill.store.event_log import NewEvent
from mailmill.store.tables import event


@pytest.fixture
async def database(data_dir: Path) -> AsyncIterator[Database]:
    opened = await Database.open(f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}", data_dir=data_dir)
    yield opened
    await opened.close()


def new(message_id: int, *, historical: bool = False) -> NewEvent:
    return NewEvent("default", EventName.MESSAGE_NEW, 5.0, message_id=message_id, historical=historical)


async def test_what_goes_in_comes_out(database: Database) -> None:
    async with database.write() as connection:
        await event_log.append(
            connection,
            [
                NewEvent(
                    "default",
                    EventName.MESSAGE_UPDATED,
                    12.5,
                    account_id=3,
                    path="Entwürfe\x00",
                    special_use="\\Drafts",
                    message_id=9,
                    historical=True,
                    data={"added": ["INBOX"], "odd": "\ud800\x00"},
                )
            ],
        )
    async with database.read() as connection:
        (row,) = await event_log.read_after(connection, 0, 10)
    assert (row.tenant_id, row.event, row.created_at, row.account_id) == ("default", "messageUpdated", 12.5, 3)
    assert (row.path, row.special_use, row.message_id, row.historical) == ("Entwürfe\ufffd", "\\Drafts", 9, True)
    assert row.data == {"added": ["INBOX"], "odd": "\ud800\x00"}


async def test_reading_goes_on_behind_the_cursor(database: Database) -> None:
    async with database.write() as connection:
        await event_log.append(connection, [])
        assert await event_log.head(connection) == 0
        await event_log.append(connection, [new(n, historical=n % 2 == 0) for n in range(1, 8)])
    async with database.read() as connection:
        assert await event_log.head(connection) == 7
        first = await event_log.read_after(connection, 0, 3)
        rest = await event_log.read_after(connection, first[-1].id, 100)
        assert [row.message_id for row in first + rest] == [1, 2, 3, 4, 5, 6, 7]
        assert await event_log.read_after(connection, 7, 100) == []
        live = await event_log.read_after(connection, 0, 100, deliverable_only=True)
        assert [row.message_id for row in live] == [1, 3, 5, 7]
        assert sorted(await event_log.get(connection, [2, 5, 99])) == [2, 5]


async def test_an_id_is_never_given_twice(database: Database) -> None:
    async with database.write() as connection:
        await event_log.append(connection, [new(1), new(2)])
        await connection.execute(delete(event))
        await event_log.append(connection, [new(3)])
        assert [row.id for row in await event_log.read_after(connection, 0, 10)] == [3]


async def test_an_event_goes_with_its_transaction_and_wakes_readers(database: Database) -> None:
    with pytest.raises(RuntimeError, match="undone"):
        async with database.write() as connection:
            await event_log.append(connection, [new(1)])
            raise RuntimeError("undone")
    async with database.read() as connection:
        assert await event_log.head(connection) == 0
    async with database.write() as connection:
        await event_log.append(connection, [new(1)])
    assert await database.wake.events.wait(5)
