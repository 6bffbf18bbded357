"""What an operator watches: depths and ages, by processor, destination and state."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event as sa_event
from sqlalchemy import insert, update
from store_mail import open_database
from work_rows import add_account, add_messages, claim, new_work

from mailmill.app import scrape
from mailmill.app.figures import FigureCache
from mailmill.app.metrics import Metrics, Snapshot
from mailmill.model import EventName
from mailmill.store import event_log, operating_figures, queue, sequencer
from mailmill.store.database import Database
from mailmill.store.event_log import NewEvent
from mailmill.store.operating_figures import DeliveryBacklog, Depth, EventLag
from mailmill.store.tables import delivery, setting, work


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    async with opened.write() as connection:
        await add_account(connection, 1)
        await add_messages(connection, range(1, 9))
    yield opened
    await opened.close()


async def depths(database: Database) -> list[Depth]:
    async with database.read() as connection:
        return await operating_figures.depths(connection)


async def test_depths_by_processor_and_state(database: Database) -> None:
    assert await depths(database) == []
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(1), new_work(2)], 10.0)
        await claim(connection)
        await queue.enqueue(connection, [new_work(3), new_work(3, "summary")], 20.0)
        await queue.enqueue(connection, [new_work(4), new_work(5, priority=queue.BACKLOG)], 30.0)
        await queue.enqueue(connection, [new_work(6, "summary"), new_work(7, "summary")], 40.0)
        await connection.execute(update(work).where(work.c.message_id == 6).values(state="waiting"))
        await connection.execute(update(work).where(work.c.message_id == 7).values(state="failed", crashes=4))
    assert sorted(await depths(database), key=lambda each: (each.processor, each.state)) == [
        Depth("summary", "failed", 1, None),
        Depth("summary", "pending", 1, 20.0),
        Depth("summary", "waiting", 1, None),
        Depth("threat", "backlog", 1, 30.0),
        Depth("threat", "pending", 2, 20.0),
        Depth("threat", "processing", 2, 10.0),
    ]
    async with database.read() as connection:
        assert await operating_figures.quarantined(connection) == {"summary": 1}


async def test_deliveries_by_destination(database: Database) -> None:
    rows = [("hook", 1, "pending", 9.0, 50.0), ("hook", 2, "pending", 8.0, 40.0), ("chat", 1, "delivered", 1.0, 30.0)]
    async with database.write() as connection:
        for destination, event_id, state, run_at, created_at in rows:
            await connection.execute(
                insert(delivery).values(
                    tenant_id="default",
                    destination=destination,
                    event_id=event_id,
                    state=state,
                    run_at=run_at,
                    created_at=created_at,
                )
            )
    async with database.read() as connection:
        assert await operating_figures.delivery_backlogs(connection) == [DeliveryBacklog("hook", 2, 50.0)]


async def test_how_far_the_outbox_is_behind(database: Database) -> None:
    async with database.write() as connection:
        before = await operating_figures.event_lag(connection)
        await event_log.append(connection, [NewEvent("default", EventName.MESSAGE_NEW, at) for at in (7.0, 8.0)])
    assert before == EventLag(0, None)
    async with database.read() as connection:
        assert await operating_figures.event_lag(connection) == EventLag(2, 7.0)
    async with database.write() as connection:
        await sequencer.number(connection)
        head = await event_log.head(connection)
        await connection.execute(insert(setting).values(name="outbox_cursor", value=str(head - 1)))
    async with database.read() as connection:
        assert await operating_figures.event_lag(connection) == EventLag(1, 8.0)


async def test_no_count_reads_the_rows_of_a_backlog(data_dir: Path) -> None:
    """Each large count walks an index, as the plan of SQLite says."""
    async with open_database(data_dir) as database, database.read() as connection:
        statements: list[tuple[str, object]] = []

        def note(_connection: object, _cursor: object, statement: str, given: object, *_rest: object) -> None:
            if statement.startswith("SELECT") and "count(" in statement:
                statements.append((statement, given))

        sync = connection.sync_connection
        assert sync is not None
        sa_event.listen(sync, "before_cursor_execute", note)
        await operating_figures.depths(connection)
        await operating_figures.delivery_backlogs(connection)
        sa_event.remove(sync, "before_cursor_execute", note)
        assert len(statements) == 3
        for statement, given in statements:
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)  # type: ignore[arg-type]
            plan = [str(row[3]) for row in rows]
            tables = [line for line in plan if re.search(r"\b(work|delivery)\b", line)]
            by_index = r"USING (COVERING )?INDEX|USING INTEGER PRIMARY KEY"
            assert [line for line in tables if not re.search(by_index, line)] == [], plan


async def test_figures_are_counted_once_for_all_who_ask(database: Database) -> None:
    cache = FigureCache(database)
    first = await cache.get()
    assert (await cache.get()).of_work is first.of_work
    assert first.cursor == min(first.of_work.cursor, first.of_mail.cursor)


async def test_a_scrape_tells_of_them(database: Database) -> None:
    async with database.write() as connection:
        await queue.enqueue(connection, [new_work(1)], 10.0)
    figures = await FigureCache(database).get()
    text = Metrics().render(Snapshot(**scrape.of_work(figures.of_work, now=14.0, node="n", syncs=True))).decode()
    assert 'mailmill_queue_rows{processor="threat",state="pending"} 1.0' in text
    assert 'mailmill_queue_oldest_seconds{processor="threat",state="pending"} 4.0' in text
    # On SQLite the one process has all shards; a PostgreSQL whose nodes are all gone has none.
    owned = 64 if database.alone else 0
    assert f"mailmill_shards_owned {owned}.0" in text
    assert f"mailmill_shards_unowned {64 - owned}.0" in text
