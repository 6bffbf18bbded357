"""The queue on both databases: claims, the fence, what finishing writes, who is dead, and fair order."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy import event as sa_event
from sqlalchemy.ext.asyncio import AsyncConnection
from work_rows import add_account, add_messages, add_place, claim, events, finished, new_work, told

from harness import steps
from mailmill.store import dialect, queue
from mailmill.store.database import Database
from mailmill.store.message_queries import get_message
from mailmill.store.queue import Failed, Finished
from mailmill.store.tables import message, place, result, work


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    async with opened.write() as connection:
        await add_account(connection, 1)
        await add_account(connection, 2)
    yield opened
    await opened.close()


FIRST = 10_000_000
"""The fence of a row that was enqueued at 10.0."""


async def reap(connection: AsyncConnection, *, now: float) -> int:
    return await queue.reap(connection, dead_after_seconds=10, now=now, told_at=now)


async def states(database: Database) -> dict[tuple[int, str], str]:
    async with database.read() as connection:
        rows = await connection.execute(select(work.c.message_id, work.c.processor, work.c.state))
        return {(row.message_id, row.processor): row.state for row in rows}


async def test_claims_come_in_priority_and_enqueue_order(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 7))
        await queue.enqueue(connection, [new_work(n, priority=queue.BACKLOG) for n in (1, 2, 3)], 10.0)
        await queue.enqueue(connection, [new_work(n) for n in (6, 5, 4)], 11.0)
    async with database.write() as connection:
        assert [one.message_id for one in await claim(connection, limit=4)] == [6, 5, 4, 1]
        assert [one.message_id for one in await claim(connection, limit=4)] == [2, 3]
        assert await claim(connection) == []


async def test_enqueue_keeps_a_row_that_is_there(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        (held,) = await claim(connection)
        await queue.enqueue(connection, [new_work(1), new_work(1, "summary")], 11.0)
    assert await states(database) == {(1, "threat"): "processing", (1, "summary"): "pending"}
    async with database.write() as connection:
        report = await steps.finish(connection, "w", [finished(held)], [], 12.0)
    assert report.recorded == 1


async def test_enqueue_wakes_whoever_waits_for_work(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
    assert await database.wake.work.wait(5)


async def test_a_claim_takes_its_processor_alone(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1, 2])
        await queue.enqueue(connection, [new_work(n, p) for n in (1, 2) for p in ("threat", "summary")], 10.0)
        claimed = await claim(connection, processor="summary")
    assert [(one.message_id, one.processor, one.fence) for one in claimed] == [
        (1, "summary", FIRST + 1),
        (2, "summary", FIRST + 1),
    ]
    assert list((await states(database)).values()).count("pending") == 2


async def test_newer_versions_are_left_and_older_ones_become_what_runs(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1, 2])
        await queue.enqueue(connection, [new_work(1, version=1), new_work(2, version=3)], 10.0)
        claimed = await steps.claim(
            connection, processor="threat", worker_id="w", limit=9, deadline_seconds=60, now=11.0, version=2
        )
        assert [(one.message_id, one.version) for one in claimed] == [(1, 2)]
        await steps.finish(connection, "w", [finished(claimed[0])], [], 12.0)
        assert (await connection.execute(select(result.c.message_id, result.c.version))).all() == [(1, 2)]


async def test_finish_records_result_and_events_and_marks_the_message(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1], historical=True)
        await add_place(connection, 1, "INBOX")
        await queue.enqueue(connection, [new_work(1), new_work(1, "summary")], 10.0)
        (threat,) = await claim(connection)
        (summary,) = await claim(connection, processor="summary")
    async with database.write() as connection:
        first = await steps.finish(connection, "w", [finished(threat, '{"verdict":"x"}', ("threatFound",))], [], 20.0)
        assert first == queue.FinishReport(recorded=1, stale=0, processed_ids=())
        assert (await get_message(connection, 1)).processed_at is None
    async with database.write() as connection:
        second = await steps.finish(connection, "w", [finished(summary)], [], 21.0)
        assert second.processed_ids == (1,)
        assert (await get_message(connection, 1)).processed_at == 21.0
        stored = (await connection.execute(select(result).order_by(result.c.processor))).all()
        assert [(row.processor, row.value, row.attempts) for row in stored] == [
            ("summary", "{}", 1),
            ("threat", '{"verdict":"x"}', 1),
        ]
        log = await told(connection)
    assert [(one.event, one.message_id, one.path, one.historical, one.account_id) for one in log] == [
        ("threatFound", 1, "INBOX", True, 1),
        ("messageProcessed", 1, "INBOX", True, 1),
    ]
    assert log[0].data == {"processor": "threat", "version": 1}
    assert await states(database) == {}


async def test_events_name_a_living_place_only(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await add_place(connection, 1, "Gone")
        await add_place(connection, 1, "Archive")
        await connection.execute(place.update().where(place.c.mailbox_id == 1).values(expunged_at=5.0))
        await queue.enqueue(connection, [new_work(1)], 10.0)
        await steps.finish(connection, "w", [finished(one) for one in await claim(connection)], [], 11.0)
        (done,) = await told(connection)
    assert done.path == "Archive"


async def test_a_result_of_the_same_version_is_replaced(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        for value in ("1", "2"):
            await queue.enqueue(connection, [new_work(1)], 10.0)
            await steps.finish(connection, "w", [finished(one, value) for one in await claim(connection)], [], 11.0)
        assert (await connection.execute(select(result.c.value))).scalars().all() == ["2"]


async def test_what_was_taken_back_is_stale(database: Database) -> None:
    """The zombie: given up for dead, its row claimed again (by itself, even), it comes back with its old claim."""
    async with database.write() as connection:
        await add_messages(connection, [1, 2])
        await queue.enqueue(connection, [new_work(1), new_work(2)], 10.0)
        zombies = await claim(connection, "w")
        assert await reap(connection, now=60.0) == 2
        again = await claim(connection, "w", limit=1, crashed=True)
    async with database.write() as connection:
        report = await steps.finish(
            connection, "w", [finished(zombies[0], '"zombie"')], [Failed(zombies[1], "late", None)], 70.0
        )
        assert (report.recorded, report.stale) == (0, 2)
        assert await queue.release(connection, "w", zombies) == 0
        assert await events(connection) == []
        assert (await connection.execute(select(result))).all() == []
        assert (await steps.finish(connection, "w", [finished(again[0], '"mine"')], [], 71.0)).recorded == 1


async def test_in_a_large_batch_only_what_is_still_held_is_recorded_and_only_what_is_done_is_told(
    database: Database,
) -> None:
    """More rows than one statement takes on SQLite: some taken back meanwhile, some with another processor's row."""
    ids = list(range(1, 81))
    taken_back, unfinished = {2, 30, 79}, {1, 31, 80}
    async with database.write() as connection:
        await add_messages(connection, ids)
        work = [new_work(each) for each in ids] + [new_work(each, "summary") for each in sorted(unfinished)]
        await queue.enqueue(connection, work, 10.0)
        claims = await claim(connection, "w")
        assert await queue.release(connection, "w", [one for one in claims if one.message_id in taken_back]) == 3
    async with database.write() as connection:
        report = await steps.finish(connection, "w", [finished(one) for one in claims], [], 20.0)
        assert (report.recorded, report.stale) == (77, 3)
        kept = [each for each in ids if each not in taken_back]
        assert (await connection.scalars(select(result.c.message_id).order_by(result.c.message_id))).all() == kept
        done = [each for each in kept if each not in unfinished]
        assert report.processed_ids == tuple(done)
        assert await events(connection) == [("messageProcessed", each) for each in done]
        assert {one.message_id for one in await claim(connection, "w")} == taken_back


