"""Claims that begin where the last one ended: they find what the others find, only later what came back behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select
from work_rows import add_account, add_messages, claim, new_work

from mailmill.store import queue, queue_front
from mailmill.store.database import Database
from mailmill.store.queue_front import BEGINNING, BELIEVED_SECONDS, LONGEST_SECONDS, LOOKING_SHARE, Front, Turn
from mailmill.store.tables import work


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def front(clock: Clock) -> Front:
    return Front(clock)


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    async with opened.write() as connection:
        await add_account(connection, 1)
        await add_messages(connection, range(1, 13))
    yield opened
    await opened.close()


def test_it_is_not_believed_before_a_claim_has_looked(front: Front) -> None:
    front.reached(Turn(0, 5.0))
    assert front.turn() == BEGINNING


def test_it_is_believed_for_a_moment(front: Front, clock: Clock) -> None:
    front.looked(0.0)
    front.reached(Turn(0, 5.0))
    clock.now += BELIEVED_SECONDS * 0.99
    assert front.turn() == Turn(0, 5.0)
    clock.now += BELIEVED_SECONDS * 0.02
    assert front.turn() == BEGINNING


def test_looking_takes_a_small_share_of_the_time(front: Front, clock: Clock) -> None:
    front.looked(0.1)
    front.reached(Turn(0, 5.0))
    clock.now += 0.1 / LOOKING_SHARE * 0.99
    assert front.turn() == Turn(0, 5.0)
    clock.now += 0.1 / LOOKING_SHARE * 0.02
    assert front.turn() == BEGINNING


def test_one_slow_answer_hides_nothing_for_long(front: Front, clock: Clock) -> None:
    front.looked(1000.0)
    front.reached(Turn(0, 5.0))
    clock.now += LONGEST_SECONDS
    assert front.turn() == BEGINNING


def test_a_hint_is_followed_as_soon_as_the_share_allows(front: Front, clock: Clock) -> None:
    front.looked(0.001)
    front.reached(Turn(0, 5.0))
    front.doubt()
    clock.now += 0.001 / LOOKING_SHARE * 0.99
    assert front.turn() == Turn(0, 5.0)
    clock.now += 0.001 / LOOKING_SHARE * 0.02
    assert front.turn() == BEGINNING


def test_a_hint_while_a_look_is_under_way_is_not_lost(front: Front, clock: Clock) -> None:
    assert front.turn() == BEGINNING
    front.doubt()
    front.looked(0.001)
    front.reached(Turn(0, 5.0))
    clock.now += 0.001 / LOOKING_SHARE * 1.01
    assert front.turn() == BEGINNING
    front.reached(Turn(0, 6.0))
    assert front.turn() == Turn(0, 6.0), "a hint counts once"


async def test_claims_follow_one_another_as_without_it(database: Database, front: Front) -> None:
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(n, priority=queue.BACKLOG) for n in range(1, 5)], 10.0)
        await queue.enqueue(connection, [new_work(n) for n in range(5, 9)], 11.0)
        taken = [[one.message_id for one in await claim(connection, limit=3, front=front)] for _ in range(4)]
    assert taken == [[5, 6, 7], [8, 1, 2], [3, 4], []]


async def test_what_came_back_behind_it_is_found_when_rows_run_short(database: Database, front: Front) -> None:
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(n) for n in range(1, 6)], 10.0)
        first = await claim(connection, limit=2, front=front)
        await queue.release(connection, "w", first[:1])
        assert [one.message_id for one in await claim(connection, limit=2, front=front)] == [3, 4]
        assert [one.message_id for one in await claim(connection, limit=2, front=front)] == [1, 5]


async def test_what_came_back_behind_it_is_found_after_a_moment(database: Database, front: Front, clock: Clock) -> None:
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(n) for n in range(1, 9)], 10.0)
        first = await claim(connection, limit=2, front=front)
        await queue.release(connection, "w", first[:1])
        clock.now += 1e6  # however long the look took
        assert [one.message_id for one in await claim(connection, limit=2, front=front)] == [1, 3]


async def test_new_mail_is_taken_before_the_backlog_it_meets(database: Database, front: Front, clock: Clock) -> None:
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(n, priority=queue.BACKLOG) for n in range(1, 7)], 10.0)
        await claim(connection, limit=2, front=front)
        await queue.enqueue(connection, [new_work(7)], 11.0)
        front.doubt()
        clock.now += 1e6
        assert [one.message_id for one in await claim(connection, limit=2, front=front)] == [7, 3]


async def test_rows_that_crashed_are_looked_for_from_the_beginning(database: Database, front: Front) -> None:
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(n) for n in range(1, 5)], 10.0)
        await claim(connection, worker_id="dead", limit=1)
        await claim(connection, limit=2, front=front)
        await queue.heartbeat(connection, "w", 1000.0)
        assert await queue.reap(connection, dead_after_seconds=10, now=1000.0, told_at=1000.0) == 1
        assert [one.message_id for one in await claim(connection, crashed=True, front=front)] == [1]
        assert [one.message_id for one in await claim(connection, limit=1, front=front)] == [4]


async def test_who_queues_believes_the_front_it_has_seen(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of who read the same front may still be committed there: the clock would put a newcomer behind them all."""
    monkeypatch.setattr(queue_front, "LOOKING_SHARE", 1e-9)
    monkeypatch.setattr(queue_front, "LONGEST_SECONDS", 1e6)
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(n) for n in range(1, 4)], 10.0)
        await claim(connection)
        await queue.enqueue(connection, [new_work(4)], 5000.0)
        assert await connection.scalar(select(work.c.vt).where(work.c.message_id == 4)) == pytest.approx(10.0)


async def test_who_queues_into_an_empty_lane_begins_at_the_clock(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_front, "LOOKING_SHARE", 1e9)
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(n) for n in range(1, 4)], 10.0)
        await claim(connection)
        await queue.enqueue(connection, [new_work(4)], 5000.0)
        assert await connection.scalar(select(work.c.vt).where(work.c.message_id == 4)) == pytest.approx(5000.0)
