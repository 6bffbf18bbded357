"""What bounds and stops claims: limits by account, a pause; and what an operator gives up. On both databases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as sa_event
from sqlalchemy import select, text, update
from work_rows import add_account, add_messages, claim, events, finished, new_work, told

from harness import steps
from mailmill.store import account_limits, dialect, processors, queue, queue_view
from mailmill.store.account_limits import share
from mailmill.store.database import Database
from mailmill.store.message_queries import get_message
from mailmill.store.queue import Claim, Failed
from mailmill.store.queue_outcomes import lock_messages
from mailmill.store.tables import result, work

TWO = 2


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    async with opened.write() as connection:
        await add_account(connection, 1)
        await add_account(connection, 2)
    yield opened
    await opened.close()


async def limited(connection: Any, worker_id: str = "w", limit: int = 10, **more: Any) -> tuple[list[Claim], bool]:
    await queue.take_turns(connection, ["threat"])
    return await queue.claim_limited(
        connection,
        processor="threat",
        worker_id=worker_id,
        limit=limit,
        account_limit=TWO,
        deadline_seconds=3600,
        now=time.time(),
        **more,
    )


async def states(connection: Any) -> dict[int, str]:
    rows = await connection.execute(select(work.c.message_id, work.c.state))
    return {row.message_id: row.state for row in rows}


# -- by account -------------------------------------------------------------------------------------------------------


def test_rows_are_shared_by_what_accounts_have() -> None:
    assert share([1, 1, 1, 2, 1], {}, account_limit=2, wanted=9) == ([0, 1, 3], [2, 4])
    assert share([1, 2, 2], {1: 2, 2: 1}, account_limit=2, wanted=9) == ([1], [0, 2])
    assert share([1, 2, 3], {1: 2}, account_limit=2, wanted=1) == ([1], [0])
    assert share([1, 2, 3], {}, account_limit=2, wanted=1) == ([0], []), "what is behind the last is left as it is"
    assert share([], {1: 5}, account_limit=2, wanted=3) == ([], [])


async def test_an_account_has_no_more_in_processing_than_it_may(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 6), account_id=1)
        await add_messages(connection, range(11, 14), account_id=2)
        await queue.enqueue(connection, [new_work(n) for n in range(1, 6)], 10.0)
        await queue.enqueue(connection, [new_work(n, account_id=2) for n in range(11, 14)], 10.0)
        first, _ = await limited(connection, "w1", limit=3)
        more, _ = await limited(connection, "w2")
        none, _ = await limited(connection, "w3")
        assert sorted(one.message_id for one in [*first, *more]) == [1, 2, 11, 12]
        assert none == []
        shown = await states(connection)
        assert {number for number, state in shown.items() if state == "throttled"} == {3, 4, 5, 13}
        counts = await queue.counts(connection)
        assert (counts.pending, counts.processing) == (4, 4)


async def test_one_out_one_in(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 6))
        await queue.enqueue(connection, [new_work(n) for n in range(1, 6)], 10.0)
        held, _ = await limited(connection)
        again: list[int] = []
        while held:
            one, *held = held
            await steps.finish(connection, "w", [finished(one)], [], 20.0)
            assert await queue.let_in(connection, "threat", [1], TWO) == (1 if len(again) < 3 else 0)
            came, _ = await limited(connection)
            assert len(came) <= 1
            again += [each.message_id for each in came]
            held += came
        assert again == [3, 4, 5], "those let in keep their order"
        assert await states(connection) == {}


async def test_new_mail_is_let_in_before_the_backlog(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 6))
        await queue.enqueue(connection, [new_work(n, priority=queue.BACKLOG) for n in (1, 2, 3, 4)], 10.0)
        held, _ = await limited(connection)
        await queue.enqueue(connection, [new_work(5)], 11.0)
        assert (await limited(connection))[0] == []
        await steps.finish(connection, "w", [finished(held[0])], [], 20.0)
        await queue.let_in(connection, "threat", [1], TWO)
        assert [one.message_id for one in (await limited(connection))[0]] == [5]


async def test_a_busy_account_is_passed_over_once(database: Database) -> None:
    """However many rows it has, others are found behind them, and the next claim does not see them again."""
    many = 2500
    async with database.write() as connection:
        await add_messages(connection, range(1, many + 1), account_id=1)
        await add_messages(connection, [5000], account_id=2)
        await queue.enqueue(connection, [new_work(n) for n in range(1, many + 1)], 10.0)
        await queue.enqueue(connection, [new_work(5000, account_id=2)], 10.0)
        await connection.execute(update(work).where(work.c.message_id == 5000).values(vt=1e12))
    found: list[int] = []
    claims = 0
    more = True
    while more:
        async with database.write() as connection:
            came, more = await limited(connection)
        found += [one.message_id for one in came]
        claims += 1
    assert found == [1, 2, 5000]
    assert 2 < claims < 10
    async with database.write() as connection:
        statements = 0

        def count(*_: object) -> None:
            nonlocal statements
            statements += 1

        engine = connection.sync_connection.engine
        sa_event.listen(engine, "before_cursor_execute", count)
        assert await limited(connection) == ([], False)
        sa_event.remove(engine, "before_cursor_execute", count)
        assert statements <= 3


async def test_what_nobody_let_in_is_let_in_by_the_upkeep(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 5), account_id=1)
        await add_messages(connection, range(11, 15), account_id=2)
        rows = [new_work(n) for n in range(1, 5)] + [new_work(n, account_id=2) for n in range(11, 15)]
        await queue.enqueue(connection, rows, 10.0)
        await limited(connection, "dead")
        # Crashed for the last time: they fail, and nobody was there to let others in.
        await connection.execute(update(work).where(work.c.state == "processing").values(crashes=queue.MAX_CRASHES))
        await queue.reap(connection, dead_after_seconds=10, now=time.time(), told_at=20.0)
        assert await queue.let_in_all(connection, {"threat": TWO, "summary": None}) == 4
        assert [one.message_id for one in (await limited(connection))[0]] == [3, 13, 4, 14]
        assert await queue.let_in_all(connection, {"threat": TWO}) == 0


async def test_without_a_limit_all_are_let_in(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_limits, "_LET_IN_AT_ONCE", 3)
    async with database.write() as connection:
        await add_messages(connection, range(1, 8))
        await queue.enqueue(connection, [new_work(n) for n in range(1, 8)], 10.0)
        held, _ = await limited(connection)
        assert [await queue.let_in_all(connection, {"threat": None}) for _ in range(3)] == [3, 2, 0]
        assert len(held) + len(await claim(connection)) == 7


async def test_an_accounts_next_row_queues_behind_its_throttled_ones(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 6))
        await queue.enqueue(connection, [new_work(n) for n in (1, 2, 3, 4)], 10.0)
        await limited(connection)
        await queue.enqueue(connection, [new_work(5)], 10.0)
        tags = {row.message_id: row.vt for row in await connection.execute(select(work.c.message_id, work.c.vt))}
        assert tags[5] > tags[4] > tags[3]


async def test_workers_that_claim_at_once_keep_to_the_limit(database: Database) -> None:
    """Each counts while the others claim; on PostgreSQL they do so in transactions of their own."""
    async with database.write() as connection:
        await add_messages(connection, range(1, 41))
        await queue.enqueue(connection, [new_work(n) for n in range(1, 41)], 10.0)
    most = 0
    done: list[int] = []

    async def one_worker(name: str) -> None:
        nonlocal most
        held: list[Claim] = []
        while len(done) < 40:
            async with database.write() as connection:
                await queue.take_turns(connection, ["threat"])
                if held:
                    report = await steps.finish(connection, name, [finished(one) for one in held], [], 20.0)
                    done.extend(report.processed_ids)
                    await queue.let_in(connection, "threat", [1], TWO)
                held, _ = await limited(connection, name, limit=3)
                busy = await connection.execute(select(work.c.message_id).where(work.c.state == "processing"))
                most = max(most, len(busy.all()))

    async with asyncio.timeout(60):
        await asyncio.gather(*(one_worker(f"w{n}") for n in range(4)))
    assert most == TWO
    assert sorted(done) == list(range(1, 41))


# -- a pause ----------------------------------------------------------------------------------------------------------


async def test_nobody_claims_for_a_paused_processor(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1, 2])
        await queue.enqueue(connection, [new_work(n, p) for n in (1, 2) for p in ("threat", "summary")], 10.0)
        assert await processors.pause(connection, "threat", 20.0)
        assert not await processors.pause(connection, "threat", 30.0)
        assert await processors.paused(connection) == {"threat"}
        assert await claim(connection) == []
        assert await limited(connection) == ([], False)
        assert len(await claim(connection, processor="summary")) == 2
    async with database.write() as connection:
        assert await processors.resume(connection, "threat")
        assert not await processors.resume(connection, "threat")
        assert await processors.paused(connection) == frozenset()
        assert len(await claim(connection)) == 2


async def test_what_was_claimed_before_a_pause_is_recorded(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        (held,) = await claim(connection)
        await processors.pause(connection, "threat", 20.0)
        assert (await steps.finish(connection, "w", [finished(held)], [], 30.0)).recorded == 1


# -- what went wrong --------------------------------------------------------------------------------------------------


async def test_errors_are_kept_with_the_row_and_go_with_the_result(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        (held,) = await claim(connection)
        await steps.finish(connection, "w", [], [Failed(held, "ValueError: first\x00", 0.0)], 20.0)
        await queue.promote_due(connection, time.time() + 1)
        await claim(connection, "dead", now=time.time())
        await queue.reap(connection, dead_after_seconds=10, now=time.time(), told_at=30.0)
        (row,) = await queue_view.work_of_message(connection, 1)
        assert [(each.at, each.kind, each.error) for each in row.errors] == [
            (20.0, "attempt", "ValueError: first\ufffd"),
            (30.0, "crash", "the worker died while running it"),
        ]
        (again,) = await claim(connection, crashed=True)
        await steps.finish(connection, "w", [finished(again)], [], 40.0)
        kept = await connection.scalar(select(result.c.errors))
        assert kept == again.errors
        assert "ValueError: first" in kept


async def test_the_list_of_errors_is_bounded(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        for attempt in range(15):
            (held,) = await claim(connection)
            await steps.finish(connection, "w", [], [Failed(held, f"{attempt} " + "x" * 5000, 0.0)], 20.0)
            await queue.promote_due(connection, time.time() + 1)
        (row,) = await queue_view.work_of_message(connection, 1)
        assert [each.error.split()[0] for each in row.errors] == [str(n) for n in range(5, 15)]
        assert {len(each.error) for each in row.errors} == {500}


async def test_a_retry_keeps_the_errors(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        await steps.finish(connection, "w", [], [Failed(one, "boom", None) for one in await claim(connection)], 20.0)
        await queue.retry(connection, message_ids=[1], processor=None, now=30.0)
        (row,) = await queue_view.work_of_message(connection, 1)
        assert (row.state, row.attempt, row.error) == ("pending", 0, "")
        assert [each.error for each in row.errors] == ["boom"]


# -- given up ---------------------------------------------------------------------------------------------------------


async def test_dropped_work_completes_its_message(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1, 2])
        await queue.enqueue(connection, [new_work(1), new_work(1, "summary"), new_work(2)], 10.0)
        held = [*await claim(connection), *await claim(connection, processor="summary")]
        done = [one for one in held if one.processor == "summary"]
        failed = [Failed(one, "boom", None) for one in held if one.processor == "threat"]
        await steps.finish(connection, "w", [finished(one) for one in done], failed, 20.0)
        dropped = await queue.drop(connection, message_ids=[1], processor=None, only_failed=True, now=30.0)
        assert dropped == 1
        assert (await get_message(connection, 1)).processed_at == 20.0
        assert await states(connection) == {2: "failed"}
        assert [one.event for one in await told(connection) if one.message_id == 1] == [
            "messageFailed",
            "messageProcessed",
        ]
        assert await queue.drop(connection, message_ids=None, processor="summary", only_failed=True, now=31.0) == 0
        assert await queue.drop(connection, message_ids=None, processor=None, only_failed=True, now=31.0) == 1


async def test_only_what_failed_is_dropped_unless_all_is_meant(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1, 2])
        await queue.enqueue(connection, [new_work(n) for n in (1, 2)], 10.0)
        (held,) = await claim(connection, limit=1)
        assert await queue.drop(connection, message_ids=[1, 2], processor=None, only_failed=True, now=20.0) == 0
        assert await queue.drop(connection, message_ids=[1, 2], processor="threat", only_failed=False, now=20.0) == 2
        report = await steps.finish(connection, "w", [finished(held)], [], 21.0)
        assert (report.recorded, report.stale) == (0, 1), "who runs it comes too late"
        assert [name for name, _ in await events(connection)] == ["messageProcessed", "messageProcessed"]


async def test_a_row_queued_again_does_not_know_its_former_fences(database: Database) -> None:
    """Dropped while it ran, queued again, claimed again by the same worker: the first run's outcome is stale."""
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        (former,) = await claim(connection)
        await queue.drop(connection, message_ids=[1], processor=None, only_failed=False, now=20.0)
        await queue.enqueue(connection, [new_work(1)], 30.0)
        (held,) = await claim(connection)
        assert (await steps.finish(connection, "w", [finished(former)], [], 40.0)).stale == 1
        assert (await steps.finish(connection, "w", [finished(held)], [], 41.0)).recorded == 1