async def test_another_workers_claim_cannot_be_finished(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        claimed = await claim(connection, "w")
        assert (await steps.finish(connection, "other", [finished(claimed[0])], [], 11.0)).stale == 1
        assert await queue.release(connection, "other", claimed) == 0


async def test_a_failure_waits_then_comes_back_with_its_attempt(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        (held,) = await claim(connection)
        before = time.time()
        report = await steps.finish(connection, "w", [], [Failed(held, "no\x00 luck\ud800", 30.0)], 20.0)
        assert (report.recorded, report.processed_ids) == (1, ())
        assert await claim(connection) == []
        (row,) = await queue.list_work(connection)
        assert (row.state, row.attempt, row.error) == ("waiting", 1, "no\ufffd luck\ufffd")
        assert before + 30.0 <= row.run_at <= time.time() + 30.0
        assert await queue.promote_due(connection, row.run_at - 0.5) == (0, 0.5)
        assert await claim(connection) == []
        assert await queue.promote_due(connection, row.run_at) == (1, None)
        (again,) = await claim(connection)
        assert (again.attempt, again.crashes, again.fence) == (1, 0, FIRST + 2)
        await steps.finish(connection, "w", [finished(again)], [], 31.0)
        assert await connection.scalar(select(result.c.attempts)) == 2


async def test_a_failure_for_good_is_kept_shown_and_told(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1), new_work(1, "summary")], 10.0)
        (threat,) = await claim(connection)
        (summary,) = await claim(connection, processor="summary")
        await steps.finish(connection, "w", [finished(summary)], [Failed(threat, "ValueError: broken", None)], 20.0)
        assert (await get_message(connection, 1)).processed_at is None
        (said,) = await told(connection)
        assert (said.event, said.message_id) == ("messageFailed", 1)
        assert said.data == {"processor": "threat", "version": 1, "error": "ValueError: broken"}
        (row,) = await queue.list_work(connection, state="failed")
        assert (row.account, row.subject, row.error) == ("account1", "subject 1", "ValueError: broken")
        shown = await connection.scalar(text("SELECT processing_status FROM email_status WHERE message_id = 1"))
        assert shown == "failed"


