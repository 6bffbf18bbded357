"""No two transactions wait for each other: pairs that write the same rows, on PostgreSQL, interleaved on purpose.

``first`` (the test's own transaction) has some of the rows when the other one begins, and asks for the rest when that
is done or waits. Where each has what the other one wants, PostgreSQL ends one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from store_mail import NOW, Store, arrival, new_store, open_database

from harness import lock_order, steps
from harness.interleaving import beside, waits
from mailmill.app import housekeeping, removal
from mailmill.model import Backlog, EventName
from mailmill.store import (
    account_limits,
    account_removal,
    accounts,
    dialect,
    event_log,
    message_batch,
    outbox,
    queue,
    repairs,
    reprocess,
    reprocess_pieces,
    retention,
    row_locks,
)
from mailmill.store.event_log import NewEvent
from mailmill.store.messages import Arrival, BatchOutcome, Cursor
from mailmill.store.outbox import DeliveryOutcome
from mailmill.store.queue import Claim, Finished
from mailmill.store.reprocess import Wanted
from mailmill.store.retention import Retention
from mailmill.store.tables import delivery, message, metadata, place, result, work
from mailmill.uid_set import UidSet

KEEPS_NOTHING = Retention(0.0, 0.0, 0.0)
LATER = NOW + 1000
RemoveMessages = Callable[[AsyncConnection, Store], Awaitable[int]]


@pytest.fixture
async def store(data_dir: Path, postgres_url: str) -> AsyncIterator[Store]:
    async with open_database(data_dir, postgres_url) as database:
        yield await new_store(database)


async def claimed(store: Store, processor: str = "threat") -> list[Claim]:
    """All work of ``processor``, by a worker that then gives no sign of life."""
    async with store.database.write() as connection:
        await queue.heartbeat(connection, "worker", NOW)
        return await steps.claim(
            connection, processor=processor, worker_id="worker", limit=100, deadline_seconds=3600, now=NOW
        )


async def finish(connection: AsyncConnection, *claims: Claim) -> int:
    report = await steps.finish(connection, "worker", [Finished(one, "{}", 0.1) for one in claims], [], NOW)
    return report.recorded


async def purge(connection: AsyncConnection, store: Store) -> int:
    ids = list(await connection.scalars(select(message.c.id).order_by(message.c.id)))
    return await retention.purge_deleted(connection, ids, KEEPS_NOTHING, LATER)


async def remove(connection: AsyncConnection, store: Store) -> int:
    return await account_removal.remove_messages(connection, store.account.id)


async def gone_from_the_server(store: Store, *uids: int) -> None:
    await store.apply(expunged=uids)
    async with store.database.write() as connection:
        ids = select(place.c.message_id).where(place.c.uid.in_(uids))
        await connection.execute(update(message).where(message.c.id.in_(ids)).values(deleted_at=NOW))


def begin_and_stop(
    store: Store, monkeypatch: pytest.MonkeyPatch, *arrivals: Arrival, cursor: Cursor | None = None
) -> tuple[asyncio.Task[BatchOutcome], asyncio.Event, asyncio.Event]:
    """A batch that stops before it locks messages, with all places written: (it, it is there, it may go on)."""
    there, go_on = asyncio.Event(), asyncio.Event()
    hold = row_locks.hold_messages

    async def late(connection: AsyncConnection, message_ids: Iterable[int]) -> None:
        there.set()
        await go_on.wait()
        await hold(connection, message_ids)

    monkeypatch.setattr(message_batch, "hold_messages", late)
    return asyncio.create_task(store.apply(arrivals, cursor=cursor)), there, go_on


async def test_a_deletion_waits_for_what_workers_hold(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes over their messages, and does not say that it is done before it came again."""
    await store.apply([arrival(1, "mail"), arrival(2, "more")])
    async with store.database.write() as connection:
        await accounts.pause_missing(connection, set(), NOW)
        marked = await account_removal.mark(connection, store.account.name, NOW)
    passed_over = asyncio.Event()
    once = removal.remove_what_is_free

    async def observed(*given: Any) -> tuple[int, bool]:
        answer = await once(*given)
        passed_over.set()
        return answer

    monkeypatch.setattr(removal, "remove_what_is_free", observed)
    async with store.database.write() as worker:
        await worker.execute(select(work.c.message_id).with_for_update())
        deleting = asyncio.create_task(removal.finish_removal(store.database, marked.account_id))
        await passed_over.wait()
        assert not deleting.done()
    assert await deleting == 2
    assert not await store.rows("SELECT 1 FROM account")


