"""What people do to the queue, beside all others who are at it: pieces, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from work_rows import add_account, add_messages, new_work

from harness import steps
from mailmill.app import queue_sweep
from mailmill.app.work_desk import WorkDesk
from mailmill.errors import NotFoundError
from mailmill.store import queue, queue_operation
from mailmill.store.database import Database
from mailmill.store.queue_outcomes import lock_messages
from mailmill.store.store_clock import StoreClock
from mailmill.store.tables import work

if TYPE_CHECKING:
    from mailmill.app.application import Application

LIMIT = 1


@pytest.fixture
async def database(database_url: str, data_dir: Path) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    await with_accounts(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def fleet_database(postgres_url: str, data_dir: Path) -> AsyncIterator[Database]:
    opened = await Database.open(postgres_url, data_dir=data_dir)
    await with_accounts(opened)
    yield opened
    await opened.close()


async def with_accounts(database: Database) -> None:
    async with database.write() as connection:
        for number in (1, 2):
            await add_account(connection, number)


async def put(connection: AsyncConnection, message_id: int, state: str, *, account_id: int = 1) -> None:
    await add_messages(connection, [message_id], account_id=account_id)
    await queue.enqueue(connection, [new_work(message_id, account_id=account_id)], 10.0)
    await connection.execute(update(work).where(work.c.message_id == message_id).values(state=state))


async def drop(database: Database, *message_ids: int) -> int:
    async with database.write() as connection:
        return await queue.drop(
            connection, message_ids=message_ids or None, processor=None, only_failed=False, now=20.0
        )


async def until_waiting(connection: AsyncConnection) -> None:
    """Until another session waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND datname = current_database()"
    )
    while not await connection.scalar(waiting):
        # What the server tells of others is read once for each transaction.
        await connection.execute(text("SELECT pg_stat_clear_snapshot()"))


async def test_work_is_found_upwards_and_each_message_once(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 8))
        rows = [new_work(number, name) for number in range(1, 8) for name in ("threat", "summary")]
        await queue.enqueue(connection, rows, 10.0)
        await connection.execute(update(work).where(work.c.message_id != 4).values(state="failed"))
        assert await queue_operation.newest_message(connection) == 7

        async def found(after: int, **only: str | None) -> list[int]:
            return await queue_operation.messages_with_work(
                connection,
                message_ids=None,
                processor=only.get("processor"),
                only_failed=bool(only.get("failed", "yes")),
                after=after,
                through=6,
                limit=3,
            )

        assert await found(0, processor="threat") == [1, 2, 3]
        assert await found(3, processor="threat") == [5, 6]
        assert await found(3, processor="threat", failed=None) == [4, 5, 6]
        assert await found(0) == [1, 2]
        assert await found(6) == []
        assert await queue_operation.count_work(connection, processor="threat", only_failed=True) == 6
        assert await queue_operation.count_work(connection, processor=None, only_failed=False) == 14


async def test_giving_up_does_not_wait_for_rows_that_are_being_let_in(fleet_database: Database) -> None:
    """Nor they for it: each has one of two rows, in its own order, and wants the other."""
    async with fleet_database.write() as connection:
        await put(connection, 1, "throttled", account_id=2)
        await put(connection, 2, "throttled", account_id=1)
    async with asyncio.timeout(30):
        async with fleet_database.write() as connection:
            await queue.take_turns(connection, ["threat"])
            assert await queue.let_in(connection, "threat", [1], LIMIT) == 1
            assert await drop(fleet_database) == 1
            assert await queue.let_in(connection, "threat", [2], LIMIT) == 0
        assert await drop(fleet_database) == 1


async def test_giving_up_holds_no_work_while_it_waits_for_a_message(fleet_database: Database) -> None:
    """Whoever finishes that message may be about to let in a row that is being given up."""
    last = 600  # more than one statement names
    async with fleet_database.write() as connection:
        await put(connection, 1, "throttled")
        await put(connection, last, "pending")
    async with asyncio.timeout(30):
        async with fleet_database.write() as connection:
            await queue.take_turns(connection, ["threat"])
            await lock_messages(connection, [last])
            dropping = asyncio.create_task(drop(fleet_database, *range(1, last + 1)))
            await until_waiting(connection)
            assert await queue.let_in(connection, "threat", [1], LIMIT) == 1
        assert await dropping == 2


async def test_work_that_is_given_back_is_not_waited_for(fleet_database: Database) -> None:
    async with fleet_database.write() as connection:
        await put(connection, 1, "pending")
        await put(connection, 2, "pending")
        await steps.claim(connection, processor="threat", worker_id="w", limit=1, deadline_seconds=60, now=20.0)
    async with asyncio.timeout(30):
        async with fleet_database.write() as connection:
            assert await queue.release_all(connection, "w") == 1
            assert await drop(fleet_database) == 1
        async with fleet_database.read() as connection:
            assert (await connection.execute(select(work.c.message_id, work.c.state))).all() == [(1, "pending")]


# -- at the desk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(database: Database, monkeypatch: pytest.MonkeyPatch) -> WorkDesk:
    """Whose pieces are of two rows."""
    monkeypatch.setattr(queue_sweep, "_PIECE_ROWS", 2)
    return WorkDesk(cast("Application", SimpleNamespace(database=database, clock=StoreClock(database), processors=[])))