async def test_retry_brings_failed_rows_back_as_new(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1, 2, 3])
        await queue.enqueue(connection, [new_work(n, p) for n in (1, 2, 3) for p in ("threat", "summary")], 10.0)
        held = await claim(connection) + await claim(connection, processor="summary")
        await steps.finish(connection, "w", [], [Failed(one, "x", None) for one in held], 20.0)
        assert await queue.retry(connection, message_ids=[1, 2], processor="threat", now=30.0) == 2
        assert await queue.retry(connection, message_ids=[1, 2], processor="threat", now=30.0) == 0
        assert [(one.message_id, one.attempt) for one in await claim(connection)] == [(1, 0), (2, 0)]
        assert await queue.retry(connection, message_ids=None, processor=None, now=31.0) == 4


async def test_after_a_retry_the_message_is_processed(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        await steps.finish(connection, "w", [], [Failed(one, "x", None) for one in await claim(connection)], 20.0)
        await queue.retry(connection, message_ids=[1], processor=None, now=30.0)
        report = await steps.finish(connection, "w", [finished(one) for one in await claim(connection)], [], 40.0)
        assert report.processed_ids == (1,)
        assert await events(connection) == [("messageFailed", 1), ("messageProcessed", 1)]


async def test_release_counts_nothing(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1, 2])
        await queue.enqueue(connection, [new_work(1), new_work(2)], 10.0)
        first, second = await claim(connection)
        assert await queue.release(connection, "w", [first]) == 1
        assert await queue.release_all(connection, "w") == 1
        again = await claim(connection, "other")
        assert [(one.attempt, one.crashes, one.fence) for one in again] == [(0, 0, FIRST + 2), (0, 0, FIRST + 2)]
        assert second.fence == FIRST + 1