@pytest.mark.parametrize("failing", [False, True])
async def test_outcomes_of_two_claims_of_a_row_in_one_batch(database: Database, failing: bool) -> None:
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1)], 10.0)
        (former,) = await claim(connection)
        await queue.drop(connection, message_ids=[1], processor=None, only_failed=False, now=20.0)
        await queue.enqueue(connection, [new_work(1)], 30.0)
        (held,) = await claim(connection)
    async with database.write() as connection:
        if failing:
            failed = [Failed(held, "current", None), Failed(former, "stale", None)]
            report = await steps.finish(connection, "w", [], failed, 40.0)
            (row,) = await queue_view.work_of_message(connection, 1)
            assert (row.error, row.attempt) == ("current", 1)
        else:
            done = [finished(held, '"current"'), finished(former, '"stale"')]
            report = await steps.finish(connection, "w", done, [], 40.0)
            assert (await connection.execute(select(result.c.value))).scalars().all() == ['"current"']
        assert (report.recorded, report.stale) == (1, 1)


async def test_work_is_given_up_in_pieces(database: Database) -> None:
    async with database.write() as connection:
        await add_messages(connection, range(1, 6))
        await queue.enqueue(connection, [new_work(n, p) for n in range(1, 6) for p in ("gone", "threat")], 10.0)
    pieces = []
    for _ in range(3):
        async with database.write() as connection:
            pieces.append(await queue.drop_unconfigured(connection, {"threat"}, 20.0, limit=2))
    assert pieces == [2, 2, 1]
    for _ in range(3):
        async with database.write() as connection:
            pieces.append(
                await queue.drop(
                    connection, message_ids=[5, 4, 3, 2, 1], processor=None, only_failed=False, now=21.0, limit=2
                )
            )
    assert pieces[3:] == [2, 2, 1]
    async with database.read() as connection:
        assert sorted(await events(connection)) == [("messageProcessed", n) for n in range(1, 6)]


async def test_giving_work_up_waits_for_a_message_that_is_being_finished(database: Database) -> None:
    """Messages are locked before their work by all, or the two would wait for each other."""
    async with database.write() as connection:
        await add_messages(connection, [1])
        await queue.enqueue(connection, [new_work(1), new_work(1, "summary")], 10.0)
        (held,) = await claim(connection)

    async def drop() -> int:
        async with database.write() as connection:
            return await queue.drop(connection, message_ids=None, processor=None, only_failed=False, now=20.0)

    async with asyncio.timeout(60):
        async with database.write() as connection:
            await lock_messages(connection, [1])
            dropping = asyncio.create_task(drop())
            if dialect.is_postgresql(connection):
                waiting = text(
                    "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                    " WHERE NOT granted AND datname = current_database()"
                )
                while not await connection.scalar(waiting):
                    # What the server tells of others is read once for each transaction.
                    await connection.execute(text("SELECT pg_stat_clear_snapshot()"))
            assert (await steps.finish(connection, "w", [finished(held)], [], 20.0)).recorded == 1
        assert await dropping == 1
    async with database.read() as connection:
        assert await events(connection) == [("messageProcessed", 1)]
