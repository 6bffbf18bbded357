"""The processing ledger of a message, as workers write it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from work_rows import add_account, add_messages, claim, finished, new_work

from harness import steps
from mailmill.store import ledger, queue
from mailmill.store.database import Database
from mailmill.store.ledger import Ledger
from mailmill.store.queue import Failed


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    async with opened.write() as connection:
        await add_account(connection, 1)
        await add_messages(connection, [1])
    yield opened
    await opened.close()


async def read(database: Database) -> Ledger:
    async with database.read() as connection:
        return await ledger.of_message(connection, 1)


async def run(database: Database, *, version: int = 1, error: str | None = None, again: bool = True) -> None:
    """One run of the version over the message, due or not."""
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(1, version=version)], 10.0)
        await connection.exec_driver_sql("UPDATE work SET state = 'pending' WHERE state = 'waiting'")
        (held,) = await claim(connection)
        if error is None:
            await steps.finish(connection, "w", [finished(held, '{"ok":true}')], [], 20.0)
        else:
            await steps.finish(connection, "w", [], [Failed(held, error, 60.0 if again else None)], 15.0)


async def test_a_result_says_what_it_took_and_what_went_wrong_before(database: Database) -> None:
    await run(database, error="boom")
    (open_work,) = (await read(database)).work
    assert (open_work.state, open_work.attempt, open_work.version) == ("waiting", 1, 1)
    assert [(error.at, error.kind, error.error) for error in open_work.errors] == [(15.0, "attempt", "boom")]
    await run(database)
    held = await read(database)
    assert held.work == ()
    (recorded,) = held.results
    assert (recorded.value, recorded.attempts, recorded.seconds, recorded.finished_at) == ({"ok": True}, 2, 0.1, 20.0)
    assert [error.error for error in recorded.errors] == ["boom"]
    assert recorded.served


async def test_each_version_has_its_own_entry_and_the_newest_is_served(database: Database) -> None:
    for version in (1, 3, 2):
        await run(database, version=version)
    assert [(each.version, each.served) for each in (await read(database)).results] == [
        (3, True),
        (2, False),
        (1, False),
    ]


async def test_what_failed_for_good_stands_beside_the_older_result(database: Database) -> None:
    await run(database)
    await run(database, version=2, error="boom", again=False)
    held = await read(database)
    assert [(each.version, each.served) for each in held.results] == [(1, True)]
    assert [(each.version, each.state) for each in held.work] == [(2, "failed")]


async def test_crashes_are_told_apart(database: Database) -> None:
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(1)], 10.0)
        await claim(connection)
        await queue.reap(connection, dead_after_seconds=0, now=200.0, told_at=200.0)
    (open_work,) = (await read(database)).work
    assert (open_work.state, open_work.attempt, open_work.crashes) == ("pending", 0, 1)
    assert [(error.kind, error.at) for error in open_work.errors] == [("crash", 200.0)]


async def test_a_message_that_nobody_had_has_an_empty_ledger(database: Database) -> None:
    assert await read(database) == Ledger((), ())