async def test_only_the_dead_are_reaped(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1, 2, 3])
        await queue.enqueue(connection, [new_work(n) for n in (1, 2, 3)], 10.0)
        await queue.heartbeat(connection, "alive", 95.0)
        await queue.heartbeat(connection, "dead", 20.0)
        for worker_id in ("alive", "dead", "unknown"):
            await claim(connection, worker_id, limit=1, now=20.0)
        assert await reap(connection, now=100.0) == 2
        held = [row.worker_id for row in await connection.execute(select(work.c.worker_id))]
        assert sorted(held) == ["", "", "alive"]
        await queue.heartbeat(connection, "alive", 120.0)
        assert await reap(connection, now=120.0) == 0
        await queue.retire(connection, "alive")
        assert await reap(connection, now=120.0) == 1


async def test_a_row_past_its_deadline_is_taken_from_the_living(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        await claim(connection, "w", now=20.0)
        await queue.heartbeat(connection, "w", 3620.0)
        assert await reap(connection, now=3620.0) == 0
        assert await reap(connection, now=3620.5) == 1


async def test_a_row_that_crashed_is_claimed_alone_by_whoever_asks_for_it(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 7))
        await queue.enqueue(connection, [new_work(n) for n in range(1, 7)], 10.0)
        await claim(connection, "dead", limit=2)
        assert await queue.crashed_processors(connection, ["threat", "summary"]) == frozenset()
        await reap(connection, now=50.0)
        assert await queue.crashed_processors(connection, ["threat", "summary"]) == {"threat"}
        rounds = [[one.message_id for one in await claim(connection, limit=3)] for _ in range(3)]
        assert rounds == [[3, 4, 5], [6], []]
        alone = [[one.message_id for one in await claim(connection, limit=3, crashed=True)] for _ in range(3)]
        assert alone == [[1], [2], []]
        assert await queue.crashed_processors(connection, ["threat", "summary"]) == frozenset()


async def test_a_row_whose_workers_keep_dying_is_failed(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        for crash in range(1, queue.MAX_CRASHES + 2):
            (held,) = await claim(connection, f"dead{crash}", crashed=crash > 1)
            assert held.crashes == crash - 1
            assert await reap(connection, now=50.0 + crash) == 1
        assert await claim(connection) == []
        (row,) = await queue.list_work(connection, state="failed")
        assert row.error == "the worker died while running it, 4 times"
        (said,) = await told(connection)
        assert (said.event, said.data["error"]) == ("messageFailed", row.error)


async def test_more_rows_than_one_statement_names(database: Database) -> None:
    many = dialect.MAX_ROWS * 2 + 7
    async with database.write() as connection:
        await add_messages(connection, range(1, many + 1))
        await queue.enqueue(connection, [new_work(n) for n in range(1, many + 1)], 10.0)
        held = await claim(connection, limit=many)
        assert [one.message_id for one in held] == list(range(1, many + 1))
        half = many // 2
        report = await steps.finish(
            connection,
            "w",
            [finished(one) for one in held[:half]],
            [Failed(one, "x", None) for one in held[half:]],
            20.0,
        )
        assert (report.recorded, report.stale, len(report.processed_ids)) == (many, 0, half)
        assert await queue.retry(connection, message_ids=range(1, many + 1), processor=None, now=30.0) == many - half


async def test_a_message_that_was_deleted_takes_its_work_along(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        held = await claim(connection)
        await connection.execute(delete(message))
        report = await steps.finish(connection, "w", [finished(one) for one in held], [], 20.0)
        assert (report.recorded, report.stale) == (0, 1)


async def test_a_message_that_was_deleted_takes_its_results_along(database: Database) -> None:
    """Whoever deletes it: code before 0006 leaves that to the database."""
    async with database.write() as connection:
        await add_messages(connection, [1, 2])
        await queue.enqueue(connection, [new_work(1), new_work(2)], 10.0)
        await steps.finish(connection, "w", [finished(one) for one in await claim(connection)], [], 20.0)
        await connection.execute(delete(message).where(message.c.id == 1))
        assert list(await connection.scalars(select(result.c.message_id))) == [2]


async def test_counts(database: Database) -> None:
    async with database.write() as connection:
        assert await queue.counts(connection) == queue.QueueCounts(0, 0, 0, 0, None)
        await add_messages(connection, range(1, 8))
        await queue.enqueue(connection, [new_work(n) for n in (1, 2, 3, 4)], 10.0)
        await queue.enqueue(connection, [new_work(n, "summary", priority=queue.BACKLOG) for n in (5, 6, 7)], 7.0)
        one, two, three, _ = await claim(connection)
        await steps.finish(connection, "w", [finished(one)], [Failed(two, "x", None), Failed(three, "x", 99.0)], 20.0)
        assert await queue.counts(connection) == queue.QueueCounts(
            pending=4, processing=1, completed=1, failed=1, oldest_at=7.0
        )


async def test_a_small_account_is_served_beside_a_noisy_one(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 1001), account_id=1)
        await add_messages(connection, range(2001, 2004), account_id=2)
        await queue.enqueue(connection, [new_work(n) for n in range(1, 1001)], 10.0)
        await claim(connection, limit=300)
        await queue.enqueue(connection, [new_work(n, account_id=2) for n in range(2001, 2004)], 5000.0)
        batch = [one.account_id for one in await claim(connection, limit=10)]
    assert batch.count(2) == 3


async def test_accounts_with_backlogs_share_evenly(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 401), account_id=1)
        await add_messages(connection, range(1001, 1401), account_id=2)
        # In several transactions: each goes on where the account's last row stands.
        for start in range(0, 400, 50):
            await queue.enqueue(connection, [new_work(1 + start + n) for n in range(50)], 10.0)
        for start in range(0, 400, 50):
            await queue.enqueue(connection, [new_work(1001 + start + n, account_id=2) for n in range(50)], 20.0)
        for _ in range(4):
            batch = [one.account_id for one in await claim(connection, limit=100)]
            assert abs(batch.count(1) - batch.count(2)) <= 2


