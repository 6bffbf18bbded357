"""The event log: what goes in comes out, in order, and nothing is given twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import CursorAheadError
from mailmill.model import EventName
from mailmill.store import event_log, sequencer
from mailmill.store.database import Database
from mailmill.store.event_log import NewEvent
from mailmill.store.tables import event


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    yield opened
    await opened.close()


def new(message_id: int) -> NewEvent:
    return NewEvent("default", EventName.MESSAGE_NEW, 5.0, message_id=message_id)


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
        await sequencer.number(connection)
    async with database.read() as connection:
        (row,) = await event_log.read_after(connection, 0, 10)
    assert (row.tenant_id, row.event, row.created_at, row.account_id) == ("default", "messageUpdated", 12.5, 3)
    assert (row.path, row.special_use, row.message_id, row.historical) == ("Entwürfe\ufffd", "\\Drafts", 9, True)
    assert row.data == {"added": ["INBOX"], "odd": "\ud800\x00"}


async def test_reading_goes_on_behind_the_cursor(database: Database) -> None:
    async with database.write() as connection:
        await event_log.append(connection, [])
        assert await event_log.head(connection) == 0
        assert await event_log.read_after(connection, 0, 100) == []
        await append(connection, 7)
    async with database.read() as connection:
        assert await event_log.head(connection) == 7
        first = await event_log.read_after(connection, 0, 3)
        rest = await event_log.read_after(connection, first[-1].position, 100)
        assert [row.message_id for row in first + rest] == [1, 2, 3, 4, 5, 6, 7]
        assert [row.position for row in first + rest] == [1, 2, 3, 4, 5, 6, 7]
        assert await event_log.read_after(connection, 7, 100) == []
        found = await event_log.get(connection, [2, 5, 99])
        assert sorted(found) == [2, 5]
        assert found[5].position == first[1].position + 3


async def test_an_id_is_never_given_twice(database: Database) -> None:
    async with database.write() as connection:
        await append(connection, 2)
        await connection.execute(delete(event))
        await append(connection, 1)
        assert [row.id for row in await event_log.read_after(connection, 0, 10)] == [3]


async def test_an_event_goes_with_its_transaction_and_wakes_readers(database: Database) -> None:
    with pytest.raises(RuntimeError, match="undone"):
        async with database.write() as connection:
            await event_log.append(connection, [new(1)])
            raise RuntimeError("undone")
    async with database.read() as connection:
        assert await event_log.head(connection) == 0
    with database.wake.events.subscribe() as hint:
        async with database.write() as connection:
            await event_log.append(connection, [new(1)])
        while True:
            assert await hint.wait(5), "no hint came"
            async with database.read() as connection:
                if await event_log.head(connection):  # a hint may come for nothing
                    assert await event_log.is_numbered(connection)
                    break


async def test_a_cursor_of_another_database_is_told(database: Database) -> None:
    async with database.write() as connection:
        await append(connection, 2)
        assert await event_log.read_after(connection, 2, 10) == []
        with pytest.raises(CursorAheadError, match="cursor 3 is ahead of the event log, which ends at 2") as caught:
            await event_log.read_after(connection, 3, 10)
    assert caught.value.newest == 2
    assert "backup" in caught.value.hint


async def append(connection: AsyncConnection, count: int) -> None:
    await event_log.append(connection, [new(number) for number in range(1, count + 1)])
    await sequencer.number(connection)
