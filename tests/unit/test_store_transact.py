"""A function as a whole transaction (`Database.transact`): on SQLite one visit, behind which others already wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select

from harness import stores
from mailmill.errors import StorageFullError, StoreError
from mailmill.model import EventName
from mailmill.store import event_log, migrate, sqlite_driver
from mailmill.store.database import Database
from mailmill.store.event_log import NewEvent
from mailmill.store.tables import setting

EVENT = NewEvent("default", EventName.ACCOUNT_ADDED, 1.0)


@pytest.fixture
async def database(data_dir: Path) -> AsyncIterator[Database]:
    opened = await stores.open_database(data_dir)
    yield opened
    await opened.close()


def adding(name: str, value: str = "") -> Callable[[Connection], str]:
    def step(connection: Connection) -> str:
        connection.execute(insert(setting).values(name=name, value=value))
        return name

    return step


async def names(database: Database) -> list[str]:
    async with database.read() as connection:
        written = select(setting.c.name).where(setting.c.name != migrate.OLDEST_CODE).order_by(setting.c.name)
        return list((await connection.execute(written)).scalars())


@pytest.mark.both_databases
async def test_what_a_step_did_stands_when_its_answer_comes(database: Database) -> None:
    assert await database.transact(adding("a")) == "a"
    assert await names(database) == ["a"]


@pytest.mark.both_databases
async def test_a_step_that_raises_leaves_nothing_and_the_next_goes_on(database: Database) -> None:
    def step(connection: Connection) -> None:
        adding("a")(connection)
        event_log.append_within(connection, [EVENT])
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            await database.transact(step)
    await database.transact(adding("b"))
    async with database.write() as connection:
        await connection.execute(insert(setting).values(name="c", value=""))
    assert await names(database) == ["b", "c"]


async def test_on_sqlite_what_could_not_be_rolled_back_is_before_the_next_begins(database: Database) -> None:
    def left_open(connection: Connection) -> None:
        """As where the ROLLBACK fails: the transaction is there when the step has ended."""
        adding("a")(connection)
        monkeypatch.setattr(sqlite_driver, "suppress", raising)
        raise KeyError

    class raising:
        def __init__(self, *_: object) -> None:
            raise KeyError

    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(KeyError):
        await database.transact(left_open)
    await database.transact(adding("c"))
    assert await names(database) == ["c"]


async def test_what_no_future_takes_is_an_error_and_nobody_waits_for_ever(database: Database) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await database.transact(lambda _connection: next(iter(())))
        with pytest.raises(RuntimeError, match="StopIteration"):
            async with database.write() as connection:
                await connection.run_sync(lambda _connection: next(iter(())))
    await database.transact(adding("a"))
    assert await names(database) == ["a"]


@pytest.mark.both_databases
async def test_what_the_database_refuses_is_told_as_elsewhere(database: Database) -> None:
    await database.transact(adding("a", "private words"))
    with pytest.raises(StoreError) as refused:
        await database.transact(adding("a", "private words"))
    assert "private words" not in f"{refused.value} {refused.value.__cause__}"
    await database.transact(adding("b"))
    assert await names(database) == ["a", "b"]


async def test_it_gives_hints_for_what_it_inserts_and_keeps(database: Database) -> None:
    def failing(connection: Connection) -> None:
        event_log.append_within(connection, [EVENT])
        raise KeyError

    with pytest.raises(KeyError):
        await database.transact(failing)
    assert not await database.wake.events.wait(0)
    await database.transact(lambda connection: event_log.append_within(connection, [EVENT]))
    assert await database.wake.events.wait(0)
    assert not await database.wake.work.wait(0)


@pytest.mark.both_databases
async def test_one_that_is_cancelled_while_it_runs_is_whole_or_not_at_all(database: Database) -> None:
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    def step(connection: Connection) -> None:
        adding("a")(connection)
        loop.call_soon_threadsafe(begun.set)
        adding("b")(connection)

    task = asyncio.create_task(database.transact(step))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.transact(adding("c"))
    assert await names(database) in (["a", "b", "c"], ["c"])


async def test_on_sqlite_one_that_is_cancelled_while_it_runs_stands_and_is_told(database: Database) -> None:
    loop = asyncio.get_running_loop()

    def step(connection: Connection) -> None:
        event_log.append_within(connection, [EVENT])
        loop.call_soon_threadsafe(task.cancel)
        adding("a")(connection)

    task = asyncio.create_task(database.transact(step))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(database) == ["a"]
    assert await database.wake.events.wait(0)


async def test_steps_and_blocks_take_turns_in_the_order_they_asked(database: Database) -> None:
    """None of them sees, or ends, the transaction of another."""
    order: list[str] = []

    def step_of(name: str, *, fails: bool) -> Callable[[Connection], None]:
        def step(connection: Connection) -> None:
            adding(name)(connection)
            order.append(name)
            if fails:
                raise KeyError(name)

        return step

    async def block(name: str, *, fails: bool) -> None:
        async with database.write() as connection:
            await connection.run_sync(step_of(name, fails=False))
            await asyncio.sleep(0)
            if fails:
                raise KeyError(name)

    def nth(number: int) -> asyncio.Task[None]:
        name, fails = f"{number:02}", number % 5 == 3
        if number % 3 == 1:
            return asyncio.create_task(block(name, fails=fails))
        return asyncio.create_task(database.transact(step_of(name, fails=fails)))

    answers = await asyncio.gather(*(nth(number) for number in range(40)), return_exceptions=True)
    wanted = [f"{number:02}" for number in range(40)]
    assert [name for name, answer in zip(wanted, answers, strict=True) if isinstance(answer, KeyError)] == wanted[3::5]
    assert await names(database) == sorted(set(wanted) - set(wanted[3::5]))
    assert order == wanted


async def test_a_full_disk_says_so_and_loses_nothing(database: Database) -> None:
    await database.transact(adding("kept"))

    def limit(connection: Connection, pages: int = 0) -> None:
        pages = pages or connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    def fill(connection: Connection) -> None:
        for number in range(100):
            adding(f"{number}", "x" * 10_000)(connection)

    await database.transact(limit)
    with pytest.raises(StorageFullError):
        await database.transact(fill)
    await database.transact(lambda connection: limit(connection, 1_000_000))
    await database.transact(adding("and on"))
    assert await names(database) == ["and on", "kept"]
