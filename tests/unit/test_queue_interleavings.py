"""The queue with two transactions open at once on PostgreSQL: who waits for whom, who waits for nobody, and what must
come of it.

``first`` (the test's own transaction) is open when the other one begins, and ends only when that is done or waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only
from work_rows import add_account, add_messages, claim, events, finished, new_work

from harness import steps
from harness.interleaving import beside, waits
from mailmill.store import queue, queue_outcomes, queue_recording, reprocess, reprocess_pieces
from mailmill.store.database import Database
from mailmill.store.queue import Claim, Failed, Finished, FinishReport
from mailmill.store.queue_recording import Told
from mailmill.store.reprocess import ReprocessRow, Wanted
from mailmill.store.tables import event, result, work


@pytest.fixture
async def store(postgres_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(postgres_url, data_dir=tmp_path / "node")
    try:
        async with database.write() as connection:
            await add_account(connection)
        yield database
    finally:
        await database.close()


async def fill(store: Database, messages: int, *processors: str) -> None:
    async with store.write() as connection:
        await add_messages(connection, range(1, messages + 1))
        rows = [new_work(number, name) for number in range(1, messages + 1) for name in processors or ("threat",)]
        await queue.enqueue(connection, rows, 10.0)


async def claimed(store: Database, worker: str, processor: str = "threat") -> list[Claim]:
    async with store.write() as connection:
        return await claim(connection, worker, processor=processor)


async def finish(
    connection: AsyncConnection, worker: str, *claims: Claim, value: str = "{}", announce: tuple[str, ...] = ()
) -> FinishReport:
    return await steps.finish(connection, worker, [finished(one, value, announce) for one in claims], [], 20.0)


async def reap(connection: AsyncConnection) -> int:
    """No worker here gives signs of life."""
    return await queue.reap(connection, dead_after_seconds=10, now=200.0, told_at=200.0)


async def told(store: Database) -> list[tuple[str, int | None]]:
    async with store.read() as connection:
        return await events(connection)


def numbers(claims: list[Claim]) -> list[int]:
    return [one.message_id for one in claims]


# -- claims -----------------------------------------------------------------------------------------------------------


async def test_a_claim_waits_for_nobody(store: Database) -> None:
    """Whatever the first holds, and however long its transaction is open: there is more to take."""
    await fill(store, 4)
    async with store.write() as first:
        assert numbers(await claim(first, "a", 2)) == [1, 2]
        other = beside(store, lambda connection: claim(connection, "b", 2))
        assert not await waits(store, other), "a claim waits for another one"
        assert numbers(await other) == [3, 4]


async def test_two_claims_at_once_share_nothing(store: Database) -> None:
    """The second has looked before the first has committed."""
    await fill(store, 4)
    async with store.write() as first:
        mine = await claim(first, "a", 3)
        other = beside(store, lambda connection: claim(connection, "b", 3))
        await waits(store, other)
    theirs = await other
    assert not set(numbers(mine)) & set(numbers(theirs)), "two workers hold the same row"
    async with store.write() as connection:
        assert (await finish(connection, "a", *mine)).stale == 0


async def test_two_claims_at_once_keep_to_an_accounts_limit(store: Database) -> None:
    """The second counts what the first has taken, though that is not committed when it asks."""
    await fill(store, 2)

    async def claim_limited(connection: AsyncConnection, worker: str) -> list[Claim]:
        await queue.take_turns(connection, ["threat"])
        claims, _more = await queue.claim_limited(
            connection,
            processor="threat",
            worker_id=worker,
            limit=4,
            account_limit=2,
            deadline_seconds=3600,
            now=100.0,
        )
        return claims

    async with store.write() as first:
        mine = await claim_limited(first, "a")
        async with store.write() as second:  # rows that the first has not locked
            await add_messages(second, (3, 4))
            await queue.enqueue(second, [new_work(3), new_work(4)], 11.0)
        other = beside(store, lambda connection: claim_limited(connection, "b"))
        await waits(store, other)
    assert (len(mine), len(await other)) == (2, 0)


async def test_what_is_given_back_meanwhile_is_left_for_the_next_time(store: Database) -> None:
    await fill(store, 2)
    held = await claimed(store, "a")
    async with store.write() as first:
        await queue.release(first, "a", held)
        other = beside(store, lambda connection: claim(connection, "b"))
        assert not await waits(store, other)
        assert await other == []
    assert numbers(await claimed(store, "b")) == [1, 2]


# -- outcomes ---------------------------------------------------------------------------------------------------------


async def test_the_last_two_rows_of_a_message_finished_at_once(store: Database) -> None:
    """Each still sees the other's row: whoever comes second waits, and finds that it is the last."""
    await fill(store, 1, "threat", "summary")
    [threat] = await claimed(store, "a", "threat")
    [summary] = await claimed(store, "b", "summary")
    async with store.write() as first:
        one = await finish(first, "a", threat)
        other = beside(store, lambda connection: finish(connection, "b", summary))
        await waits(store, other)
    assert (one.processed_ids, (await other).processed_ids) == ((), (1,))
    assert await told(store) == [("messageProcessed", 1)]