async def test_an_account_that_was_once_ahead_is_not_held_back(database: Database) -> None:
    """Tags are no clock: rows that are given back make the front fall behind what another account was given since."""
    async with database.write() as connection:
        await add_messages(connection, range(1, 1001), account_id=1)
        await add_messages(connection, range(2001, 2003), account_id=2)
        await queue.enqueue(connection, [new_work(n) for n in range(1, 101)], 10.0)
        held = await claim(connection, limit=100)
        # The lane is empty: a row starts from a clock, which is right, or far ahead.
        await queue.enqueue(connection, [new_work(2001, account_id=2)], 5000.0)
        assert [one.account_id for one in await claim(connection)] == [2]
        await queue.release(connection, "w", held)
        await queue.enqueue(connection, [new_work(n) for n in range(101, 1001)], 5001.0)
        await queue.enqueue(connection, [new_work(2002, account_id=2)], 5002.0)
        assert 2 in [one.account_id for one in await claim(connection, limit=100)]


async def test_rows_that_come_back_draw_no_newcomer_ahead(database: Database) -> None:
    """Retried rows keep their old tags; a newcomer starts beside the fresh front, not beside them."""
    async with database.write() as connection:
        await add_messages(connection, range(1, 201), account_id=1)
        await add_messages(connection, range(1001, 1101), account_id=2)
        await queue.enqueue(connection, [new_work(n) for n in range(1, 201)], 10.0)
        early = await claim(connection, limit=100)
        await steps.finish(connection, "w", [], [Failed(one, "x", 30.0) for one in early], 20.0)
        await queue.promote_due(connection, time.time() + 60.0)
        await queue.enqueue(connection, [new_work(n, account_id=2) for n in range(1001, 1101)], 30.0)
        assert {one.account_id for one in await claim(connection, limit=100)} == {1}
        after = [one.account_id for one in await claim(connection, limit=100)]
    assert abs(after.count(1) - after.count(2)) <= 2


