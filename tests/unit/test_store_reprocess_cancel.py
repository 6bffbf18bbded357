"""Reprocessing that is taken back: what goes, what stays, and what others asked meanwhile."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from work_rows import add_account, add_messages, new_work

from harness import steps
from mailmill.store import queue, reprocess, reprocess_cancel, reprocess_pieces
from mailmill.store.database import Database
from mailmill.store.reprocess import ReprocessRow, Wanted
from mailmill.store.tables import message, work

CREATED_AT = 1000.0
QUEUED_AT = 1001.0


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    async with opened.write() as connection:
        for number in (1, 2):
            await add_account(connection, number)
    yield opened
    await opened.close()


async def stored(database: Database, *message_ids: int, **told: Any) -> None:
    async with database.write() as connection:
        await add_messages(connection, message_ids, **told)


async def asked(database: Database, wanted: Wanted | None = None, now: float = CREATED_AT) -> ReprocessRow:
    async with database.write() as connection:
        return await reprocess.create(connection, "threat", 2, wanted or Wanted(), now)


async def queued(database: Database, row: ReprocessRow, **limits: int) -> ReprocessRow:
    """One piece."""
    async with database.write() as connection:
        found = await reprocess_pieces.look(connection, row, row.position, **limits)
        moved = await reprocess_pieces.put_piece(connection, row, found, QUEUED_AT)
    assert moved is not None
    return moved


async def cancelled(database: Database, row: ReprocessRow) -> tuple[int, ReprocessRow]:
    """How many rows went, and what is told of it."""
    taken = 0
    async with database.write() as connection:
        [marked] = await reprocess_cancel.mark(connection, [row.id])
        assert marked.cancelled
    for step in reprocess_cancel.STEPS:
        piece = -1
        while piece:
            async with database.write() as connection:
                piece = await reprocess_cancel.take_back(connection, marked, step, 1002.0, limit=2)
            taken += max(0, piece)
    async with database.write() as connection:
        assert not await reprocess_cancel.is_left(connection, marked)
        return taken, await reprocess_cancel.close(connection, marked, 1003.0)


async def states(database: Database) -> dict[int, str]:
    async with database.read() as connection:
        return {row.message_id: row.state for row in await connection.execute(select(work))}


async def change(database: Database, *message_ids: int, **values: Any) -> None:
    async with database.write() as connection:
        await connection.execute(update(work).where(work.c.message_id.in_(message_ids)).values(**values))


async def test_what_is_queued_goes_and_nothing_more_is_queued(database: Database) -> None:
    await stored(database, *range(1, 8))
    row = await queued(database, await asked(database), limit=5)
    taken, told = await cancelled(database, row)
    assert (taken, told.state, told.queued, told.finished_at) == (5, "cancelled", 0, 1003.0)
    assert await states(database) == {}
    async with database.write() as connection:
        found = await reprocess_pieces.look(connection, row, row.position)
        assert await reprocess_pieces.put_piece(connection, row, found, QUEUED_AT) is None
        assert await reprocess.list_running(connection) == []
        processed = select(message.c.id).where(message.c.processed_at.is_not(None)).order_by(message.c.id)
        assert list(await connection.scalars(processed)) == [1, 2, 3, 4, 5]


async def test_what_has_begun_goes_on(database: Database) -> None:
    await stored(database, *range(1, 7))
    row = await queued(database, await asked(database))
    async with database.write() as connection:
        await steps.claim(connection, processor="threat", worker_id="w", limit=1, deadline_seconds=60, now=QUEUED_AT)
    crash = json.dumps([{"at": QUEUED_AT + 0.5, "kind": "crash", "error": "it died"}])
    await change(database, 2, state="waiting", attempt=1, errors=crash)
    await change(database, 3, crashes=1, errors=crash)
    await change(database, 4, state="throttled")
    taken, told = await cancelled(database, row)
    assert (taken, told.queued) == (3, 3)
    assert await states(database) == {1: "processing", 2: "waiting", 3: "pending"}


async def test_what_was_in_the_queue_before_stays(database: Database) -> None:
    """New mail, history of a first sync, and what is stored while it goes on under an id from before."""
    await stored(database, *range(1, 6))
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(1), new_work(2, priority=queue.BACKLOG)], 900.0)
        await queue.enqueue(connection, [new_work(3, priority=queue.BACKLOG)], QUEUED_AT)
        await connection.execute(update(message).where(message.c.id == 3).values(stored_at=QUEUED_AT))
        await queue.enqueue(connection, [new_work(3, "summary", priority=queue.BACKLOG)], QUEUED_AT)
    row = await queued(database, await asked(database))
    taken, _ = await cancelled(database, row)
    assert taken == 2
    async with database.read() as connection:
        left = select(work.c.message_id, work.c.processor).order_by(work.c.message_id, work.c.processor)
        assert [tuple(each) for each in await connection.execute(left)] == [
            (1, "threat"), (2, "threat"), (3, "summary"), (3, "threat"),
        ]  # fmt: skip


async def test_what_had_failed_is_failed_again_with_its_errors(database: Database) -> None:
    await stored(database, 1, 2)
    errors = json.dumps(
        [{"at": 600.0, "kind": "attempt", "error": "one"}, {"at": 601.0, "kind": "crash", "error": "two"}]
    )
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(1), new_work(2)], 600.0)
    await change(database, 1, 2, state="failed", attempt=5, crashes=1, errors=errors, last_error="two")
    row = await queued(database, await asked(database, Wanted(failed=True)))
    assert await states(database) == {1: "pending", 2: "pending"}
    assert (await cancelled(database, row))[0] == 2
    async with database.read() as connection:
        found = (await connection.execute(select(work).order_by(work.c.message_id))).all()
    assert [(each.state, each.attempt, each.last_error, each.errors) for each in found] == [
        ("failed", 1, "two", errors)
    ] * 2


async def test_what_is_failed_again_is_there_for_another_one_that_had_brought_it_back(database: Database) -> None:
    """The other was asked for while it was at work, so that its rows go with it."""
    await stored(database, 1, 2)
    errors = json.dumps([{"at": 601.0, "kind": "attempt", "error": "no"}])
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(1), new_work(2)], 600.0)
    await change(database, 1, 2, state="failed", attempt=5, errors=errors, last_error="no")
    row = await asked(database, Wanted(failed=True))
    other = await queued(database, await asked(database, Wanted(everything=True), now=1000.5))
    assert (await cancelled(database, row))[0] == 2
    async with database.read() as connection:
        [again] = await reprocess.list_running(connection)
    assert again.id == other.id
    await queued(database, again)
    assert await states(database) == {1: "pending", 2: "pending"}


async def test_only_its_own_accounts_are_meant(database: Database) -> None:
    await stored(database, 1)
    await stored(database, 2, account_id=2)
    other = await queued(database, await asked(database, Wanted(account_ids=(2,))))
    row = await queued(database, await asked(database, Wanted(account_ids=(1,))))
    assert (await cancelled(database, row))[0] == 1
    assert await states(database) == {2: "pending"}
    assert other.done


async def test_another_one_that_passed_over_its_rows_looks_again(database: Database) -> None:
    await stored(database, 1, 2, 3)
    first = await queued(database, await asked(database))
    second = await queued(database, await asked(database, Wanted(everything=True)))
    assert (second.done, second.queued) == (True, 0), "all were in the queue"
    await cancelled(database, first)
    async with database.read() as connection:
        [again] = await reprocess.list_running(connection)
    assert (again.id, again.position) == (second.id, 0)
    again = await queued(database, again)
    assert again.done
    assert await states(database) == dict.fromkeys((1, 2, 3), "pending")


async def test_one_that_was_over_before_is_left_alone(database: Database) -> None:
    await stored(database, 1)
    before = await queued(database, await asked(database, now=500.0))
    async with database.write() as connection:
        await connection.execute(
            update(reprocess.reprocess).where(reprocess.reprocess.c.id == before.id).values(finished_at=501.0)
        )
    await cancelled(database, await asked(database))
    async with database.read() as connection:
        assert (await reprocess.get(connection, before.id)).done


async def test_a_crash_while_it_is_taken_back_is_carried_on(database: Database) -> None:
    await stored(database, *range(1, 6))
    row = await queued(database, await asked(database))
    async with database.write() as connection:
        await reprocess_cancel.mark(connection, [row.id])
        await reprocess_cancel.take_back(connection, row, reprocess_cancel.STEPS[0], 1002.0, limit=2)
    async with database.read() as connection:
        [left] = await reprocess.list_running(connection)
        assert (left.state, left.queued) == ("cancelling", 3)
        assert await reprocess_cancel.is_left(connection, left)
    assert (await cancelled(database, left))[0] == 3


async def test_all_that_are_marked_together_stay_cancelled(database: Database) -> None:
    """Also the one that passed over the rows of the other, and the other way round."""
    await stored(database, 1, 2, 3)
    first = await queued(database, await asked(database), limit=2)
    second = await queued(database, await asked(database, Wanted(everything=True)))
    async with database.write() as connection:
        marked = await reprocess_cancel.mark(connection, [second.id, first.id, 77])
    assert [(each.id, each.state) for each in marked] == [(first.id, "cancelling"), (second.id, "cancelling")]
    told = [(await cancelled(database, each))[1] for each in marked]
    assert [(each.state, each.queued) for each in told] == [("cancelled", -1), ("cancelled", 1)]
    assert await states(database) == {}
    async with database.write() as connection:
        assert await reprocess.list_running(connection) == []
        again = await reprocess_cancel.mark(connection, [first.id])
    assert [each.state for each in again] == ["cancelled"]