async def test_a_row_that_is_queued_while_the_only_one_is_finished(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not there when the first looked whom it has to lock out, and its worker finishes at the same time.

    The first announces something besides: so it goes step by step.
    """
    await fill(store, 1)
    [threat] = await claimed(store, "a", "threat")
    look = queue_outcomes._lock_shared
    late = store.write()

    async def be_late() -> None:
        async with store.write() as connection:
            await queue.enqueue(connection, [new_work(1, "summary")], 11.0)
        [summary] = await claimed(store, "b", "summary")
        assert (await finish(await late.__aenter__(), "b", summary)).processed_ids == ()

    def look_and_be_late(
        connection: Connection, claims: Sequence[Claim], shared: Collection[int] | None
    ) -> Collection[int]:
        locked = look(connection, claims, shared)
        monkeypatch.setattr(queue_outcomes, "_lock_shared", look)
        await_only(be_late())
        return locked

    monkeypatch.setattr(queue_outcomes, "_lock_shared", look_and_be_late)
    first = beside(store, lambda connection: finish(connection, "a", threat, announce=("threatFound",)))
    await waits(store, first)
    await late.__aexit__(None, None, None)
    assert (await first).processed_ids == (1,)
    assert await told(store) == [("threatFound", 1), ("messageProcessed", 1)]


@pytest.mark.parametrize("recorded", [True, False], ids=["its outcome is being recorded", "it is being run"])
async def test_what_is_reprocessed_while_its_first_run_ends_is_news_once(store: Database, recorded: bool) -> None:
    """Whoever queues it cannot see yet whether that it is processed is told, and must not guess."""
    await fill(store, 1)
    [threat] = await claimed(store, "a", "threat")
    async with store.write() as connection:
        row = await reprocess.create(connection, "summary", 1, Wanted(), 11.0)

    async def put(row: ReprocessRow) -> ReprocessRow:
        async with store.write() as connection:
            found = await reprocess_pieces.look(connection, row, row.position)
            moved = await reprocess_pieces.put_piece(connection, row, found, 12.0)
        assert moved is not None
        return moved

    if recorded:
        async with store.write() as first:
            await finish(first, "a", threat)
            row = await put(row)
            assert not row.done
        row = await put(row)
    else:
        row = await put(row)
        async with store.write() as connection:
            await finish(connection, "a", threat)
    assert row.done
    [summary] = await claimed(store, "b", "summary")
    async with store.write() as connection:
        await finish(connection, "b", summary)
        news = select(event.c.event, event.c.historical).order_by(event.c.id)
        told = [tuple(each) for each in await connection.execute(news)]
    assert told == [("messageProcessed", False)] + [("messageProcessed", True)] * recorded


@pytest.mark.parametrize("of", [1, 2], ids=["that alone", "of several at once"])
async def test_what_is_finished_while_other_work_of_it_is_queued_is_not_processed_yet(store: Database, of: int) -> None:
    """Whoever finishes has looked before that is committed, and waits for it."""
    await fill(store, of)
    held = await claimed(store, "a")
    async with store.write() as connection:
        row = await reprocess.create(connection, "summary", 1, Wanted(), 11.0)
    async with store.write() as first:
        found = reprocess_pieces.Look([1], 1)
        assert await reprocess_pieces.put_piece(first, row, found, 12.0) is not None
        other = beside(store, lambda connection: finish(connection, "a", *held))
        assert await waits(store, other)
    report = await other
    assert (report.recorded, report.processed_ids) == (of, tuple(range(2, of + 1)))
    [summary] = await claimed(store, "b", "summary")
    async with store.write() as connection:
        assert (await finish(connection, "b", summary)).processed_ids == (1,)
    assert await told(store) == [("messageProcessed", number) for number in (*range(2, of + 1), 1)]


async def test_where_messages_have_other_work_batches_are_looked_at_before_they_are_sent(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next three after one of which that was true; then all is sent at once again."""
    real, sent = queue_recording.record_and_tell, []

    def record_and_tell(connection: Connection, worker: str, done: Sequence[Finished], now: float) -> Told:
        sent.append(done[0].claim.message_id)
        return real(connection, worker, done, now)

    monkeypatch.setattr(queue_recording, "record_and_tell", record_and_tell)
    await fill(store, 6)
    async with store.write() as connection:
        await queue.enqueue(connection, [new_work(1, "summary")], 11.0)
        for _ in range(6):
            [held] = await claim(connection, "a", 1)
            await finish(connection, "a", held)
    assert sent == [1, 5, 6]
    assert await told(store) == [("messageProcessed", number) for number in range(2, 7)]


async def test_outcomes_of_different_messages_wait_for_nobody(store: Database) -> None:
    await fill(store, 2)
    one, two = await claimed(store, "a")
    async with store.write() as first:
        await finish(first, "a", one)
        other = beside(store, lambda connection: finish(connection, "a", two))
        assert not await waits(store, other)
        assert (await other).processed_ids == (2,)


async def test_the_same_outcome_twice_at_once_is_recorded_once(store: Database) -> None:
    """As after a COMMIT whose answer was lost, when the outcome is tried again before the server gave up the first."""
    await fill(store, 1)
    [held] = await claimed(store, "a")
    async with store.write() as first:
        one = await finish(first, "a", held)
        other = beside(store, lambda connection: finish(connection, "a", held))
        assert await waits(store, other)
    again = await other
    assert (one.recorded, again.recorded, again.stale) == (1, 0, 1)
    assert await told(store) == [("messageProcessed", 1)]


async def test_a_zombie_that_finishes_while_its_row_goes_to_another_is_stale(store: Database) -> None:
    """The row is taken back and claimed anew in a transaction that is open when the zombie looks."""
    await fill(store, 1)
    held = await claimed(store, "zombie")
    async with store.write() as first:
        assert await reap(first) == 1
        again = await claim(first, "living", crashed=True)
        other = beside(store, lambda connection: finish(connection, "zombie", *held, value='"zombie"'))
        await waits(store, other)
    report = await other
    assert (report.recorded, report.stale) == (0, 1)
    async with store.write() as connection:
        assert (await finish(connection, "living", *again, value='"living"')).recorded == 1
        assert list(await connection.scalars(select(result.c.value))) == ['"living"']
    assert await told(store) == [("messageProcessed", 1)]


# -- the reaper -------------------------------------------------------------------------------------------------------


async def one_that_may_not_crash_again(store: Database) -> list[Claim]:
    await fill(store, 1)
    async with store.write() as connection:
        await connection.execute(update(work).values(crashes=queue.MAX_CRASHES))
        return await claim(connection, "a", crashed=True)


async def test_what_is_being_finished_is_not_given_up(store: Database) -> None:
    held = await one_that_may_not_crash_again(store)
    async with store.write() as first:
        assert (await finish(first, "a", *held)).recorded == 1
        other = beside(store, reap)
        await waits(store, other)
    assert await other == 0
    assert await told(store) == [("messageProcessed", 1)], "told of as failed, though it is processed"


async def test_the_reaper_waits_for_nobody(store: Database) -> None:
    held = await one_that_may_not_crash_again(store)
    async with store.write() as first:
        await finish(first, "a", *held)
        other = beside(store, reap)
        assert not await waits(store, other), "the reaper waits for who is finishing"
        assert await other == 0


async def test_what_failed_meanwhile_is_not_taken_back(store: Database) -> None:
    await fill(store, 1)
    held = await claimed(store, "a")
    async with store.write() as first:
        await steps.finish(first, "a", [], [Failed(held[0], "broken", None)], 20.0)
        other = beside(store, reap)
        assert not await waits(store, other)
        assert await other == 0
    async with store.read() as connection:
        [row] = await queue.list_work(connection)
        assert (row.state, row.crashes) == ("failed", 0)
    assert await told(store) == [("messageFailed", 1)]