# -- mail -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("let_go", [purge, remove])
async def test_a_message_that_comes_back_while_it_is_deleted_for_good(
    store: Store, monkeypatch: pytest.MonkeyPatch, let_go: RemoveMessages
) -> None:
    """The batch has the place and wants the message; what is deleted is the message, and with it the place."""
    await store.apply([arrival(1, "mail")])
    await gone_from_the_server(store, 1)
    back, there, go_on = begin_and_stop(store, monkeypatch, arrival(1, "mail"))
    await there.wait()
    deleting = beside(store.database, lambda connection: let_go(connection, store))
    assert await waits(store.database, deleting)
    go_on.set()
    assert (await back).updated == 1
    assert await deleting == (let_go is remove)
    assert len(await store.rows("SELECT 1 FROM place WHERE expunged_at IS NULL")) == (let_go is purge)


async def test_a_message_that_comes_back_when_it_was_just_deleted_for_good_is_stored_anew(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    await gone_from_the_server(store, 1)
    row = await store.mailbox()
    async with store.database.write() as first:
        assert await purge(first, store) == 1
        back = asyncio.create_task(store.apply([arrival(1, "mail")], row=row))
        await waits(store.database, back)
    assert (await back).new == 1
    assert len(await store.rows("SELECT 1 FROM place JOIN message ON message.id = message_id")) == 1


async def test_a_repair_holds_no_message_while_it_waits_for_a_lower_one(store: Store) -> None:
    """UIDs are named in pieces that are in no order. A worker that finishes both has locked the lower message."""
    await store.apply([arrival(uid, f"mail {uid}") for uid in (1, 2, 5)])
    async with store.database.write() as connection:
        await connection.execute(update(message).values(deleted_at=NOW))
    row = await store.mailbox()
    uids = UidSet([1, 2, 5])
    async with store.database.write() as first:
        await row_locks.hold_messages(first, [1])
        repairing = beside(store.database, lambda connection: repairs.revive_messages(connection, row, uids, NOW))
        assert await waits(store.database, repairing)
        higher = select(message.c.id).where(message.c.id > 1).order_by(message.c.id)
        assert list(await first.scalars(dialect.skip_locked(first, higher, of=message))) == [2, 3]
    await repairing
    assert await store.rows("SELECT count(*) FROM message WHERE deleted_at IS NULL") == [(3,)]


async def test_mail_that_is_stored_and_mail_that_is_processed_again_queue_into_one_lane(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lock messages first, and then their account's place in the queue."""
    await store.apply([arrival(1, "one")])
    async with store.database.write() as connection:
        await connection.execute(delete(work))
        row = await reprocess.create(connection, "threat", 1, Wanted(), NOW)
        found = await reprocess_pieces.look(connection, row, 0)
    history = Cursor(7, 4, historical_below=100)
    back, there, go_on = begin_and_stop(
        store, monkeypatch, arrival(2, "one", email_id="now known"), arrival(3, "two"), cursor=history
    )
    await there.wait()
    async with store.database.write() as first:
        moved = await reprocess_pieces.put_piece(first, row, found, NOW)
        assert moved is not None
        assert moved.queued == 1
        go_on.set()
        assert await waits(store.database, back)
    assert (await back).new == 1
    lanes = "SELECT last_message_id FROM lane WHERE processor = 'threat' AND priority = 10"
    assert len(await store.rows(lanes)) == 1
    assert await store.rows("SELECT count(*) FROM work WHERE processor = 'threat' AND priority = 10") == [(2,)]


# -- work -------------------------------------------------------------------------------------------------------------


async def test_a_worker_comes_back_while_its_work_is_taken_back(store: Store) -> None:
    """It proves its life and brings its outcomes; the reaper has taken the work, and is about to forget the worker."""
    await store.apply([arrival(1, "mail")])
    [held] = await claimed(store)
    async with store.database.write() as first:
        await queue.heartbeat(first, "worker", LATER)
        reaping = beside(
            store.database,
            lambda connection: queue.reap(connection, dead_after_seconds=10, now=LATER, told_at=LATER),
        )
        await waits(store.database, reaping)
        await finish(first, held)
    assert await reaping == 1
    assert await store.rows("SELECT id FROM worker") == [("worker",)]


@pytest.mark.parametrize("let_go", [purge, remove])
async def test_outcomes_of_messages_that_are_deleted_for_good(store: Store, let_go: RemoveMessages) -> None:
    """A worker records them in an order of its own. What it holds is left for the next time."""
    await store.apply([arrival(1, "one"), arrival(2, "two")])
    await gone_from_the_server(store, 1, 2)
    async with store.database.write() as connection:
        # A message with no other work is not locked by who finishes it.
        await connection.execute(delete(work).where(work.c.processor == "summary"))
    one, two = await claimed(store)
    async with store.database.write() as first:
        await finish(first, two)
        deleting = beside(store.database, lambda connection: let_go(connection, store))
        assert not await waits(store.database, deleting)
        await finish(first, one)
    assert await deleting == 1
    async with store.database.write() as connection:
        assert await let_go(connection, store) == 1
        for table in (message, work, result):
            assert (await connection.execute(select(table))).all() == []


async def test_results_that_are_replaced_while_old_ones_expire(store: Store) -> None:
    await store.apply([arrival(1, "one"), arrival(2, "two")])
    claims = await claimed(store)
    async with store.database.write() as connection:
        await finish(connection, *claims)
        await connection.execute(update(result).values(finished_at=1.0))
        row = await reprocess.create(connection, "threat", 1, Wanted(everything=True), NOW)
        await reprocess_pieces.put_piece(connection, row, await reprocess_pieces.look(connection, row, 0), NOW)
    one, two = await claimed(store)
    async with store.database.write() as first:
        await finish(first, two)
        expiring = beside(
            store.database,
            lambda connection: retention.expire_results(
                connection, [one.message_id, two.message_id], Retention(results_seconds=0.0), NOW
            ),
        )
        assert not await waits(store.database, expiring)
        await finish(first, one)
    assert await expiring == 1
    assert await store.rows("SELECT message_id FROM result ORDER BY 1") == [(one.message_id,), (two.message_id,)]


async def test_turns_of_processors_that_nobody_has_seen_before(store: Store) -> None:
    async with store.database.write() as connection:
        await account_limits.take_turns(connection, ["b"])
    async with store.database.write() as first:
        await account_limits.take_turns(first, ["a"])
        both = beside(store.database, lambda connection: account_limits.take_turns(connection, ["a", "b"]))
        assert await waits(store.database, both)
        async with asyncio.timeout(30), store.database.write() as second:
            await account_limits.take_turns(second, ["b"])  # what is waited for with nothing in hand
    await both


# -- the rest ---------------------------------------------------------------------------------------------------------


async def test_deliveries_are_closed_while_their_account_is_deleted(store: Store) -> None:
    async with store.database.write() as connection:
        for _ in range(3):
            await event_log.append(
                connection, [NewEvent("default", EventName.MESSAGE_NEW, NOW, account_id=store.account.id)]
            )
    await store.events()
    async with store.database.write() as connection:
        await outbox.plan_deliveries(connection, 100, lambda _: ["there"], NOW)
        claims = await outbox.claim(
            connection, destination="there", worker_id="worker", limit=100, deadline_seconds=60, now=NOW
        )
        lowest = min(claim.id for claim in claims)
        # The server reads a small table as it lies: the lowest one comes last now.
        await connection.execute(update(delivery).where(delivery.c.id == lowest).values(attempt=0))
    async with store.database.write() as first:
        lowest = min(claim.id for claim in claims)
        await first.execute(dialect.lock(first, select(delivery.c.id).where(delivery.c.id == lowest), of=delivery))
        outcomes = [DeliveryOutcome(claim, True) for claim in reversed(claims)]
        closing = beside(store.database, lambda connection: outbox.finish(connection, "worker", outcomes, NOW))
        assert await waits(store.database, closing)
        assert await account_removal.remove_events(first, store.account.id) is not None
    assert await closing == 0


async def test_accounts_are_brought_to_what_is_configured_in_one_order(store: Store) -> None:
    """By name, in whichever order they were added."""
    async with store.database.write() as connection:
        second = await accounts.ensure_account(
            connection, name="a", email="", backlog=Backlog.PROCESS, credential_mark="", now=NOW
        )
    wanted = dict.fromkeys((store.account.id, second.id), KEEPS_NOTHING)
    async with store.database.write() as first:
        await accounts.pause(first, "a", NOW)
        setting = beside(store.database, lambda connection: retention.set_retention(connection, wanted))
        assert await waits(store.database, setting)
        async with asyncio.timeout(30), store.database.write() as connection:
            await row_locks.hold_account(connection, store.account.id)  # "me" is not held by who waits for "a"
    await setting


# -- the order --------------------------------------------------------------------------------------------------------

_LOCK = "SELECT {0}.id FROM {0} WHERE {0}.id = $1::INTEGER FOR NO KEY UPDATE OF {0}".format


def test_every_table_has_its_place_in_the_order() -> None:
    placed = {*row_locks.ORDER, *row_locks.OF_AN_ACCOUNT, *row_locks.ONE_OWNER}
    # One is written on SQLite alone, the other never changes.
    assert {table.name for table in {*metadata.tables.values()} - placed} == {"id_block", "tenant"}


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        ([_LOCK("message"), _LOCK("account")], "locks account after message"),
        (["INSERT INTO lane (a) SELECT 1 ON CONFLICT (a) DO UPDATE SET a = 1", _LOCK("message")], "message after lane"),
        (["DELETE FROM work WHERE work.message_id = $1", "UPDATE message SET a=$1 WHERE b = $2"], "message after work"),
        (["UPDATE place SET expunged_at=$1 WHERE place.uid = $2"], "locks place, and not the account"),
        (["DELETE FROM worker WHERE worker.heartbeat_at < $1"], "waits for any worker"),
        (["UPDATE tenant SET id=$1"], "has no place"),
    ],
)
def test_the_watch_sees_a_wrong_order(statements: list[str], fault: str) -> None:
    [found] = lock_order.faults_of(statements)
    assert fault in found


