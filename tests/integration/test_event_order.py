"""On PostgreSQL transactions commit in any order. Whoever follows the log misses none, whatever becomes of whom."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from harness.patience import eventually
from mailmill.errors import StoreError
from mailmill.model import EventName
from mailmill.store import event_log, sequencer
from mailmill.store.database import Database
from mailmill.store.event_log import EventRow, NewEvent
from mailmill.store.tables import event

Opening = Callable[[str], Awaitable[Database]]


@pytest.fixture
async def open_node(postgres_url: str, tmp_path: Path) -> AsyncIterator[Opening]:
    """``await open_node(name)``: the database as one more process would open it, with a sequencer of its own."""
    async with AsyncExitStack() as opened:

        async def open_one(name: str) -> Database:
            database = await Database.open(postgres_url, data_dir=tmp_path / name)
            opened.push_async_callback(database.close)
            return database

        yield open_one


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    """Connections without any sequencer behind them."""
    made = create_async_engine(postgres_url, pool_size=10)
    yield made
    await made.dispose()


async def append(connection: AsyncConnection, *message_ids: int) -> None:
    await event_log.append(
        connection, [NewEvent("default", EventName.MESSAGE_NEW, 1.0, message_id=each) for each in message_ids]
    )


class Reader:
    """Follows the log as the API and the outbox do: by position, one batch after the other."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.position = 0
        self.seen: list[int] = []

    async def read(self) -> list[EventRow]:
        async with self._database.read() as connection:
            rows = await event_log.read_after(connection, self.position, 7)
        if rows:
            self.position = rows[-1].position
        self.seen += [row.message_id or 0 for row in rows]
        return rows

    async def until(self, count: int) -> list[int]:
        """All that was seen, as soon as that is ``count`` events."""
        with self._database.wake.events.subscribe() as hint:
            async with asyncio.timeout(20):
                while len(self.seen) < count:
                    if not await self.read():
                        await hint.wait(1)
        return self.seen


@asynccontextmanager
async def open_transaction(engine: AsyncEngine, *message_ids: int) -> AsyncIterator[AsyncConnection]:
    """A transaction that has appended events; rolled back at the end, unless it was committed."""
    async with engine.connect() as connection:
        await append(connection, *message_ids)
        yield connection


async def test_what_commits_late_is_read_late_and_not_skipped(open_node: Opening, engine: AsyncEngine) -> None:
    database = await open_node("a")
    reader = Reader(database)
    async with open_transaction(engine, 1) as late:
        async with database.write() as early:
            await append(early, 2)
        assert await reader.until(1) == [2], "an open transaction holds nothing up"
        ids = (await late.execute(select(event.c.id).order_by(event.c.id))).scalars().all()
        assert len(ids) == 2, "the late one has the lower id"
        await late.commit()
    assert await reader.until(2) == [2, 1]
    assert await reader.read() == []
    async with database.read() as connection:
        rows = await event_log.read_after(connection, 0, 10)
    assert [(row.message_id, row.position) for row in rows] == [(2, 1), (1, 2)]
    assert rows[0].id > rows[1].id


async def test_an_idle_transaction_stalls_nobody(open_node: Opening, engine: AsyncEngine) -> None:
    """One that has written an event, and one that only holds an old snapshot."""
    database = await open_node("a")
    reader = Reader(database)
    async with open_transaction(engine, 99), engine.connect() as looking:
        await looking.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        assert await looking.scalar(select(func.count()).select_from(event)) == 0
        for number in range(1, 51):
            async with database.write() as connection:
                await append(connection, number)
        assert await reader.until(50) == list(range(1, 51))
    # The one that wrote was rolled back: its id is a gap, and nobody waits for it.
    async with database.write() as connection:
        await append(connection, 51)
    assert (await reader.until(51))[-1] == 51