async def failed(database: Database) -> list[int]:
    async with database.read() as connection:
        rows = select(work.c.message_id).where(work.c.state == "failed").order_by(work.c.message_id)
        return list(await connection.scalars(rows))


async def test_what_fails_again_meanwhile_is_not_tried_for_ever(
    database: Database, desk: WorkDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.write() as connection:
        for number in range(1, 6):
            await put(connection, number, "failed")
    pieces: list[list[int]] = []
    told: list[dict[str, Any]] = []
    retry = queue.retry

    async def retry_and_fail(connection: AsyncConnection, *, message_ids: Sequence[int], **options: Any) -> int:
        pieces.append(list(message_ids))
        told.append(desk.operation()["running"])
        rows = await retry(connection, message_ids=message_ids, **options)
        await connection.execute(update(work).where(work.c.message_id.in_(message_ids)).values(state="failed"))
        return rows

    monkeypatch.setattr(queue, "retry", retry_and_fail)
    assert (await desk.retry(message_ids=None, processor=None))["retried"] == 5
    assert pieces == [[1, 2], [3, 4], [5]]
    assert [(each["task"], each["done"], each["total"]) for each in told] == [
        ("retry", 0, 5), ("retry", 2, 5), ("retry", 4, 5),
    ]  # fmt: skip
    assert desk.operation() == {"running": None}


async def test_a_retry_that_was_cut_goes_on_where_it_ended(
    database: Database, desk: WorkDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.write() as connection:
        for number in range(1, 6):
            await put(connection, number, "failed")
    retry, asked = queue.retry, 0

    async def cut_at_the_second(connection: AsyncConnection, **options: Any) -> int:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise asyncio.CancelledError
        return await retry(connection, **options)

    monkeypatch.setattr(queue, "retry", cut_at_the_second)
    with pytest.raises(asyncio.CancelledError):
        await desk.retry(message_ids=None, processor=None)
    assert desk.operation() == {"running": None}
    assert await failed(database) == [3, 4, 5]
    assert (await desk.retry(message_ids=None, processor=None))["retried"] == 3
    assert await failed(database) == []


async def test_named_messages_are_retried_and_no_others(database: Database, desk: WorkDesk) -> None:
    async with database.write() as connection:
        for number in range(1, 6):
            await put(connection, number, "failed")
        await put(connection, 6, "pending")
    told = await desk.retry(message_ids=["88", "6", "2", "4", "77"], processor="threat")
    assert told == {"retried": 2, "unknown": ["77", "88"], "unaffected": ["6"]}
    assert await failed(database) == [1, 3, 5]


async def test_what_is_given_up_leaves_out_what_has_not_failed_and_says_so(database: Database, desk: WorkDesk) -> None:
    async with database.write() as connection:
        await put(connection, 1, "failed")
        await put(connection, 2, "pending")
    asked: dict[str, Any] = {"message_ids": ["1", "2", "3"], "processor": None, "everything": False}
    assert await desk.drop(**asked, any_state=False) == {"dropped": 1, "unknown": ["3"], "unaffected": ["2"]}
    assert await desk.drop(**asked, any_state=True) == {"dropped": 1, "unknown": ["3"], "unaffected": ["1"]}


async def test_a_processor_that_nobody_knows_is_an_error_wherever_it_is_named(
    database: Database, desk: WorkDesk
) -> None:
    async with database.write() as connection:
        await put(connection, 1, "failed")
    cast("Any", desk)._app.processors = [SimpleNamespace(name="summary")]
    for attempt in (
        desk.rows(state=None, processor="sumary", limit=10),
        desk.retry(message_ids=["1"], processor="sumary"),
        desk.drop(message_ids=None, processor="sumary", everything=False, any_state=True),
    ):
        with pytest.raises(NotFoundError, match=r"'sumary'; did you mean 'summary'\?"):
            await attempt
    assert await failed(database) == [1]
    # One that no node here runs and that has work is known.
    assert len(await desk.rows(state=None, processor="threat", limit=10)) == 1
    assert await desk.rows(state=None, processor="summary", limit=10) == []


async def test_what_was_passed_over_is_given_up_in_a_later_pass(
    database: Database, desk: WorkDesk, monkeypatch: pytest.MonkeyPatch, wrong_lock_order: list[str]
) -> None:
    """And mail that comes meanwhile is not meant."""
    async with database.write() as connection:
        for number in range(1, 6):
            await put(connection, number, "failed")
    drop, passed_over = queue.drop, [2, 5]

    async def drop_what_is_free(connection: AsyncConnection, *, message_ids: Sequence[int], **options: Any) -> int:
        free = [each for each in message_ids if each not in passed_over]
        if 5 in message_ids and passed_over:
            passed_over.clear()
            await put(connection, 6, "failed")
            wrong_lock_order.clear()  # of rows that nobody but the test would write here
        return await drop(connection, message_ids=free, **options) if free else 0

    monkeypatch.setattr(queue, "drop", drop_what_is_free)
    told = await desk.drop(message_ids=None, processor=None, everything=True, any_state=False)
    assert told == {"dropped": 5, "unknown": [], "unaffected": []}
    assert await failed(database) == [6]
