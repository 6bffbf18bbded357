"""A processor run again over the past: which messages, in pieces, with nothing lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update
from work_rows import add_account, add_messages, add_place, finished, new_work

from harness import steps
from mailmill.errors import NotFoundError
from mailmill.store import ledger, outbox, queue, reprocess, reprocess_pieces, reprocess_scope, sequencer
from mailmill.store.database import Database
from mailmill.store.message_queries import get_message
from mailmill.store.queue import Claim, Failed
from mailmill.store.reprocess import ReprocessRow, Wanted
from mailmill.store.reprocess_pieces import Look
from mailmill.store.tables import account, delivery, event, message, result, work

CREATED_AT = 1000.0


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    async with opened.write() as connection:
        await add_account(connection, 1)
        await add_account(connection, 2)
    yield opened
    await opened.close()


async def stored(database: Database, *message_ids: int, **told: Any) -> None:
    async with database.write() as connection:
        await add_messages(connection, message_ids, **told)


async def have_result(
    database: Database, *message_ids: int, version: int = 1, finished_at: float = 500.0, value: str = '"old"'
) -> None:
    async with database.write() as connection:
        for message_id in message_ids:
            await connection.execute(
                insert(result).values(
                    message_id=message_id,
                    processor="threat",
                    version=version,
                    value=value,
                    attempts=1,
                    seconds=0.1,
                    finished_at=finished_at,
                )
            )
        await connection.execute(update(message).where(message.c.id.in_(message_ids)).values(processed_at=finished_at))


async def have_work(
    database: Database, *message_ids: int, state: str = "pending", version: int = 1, **told: Any
) -> None:
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(each, version=version) for each in message_ids], 600.0)
        await connection.execute(
            update(work).where(work.c.message_id.in_(message_ids)).values(state=state, enqueued_at=600.0, **told)
        )


async def asked(
    database: Database, wanted: Wanted | None = None, version: int = 2, now: float = CREATED_AT
) -> ReprocessRow:
    async with database.write() as connection:
        return await reprocess.create(connection, "threat", version, wanted or Wanted(), now)


async def look(database: Database, row: ReprocessRow, **limits: int) -> Look:
    async with database.read() as connection:
        return await reprocess_pieces.look(connection, row, row.position, **limits)


async def left(database: Database, row: ReprocessRow) -> int:
    async with database.read() as connection:
        return await reprocess_scope.left(connection, row)


async def piece(
    database: Database, row: ReprocessRow, found: Look | None = None, now: float = 1001.0, **limits: int
) -> ReprocessRow | None:
    found = found or await look(database, row, **limits)
    async with database.write() as connection:
        return await reprocess_pieces.put_piece(connection, row, found, now)


async def all_of(database: Database, row: ReprocessRow, now: float = 1001.0, **limits: int) -> ReprocessRow:
    """All pieces, as far as they go."""
    while not row.done:
        moved = await piece(database, row, now=now, **limits)
        assert moved is not None
        if moved.position <= row.position and not moved.done:
            return moved
        row = moved
    return row


async def found_by(database: Database, wanted: Wanted | None = None, version: int = 2) -> list[int]:
    return (await look(database, await asked(database, wanted, version))).message_ids


async def rows(database: Database) -> dict[int, tuple[str, int, int]]:
    """message id → state, version, priority."""
    async with database.read() as connection:
        found = await connection.execute(select(work).where(work.c.processor == "threat"))
        return {row.message_id: (row.state, row.version, row.priority) for row in found}


async def claimed(database: Database, version: int = 2, now: float = 1002.0) -> list[Claim]:
    async with database.write() as connection:
        return await steps.claim(
            connection,
            processor="threat",
            worker_id="w",
            limit=100,
            deadline_seconds=3600,
            now=now,
            version=version,
        )


async def finish(database: Database, done: Sequence[Claim], value: str, announce: tuple[str, ...] = ()) -> None:
    async with database.write() as connection:
        await steps.finish(connection, "w", [finished(each, value, announce) for each in done], [], 1003.0)


async def told(database: Database) -> list[tuple[str, int | None, bool]]:
    async with database.read() as connection:
        found = await connection.execute(select(event).order_by(event.c.id))
        return [(row.event, row.message_id, row.historical) for row in found]


async def results(database: Database, message_id: int) -> list[tuple[int, Any, bool]]:
    async with database.read() as connection:
        held = await ledger.of_message(connection, message_id)
    return [(each.version, each.value, each.served) for each in held.results]


async def status(database: Database, message_id: int) -> str:
    async with database.read() as connection:
        found = await connection.exec_driver_sql(
            f"SELECT processing_status FROM email_status WHERE message_id = {message_id}"
        )
        return str(found.scalar_one())


# -- which messages ---------------------------------------------------------------------------------------------------


async def test_messages_without_a_result_of_the_version_that_runs(database: Database) -> None:
    await stored(database, 1, 2, 3, 4)
    await have_result(database, 1)
    await have_result(database, 2, version=2)
    await have_result(database, 3, version=3)
    assert await found_by(database) == [1, 4]


async def test_messages_below_a_version(database: Database) -> None:
    await stored(database, 1, 2, 3)
    await have_result(database, 1)
    await have_result(database, 2, version=2)
    assert await found_by(database, Wanted(below=2), version=5) == [1, 3]


async def test_all_messages_but_those_done_since(database: Database) -> None:
    await stored(database, 1, 2, 3)
    await have_result(database, 1, version=2)
    await have_result(database, 2, version=2, finished_at=CREATED_AT + 1)
    assert await found_by(database, Wanted(everything=True)) == [1, 3]


async def test_what_failed_at_this_version_stays_failed_unless_it_is_asked_for(database: Database) -> None:
    await stored(database, 1, 2, 3)
    await have_work(database, 1, state="failed", version=1)
    await have_work(database, 2, state="failed", version=2)
    assert await found_by(database) == [1, 3]
    assert await found_by(database, Wanted(failed=True)) == [1, 2]
    assert await found_by(database, Wanted(everything=True)) == [1, 2, 3]


async def test_accounts_dates_and_mailboxes(database: Database) -> None:
    await stored(database, 1, 2, 3)
    await stored(database, 4, account_id=2)
    async with database.write() as connection:
        await connection.execute(update(message).values(internal_date=message.c.id * 10.0))
        await add_place(connection, 1, "INBOX")
        await add_place(connection, 2, "Lists")
        await add_place(connection, 3, "INBOX")
    assert await found_by(database, Wanted(account_ids=(2,))) == [4]
    assert await found_by(database, Wanted(since=20.0, until=40.0)) == [2, 3]
    assert await found_by(database, Wanted(mailboxes=("INBOX",))) == [1, 3]
    async with database.read() as connection:
        assert await reprocess.missing_mailboxes(connection, Wanted(mailboxes=("INBOX", "No"))) == ["No"]
        other = Wanted(mailboxes=("INBOX",), account_ids=(2,))
        assert await reprocess.missing_mailboxes(connection, other) == ["INBOX"]


async def test_what_cannot_be_processed_any_more_is_left_out(database: Database) -> None:
    await stored(database, 1, 2, 3)
    await stored(database, 4, account_id=2)
    async with database.write() as connection:
        await connection.execute(update(message).where(message.c.id == 1).values(deleted_at=5.0))
        await connection.execute(update(message).where(message.c.id == 2).values(raw_expired_at=5.0))
        await connection.execute(update(account).where(account.c.id == 2).values(removing_at=5.0))
    assert await found_by(database) == [3]


async def test_mail_that_comes_later_is_not_its_business(database: Database) -> None:
    await stored(database, 1)
    row = await asked(database)
    await stored(database, 2)
    assert (await look(database, row)).message_ids == [1]
    assert (await all_of(database, row)).queued == 1


# -- into the queue ---------------------------------------------------------------------------------------------------


async def test_it_is_queued_in_pieces_behind_new_mail(database: Database) -> None:
    await stored(database, *range(1, 8))
    row = await asked(database)
    first = await piece(database, row, limit=3)
    assert first is not None
    assert (first.position, first.queued, first.done) == (3, 3, False)
    assert await rows(database) == dict.fromkeys((1, 2, 3), ("pending", 2, queue.BACKLOG))
    ended = await all_of(database, first, limit=3)
    assert (ended.queued, ended.done, ended.finished_at) == (7, True, 1001.0)
    await stored(database, 8)
    await have_work(database, 8, version=2)
    assert [each.message_id for each in await claimed(database)] == [8, 1, 2, 3, 4, 5, 6, 7]


async def test_windows_in_which_nothing_is_wanted_are_passed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reprocess_pieces, "WINDOW_MESSAGES", 2)
    await stored(database, *range(1, 8))
    await have_result(database, *range(1, 7), version=2)
    row = await asked(database)
    assert await look(database, row) == ([], 2)
    assert (await all_of(database, row)).queued == 1
    assert list(await rows(database)) == [7]


async def test_a_piece_that_was_put_is_not_put_again(database: Database) -> None:
    """As after a crash, or where two processes carry on at once."""
    await stored(database, 1, 2)
    row = await asked(database)
    found = await look(database, row)
    assert await piece(database, row, found) is not None
    (one, _) = await claimed(database)
    await finish(database, [one], '"new"')
    assert await piece(database, row, found) is None
    async with database.read() as connection:
        again = await reprocess.get(connection, row.id)
        assert await reprocess.list_running(connection) == []
    assert again.queued == 2
    assert list(await rows(database)) == [2]


async def test_what_was_done_since_the_look_is_not_queued(database: Database) -> None:
    await stored(database, 1, 2, 3)
    row = await asked(database)
    found = await look(database, row)
    await have_result(database, 1, version=2)
    await have_work(database, 2, version=2)
    moved = await piece(database, row, found)
    assert moved is not None
    assert moved.queued == 1
    assert await rows(database) == {2: ("pending", 2, queue.NEW_MAIL), 3: ("pending", 2, queue.BACKLOG)}


async def test_asked_for_twice_it_is_queued_once(database: Database) -> None:
    await stored(database, 1, 2)
    assert (await all_of(database, await asked(database))).queued == 2
    assert (await all_of(database, await asked(database))).queued == 0


async def test_what_is_queued_stays_and_becomes_the_new_version_s(database: Database) -> None:
    await stored(database, 1, 2, 3)
    await have_work(database, 1, version=1)
    await have_work(database, 2, version=1, state="waiting", attempt=2)
    assert (await all_of(database, await asked(database))).queued == 1
    assert await rows(database) == {
        1: ("pending", 2, queue.NEW_MAIL),
        2: ("waiting", 2, queue.NEW_MAIL),
        3: ("pending", 2, queue.BACKLOG),
    }
    assert [each.message_id for each in await claimed(database, version=1)] == []


async def test_what_an_older_version_is_running_over_is_looked_at_again(database: Database) -> None:
    await stored(database, 1, 2, 3)
    await have_work(database, 2, version=1)
    (old,) = await claimed(database, version=1)
    row = await all_of(database, await asked(database))
    assert (row.done, row.position, row.queued) == (False, 1, 2)
    await finish(database, [old], '"old"')
    row = await all_of(database, row)
    assert (row.done, row.queued) == (True, 3)
    assert (await rows(database))[2] == ("pending", 2, queue.BACKLOG)


async def test_a_failed_row_comes_back_and_one_that_killed_its_worker_alone(database: Database) -> None:
    await stored(database, 1, 2)
    await have_work(
        database, 1, state="failed", attempt=5, last_error="boom", errors='[{"at":1,"kind":"attempt","error":"boom"}]'
    )
    await have_work(database, 2, state="failed", crashes=4)
    await all_of(database, await asked(database))
    async with database.read() as connection:
        held = (await connection.execute(select(work).order_by(work.c.message_id))).all()
        open_work = (await ledger.of_message(connection, 1)).work
    assert [(row.state, row.version, row.priority, row.attempt, row.crashes, row.last_error) for row in held] == [
        ("pending", 2, queue.BACKLOG, 0, 0, ""),
        ("pending", 2, queue.BACKLOG, 0, 1, ""),
    ]
    assert [error.error for error in open_work[0].errors] == ["boom"]


async def test_what_the_queue_holds_of_a_processor(database: Database) -> None:
    await stored(database, 1, 2, 3, 4)
    await have_work(database, 4, state="failed", version=2)
    await all_of(database, await asked(database))
    held = await claimed(database)
    async with database.write() as connection:
        await steps.finish(connection, "w", [finished(held[0])], [_failed(held[1])], 1003.0)
    async with database.write() as connection:
        assert await reprocess.lane(connection, "threat") == reprocess.Lane(oldest_at=1001.0, failed=2)
        await connection.execute(work.delete().where(work.c.state != "failed"))
        assert await reprocess.lane(connection, "threat") == reprocess.Lane(oldest_at=None, failed=2)


async def test_what_is_left_is_what_waits_for_its_messages_whoever_queued_it(database: Database) -> None:
    await stored(database, 1, 2, 3)
    await stored(database, 4, account_id=2)
    async with database.write() as connection:
        await connection.execute(update(message).values(internal_date=message.c.id * 10.0))
        await add_place(connection, 2, "Lists")
    await have_work(database, 1, state="waiting")
    await all_of(database, await asked(database))
    assert await left(database, await all_of(database, await asked(database))) == 4
    assert await left(database, await asked(database, Wanted(account_ids=(2,)))) == 1
    assert await left(database, await asked(database, Wanted(since=20.0, until=40.0))) == 2
    assert await left(database, await asked(database, Wanted(mailboxes=("Lists",)))) == 1
    assert await left(database, await asked(database, Wanted(failed=True), now=1002.0)) == 0, "none of these had failed"
    await claimed(database)
    async with database.write() as connection:
        await connection.execute(update(work).where(work.c.message_id == 2).values(state="failed"))
    assert await left(database, await asked(database)) == 3


async def test_what_was_queued_after_its_own_last_row_is_not_left_of_it(database: Database) -> None:
    await stored(database, 1)
    row = await all_of(database, await asked(database))
    await finish(database, await claimed(database), '"new"')
    await stored(database, 2)
    later = await all_of(database, await asked(database, Wanted(everything=True), now=1004.0), now=1005.0)
    assert (await left(database, row), await left(database, later)) == (0, 2)


async def test_what_failed_since_it_was_queued_is_not_brought_back_by_a_second_look(database: Database) -> None:
    await stored(database, 1, 2)
    await have_work(database, 1, state="failed")
    for wanted in (Wanted(failed=True), Wanted(everything=True)):
        row = await all_of(database, await asked(database, wanted))
        async with database.write() as connection:
            await connection.execute(update(work).values(state="failed"))
        assert await look(database, replace(row, position=0)) == ([], 2)
        async with database.write() as connection:
            await connection.execute(update(work).values(enqueued_at=600.0))


async def test_totals_and_lists(database: Database) -> None:
    await stored(database, 1)
    row = await asked(database, Wanted(mailboxes=("INBOX",), since=1.5))
    async with database.write() as connection:
        await reprocess.set_total(connection, row.id, 4)
        await reprocess.set_total(connection, row.id, 5)
    async with database.read() as connection:
        again = await reprocess.get(connection, row.id)
        assert (again.total, again.wanted) == (4, Wanted(mailboxes=("INBOX",), since=1.5))
        assert await reprocess.list_running(connection) == [again]
        assert await reprocess.list_all(connection) == [again]
        with pytest.raises(NotFoundError):
            await reprocess.get(connection, row.id + 1)
        preview = await reprocess.preview(connection, "threat", 2, Wanted(), 1.0)
        assert preview.last_id == 1


async def test_what_was_done_long_ago_is_forgotten(database: Database) -> None:
    row = await all_of(database, await asked(database))
    async with database.write() as connection:
        await reprocess.create(connection, "threat", 2, Wanted(), 1001.0 + reprocess.KEPT_SECONDS + 1)
    async with database.read() as connection:
        with pytest.raises(NotFoundError):
            await reprocess.get(connection, row.id)


# -- what becomes of it -----------------------------------------------------------------------------------------------


async def test_the_old_version_s_result_is_served_until_the_new_one_has_succeeded(database: Database) -> None:
    await stored(database, 1)
    await have_result(database, 1)
    assert await status(database, 1) == "completed"
    await all_of(database, await asked(database))
    assert await status(database, 1) == "pending"
    assert await results(database, 1) == [(1, "old", True)]
    (held,) = await claimed(database)
    assert await status(database, 1) == "processing"
    async with database.write() as connection:
        await steps.finish(connection, "w", [], [_failed(held, again=True)], 1003.0)
    assert await results(database, 1) == [(1, "old", True)]
    async with database.write() as connection:
        await connection.execute(update(work).values(state="pending"))
    await finish(database, await claimed(database), '"new"')
    assert await results(database, 1) == [(2, "new", True), (1, "old", False)]
    assert await status(database, 1) == "completed"


async def test_the_same_version_replaces_its_result_only_when_it_has_succeeded(database: Database) -> None:
    await stored(database, 1)
    await have_result(database, 1, version=2)
    await all_of(database, await asked(database, Wanted(everything=True)))
    (held,) = await claimed(database)
    async with database.write() as connection:
        await steps.finish(connection, "w", [], [_failed(held)], 1003.0)
    assert await results(database, 1) == [(2, "old", True)]
    assert await status(database, 1) == "failed"
    await all_of(database, await asked(database, Wanted(failed=True), now=1004.0))
    await finish(database, await claimed(database), '"new"')
    assert await results(database, 1) == [(2, "new", True)]


async def test_what_it_raises_is_history(database: Database) -> None:
    await stored(database, 1, 2)
    await have_result(database, 1, 2)
    await all_of(database, await asked(database))
    one, two = await claimed(database)
    await finish(database, [one], '"new"', ("threatFound",))
    async with database.write() as connection:
        await steps.finish(connection, "w", [], [_failed(two)], 1004.0)
    assert await told(database) == [
        ("threatFound", 1, True),
        ("messageProcessed", 1, True),
        ("messageFailed", 2, True),
    ]
    async with database.write() as connection:
        assert (await get_message(connection, 1)).processed_at == 1003.0
        await sequencer.number(connection)
        assert await outbox.plan_deliveries(connection, 100, lambda _event: ["hook"], 1005.0) == 3
        assert await connection.scalar(select(func.count()).select_from(delivery)) == 0


async def test_new_mail_is_told_as_news_whatever_else_is_asked_of_it(database: Database) -> None:
    """Reprocessing comes while the message has its first run: that it is processed is told once, to everybody."""
    await stored(database, 1)
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(1, "summary")], 600.0)
    await all_of(database, await asked(database))
    async with database.write() as connection:
        (summary,) = await steps.claim(
            connection, processor="summary", worker_id="w", limit=9, deadline_seconds=60, now=700.0
        )
        await steps.finish(connection, "w", [finished(summary)], [], 701.0)
    await finish(database, await claimed(database), '"new"', ("threatFound",))
    assert await told(database) == [("threatFound", 1, True), ("messageProcessed", 1, False)]


async def test_mail_that_no_processor_ever_had_is_no_news_either(database: Database) -> None:
    await stored(database, 1)
    await all_of(database, await asked(database))
    await finish(database, await claimed(database), '"new"')
    assert await told(database) == [("messageProcessed", 1, True)]


async def test_of_several_processors_the_last_one_tells(database: Database) -> None:
    await stored(database, 1)
    await have_result(database, 1)
    await all_of(database, await asked(database))
    async with database.write() as connection:
        other = await reprocess.create(connection, "summary", 1, Wanted(), CREATED_AT)
    await all_of(database, other)
    await finish(database, await claimed(database), '"new"')
    assert await told(database) == []
    async with database.write() as connection:
        (summary,) = await steps.claim(
            connection, processor="summary", worker_id="w", limit=9, deadline_seconds=60, now=1004.0
        )
        await steps.finish(connection, "w", [finished(summary)], [], 1005.0)
    assert await told(database) == [("messageProcessed", 1, True)]


def _failed(claim: Claim, *, again: bool = False) -> Failed:
    return Failed(claim, "boom", 60.0 if again else None)


async def test_taking_over_does_not_wait_for_rows_that_are_being_let_in(postgres_url: str, data_dir: Path) -> None:
    """Nor they for it: each has one of two rows, in its own order, and wants the other."""
    database = await Database.open(postgres_url, data_dir=data_dir)
    try:
        async with database.write() as connection:
            for number in (1, 2):
                await add_account(connection, number)
            for number in (1, 2):
                await add_messages(connection, [number], account_id=3 - number)
                await queue.enqueue(connection, [new_work(number, account_id=3 - number)], 600.0)
            await connection.execute(update(work).values(state="throttled"))
        row = await asked(database)
        async with asyncio.timeout(30):
            async with database.write() as connection:
                await queue.take_turns(connection, ["threat"])
                assert await queue.let_in(connection, "threat", [1], 1) == 1
                moved = await piece(database, row)
                assert await queue.let_in(connection, "threat", [2], 1) == 1
            assert moved is not None
            assert not moved.done, "the one that was held is looked at again"
            assert (await all_of(database, moved)).done
        assert {version for _, version, _ in (await rows(database)).values()} == {2}
    finally:
        await database.close()