@asynccontextmanager
async def listened(connection: AsyncConnection) -> AsyncIterator[list[tuple[str, Any]]]:
    """The statements within the block, with the parameters that they are planned with."""
    statements: list[tuple[str, Any]] = []
    if dialect.is_postgresql(connection):
        listen = (
            connection.sync_connection.engine,
            "before_cursor_execute",
            lambda *seen: statements.append((seen[2], seen[3][0] if isinstance(seen[3], list) else seen[3])),
        )
        sa_event.listen(*listen)
        yield statements
        sa_event.remove(*listen)
    else:
        # SQLite itself tells them, whoever executes them; it tells the steps within them as comments.
        driver = (await connection.get_raw_connection()).driver_connection

        def notice(statement: str) -> None:
            if not statement.startswith(("--", "BEGIN")):
                statements.append((statement, ()))

        await driver.run(partial(driver._conn.set_trace_callback, notice))
        yield statements
        await driver.run(partial(driver._conn.set_trace_callback, None))


async def test_claim_and_finish_use_indexes_alone(database: Database) -> None:
    """Whatever the backlog, a step of the queue looks only at the rows it is about."""
    async with database.write() as connection:
        await add_messages(connection, range(1, 5))
        async with listened(connection) as statements:
            await queue.enqueue(connection, [new_work(n) for n in (1, 2, 3, 4)], 10.0)
            one, two, three, four = await claim(connection)
            failures = [Failed(two, "x", 30.0), Failed(three, "x", None)]
            await steps.finish(connection, "w", [finished(one)], failures, 20.0)
            await queue.release(connection, "w", [four])
            await queue.release_all(connection, "w")
            await queue.promote_due(connection, 30.0)
            await reap(connection, now=30.0)
            await queue.retry(connection, message_ids=None, processor=None, now=30.0)
        scans = []
        postgresql = dialect.is_postgresql(connection)
        if postgresql:
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # a table of four rows is read whole
        for statement, parameters in statements:
            if postgresql:
                plan = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
                scans += [(row[0], statement) for row in plan if "Seq Scan on work " in row[0]]
            else:
                plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")
                lines = [row[3].split(" USING")[0] for row in plan]
                scans += [(line, statement) for line in lines if line in ("SCAN work", "SCAN message")]
    assert len(statements) > 12
    assert scans == []


async def test_json_values_come_back_as_they_went_in(database: Database) -> None:
    value = json.dumps({"a": ["ü", "\u0000", 1.5, None]}, ensure_ascii=False)
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        await steps.finish(connection, "w", [Finished(one, value, 0.1) for one in await claim(connection)], [], 11.0)
        assert json.loads(await connection.scalar(select(result.c.value))) == {"a": ["ü", "\x00", 1.5, None]}


async def test_work_that_nobody_would_claim_is_dropped(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, (1, 2, 3, 4))
        await queue.enqueue(connection, [new_work(n, "gone") for n in (1, 2, 3)], 10.0)
        await queue.enqueue(connection, [new_work(n, "threat") for n in (2, 4)], 10.0)
        [_, _, last] = await claim(connection, processor="gone")
        await steps.finish(connection, "w", [], [Failed(last, "broken", None)], 11.0)
        await queue.release_all(connection, "w")
        assert await queue.drop_unconfigured(connection, {"threat"}, 20.0) == 2
        assert await queue.drop_unconfigured(connection, {"threat"}, 21.0) == 0
        said = await events(connection)
    assert await states(database) == {(2, "threat"): "pending", (3, "gone"): "failed", (4, "threat"): "pending"}
    assert [number for name, number in said if name == "messageProcessed"] == [1]
    async with database.write() as connection:
        assert await queue.drop_unconfigured(connection, (), 22.0) == 2
        said = await events(connection)
    assert [number for name, number in said if name == "messageProcessed"] == [1, 2, 4]