async def test_a_commit_far_behind_the_newest_is_found(
    open_node: Opening, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hints look at what is new alone; the poll looks at everything."""
    monkeypatch.setattr(sequencer, "RECENT_IDS", 2)
    database = await open_node("a")
    reader = Reader(database)
    async with open_transaction(engine, 1) as late:
        async with database.write() as connection:
            await append(connection, *range(2, 20))
        await reader.until(18)
        await late.commit()
    assert await reader.until(19) == [*range(2, 20), 1]


async def test_several_nodes_number_side_by_side(
    open_node: Opening, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencer, "BATCH", 5)
    nodes = [await open_node(name) for name in ("a", "b", "c")]
    chance = random.Random(7)
    committed: list[int] = []

    async def write(node: Database, numbers: range) -> None:
        for number in numbers:
            undone = chance.random() < 0.2
            with contextlib.suppress(ZeroDivisionError):
                async with node.write() as connection:
                    await append(connection, number)
                    for _ in range(chance.randrange(6)):  # so that commits overtake each other
                        await connection.execute(select(1))
                    if undone:
                        raise ZeroDivisionError
                committed.append(number)

    readers = [Reader(node) for node in nodes]
    async with asyncio.TaskGroup() as group:
        for index in range(6):
            group.create_task(write(nodes[index % 3], range(index * 100 + 1, index * 100 + 41)))
    logs = [await reader.until(len(committed)) for reader in readers]
    assert sorted(logs[0]) == sorted(committed)
    assert logs[0] == logs[1] == logs[2], "all read the same, in the same order"
    async with engine.connect() as connection:
        numbers = (await connection.execute(select(event.c.seq).order_by(event.c.seq))).scalars().all()
    assert numbers == list(range(1, len(committed) + 1))


async def test_numbering_that_is_cut_is_done_by_another(open_node: Opening, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await append(connection, 1, 2, 3)
        await connection.commit()
    async with engine.connect() as dying:
        assert await sequencer.number(dying, limit=2) == (2, 2)
        database = await open_node("a")  # its sequencer waits for the lock
        reader = Reader(database)
        assert await reader.read() == [], "what is not committed is not numbered"
        async with engine.connect() as other:
            pid = await dying.scalar(text("SELECT pg_backend_pid()"))
            await other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with contextlib.suppress(Exception):
            await dying.invalidate()
    assert await reader.until(3) == [1, 2, 3]
    assert reader.position == 3


async def test_a_stopped_sequencer_loses_its_turn(
    open_node: Opening, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody commits and nobody hangs up: a process that was stopped in the middle of its numbering."""
    monkeypatch.setattr(sequencer, "_HELD_SECONDS", 1)
    async with engine.connect() as stopped:
        await append(stopped, 1)
        await stopped.commit()
        assert (await sequencer.number(stopped)).events == 1
        reader = Reader(await open_node("a"))
        assert await reader.until(1) == [1]
        with pytest.raises(Exception, match=r"terminat|closed|lost"):
            await stopped.commit()
        await stopped.invalidate()
    assert await reader.read() == []


async def test_without_its_lock_numbering_fails_and_gives_no_number_twice(engine: AsyncEngine) -> None:
    """The net below the law: what the lock prevents, the index refuses."""

    async def number_without_lock(connection: AsyncConnection) -> None:
        await connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        await number_unlocked(connection)

    async with open_transaction(engine, 1) as late, engine.connect() as one, engine.connect() as two:
        await append(one, 2, 3)
        await one.commit()
        await number_without_lock(one)
        await late.commit()
        waiting = asyncio.create_task(number_without_lock(two))
        await blocked(engine)
        await one.commit()
        with pytest.raises(IntegrityError):
            await waiting


async def number_unlocked(connection: AsyncConnection) -> None:
    """`sequencer.number` on a connection that is told that it has the lock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequencer, "_LOCK", None)  # a lock of no number is none
        await sequencer.number(connection)


async def blocked(engine: AsyncEngine) -> None:
    """Returns when a session waits for another's transaction."""
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with engine.connect() as connection:

        async def waiting() -> int:
            await connection.rollback()
            found: int = await connection.scalar(waits)
            return found

        await eventually(waiting)


async def test_what_a_closing_node_still_owes_is_numbered(open_node: Opening, engine: AsyncEngine) -> None:
    database = await open_node("a")
    async with engine.connect() as busy:
        await sequencer.number(busy)
        async with database.write() as connection:
            await append(connection, 1)
        await blocked(engine)
        closing = asyncio.create_task(database.close())
        await asyncio.sleep(0)  # it has cancelled its sequencer, which waited for the lock
        await busy.rollback()
        await closing
    async with engine.connect() as connection:
        assert await event_log.is_numbered(connection)
        assert await event_log.head(connection) == 1


async def test_numbering_goes_on_after_the_store_failed(open_node: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = 2
    right = sequencer.number

    async def failing(connection: AsyncConnection, **options: int) -> sequencer.Numbered:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreError("the database is away") if failures else RuntimeError("unforeseen")
        return await right(connection, **options)

    monkeypatch.setattr(sequencer, "number", failing)
    database = await open_node("a")
    async with database.write() as connection:
        await append(connection, 1)
    assert await Reader(database).until(1) == [1]
    assert failures == 0