@pytest.mark.parametrize(
    "statements",
    [
        [_LOCK("account"), _LOCK("message"), "UPDATE place SET a=$1", "UPDATE account SET a=$1", "DELETE FROM message"],
        [_LOCK("work"), _LOCK("message") + " SKIP LOCKED", "UPDATE message SET a=$1 WHERE message.id IN ($2)"],
        [
            _LOCK("work"),
            "WITH free AS (SELECT message.id AS id FROM message JOIN account ON account.id = message.account_id FOR "
            "UPDATE OF message SKIP LOCKED) DELETE FROM message WHERE message.id IN (SELECT free.id FROM free)",
        ],
        [
            _LOCK("work"),
            "SELECT message.id FROM message",
            "INSERT INTO message (id) VALUES ($1) ON CONFLICT DO NOTHING",
        ],
        [_LOCK("work"), "INSERT INTO worker (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET heartbeat_at = $2"],
    ],
)
def test_the_watch_sees_no_fault_in_a_right_order(statements: list[str]) -> None:
    assert lock_order.faults_of(statements) == []


async def test_the_watch_sees_what_mailmill_executes(
    store: Store, wrong_lock_order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the order another one: a transaction that the code opens is found fault with, and the test's own is not."""
    await store.apply([arrival(1, "mail")])
    async with store.database.write() as connection:
        await connection.execute(update(message).values(recipients=None))
    monkeypatch.setattr(lock_order, "_RANK", {"message": 1, "account": 2})
    async with store.database.write() as connection:
        await row_locks.hold_account(connection, store.account.id)
        await row_locks.hold_messages(connection, [1])
    assert wrong_lock_order == []
    await housekeeping.count_older_mail(store.database)
    faults = wrong_lock_order.copy()
    wrong_lock_order.clear()
    assert [fault.partition(": SELECT")[0] for fault in faults] == ["app/housekeeping.py: locks message after account"]
