"""How PostgreSQL plans the queue's statements, also for tables that were just filled: it has not analyzed them yet."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert
from work_rows import add_account, add_messages

from mailmill.store import queue_events, queue_outcomes
from mailmill.store.database import Database
from mailmill.store.statement import compiled
from mailmill.store.tables import mailbox, message, place

ROWS = 20_000


@pytest.fixture
async def store(postgres_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(postgres_url, data_dir=tmp_path / "node")
    try:
        yield database
    finally:
        await database.close()


async def test_messages_with_other_work_are_looked_up_and_the_queue_is_not_walked(store: Database) -> None:
    """A join of the given ids took a hundred times as long there, until the table was analyzed."""
    own = {"id": "n", "sha256": "sha256(CAST(n AS text)::bytea)"}
    columns = [column.name for column in message.c]
    async with store.write() as connection:
        await add_account(connection)
        await add_messages(connection, [1])
        await connection.exec_driver_sql(
            f"INSERT INTO message ({', '.join(columns)}) SELECT {', '.join(own.get(name, name) for name in columns)} "
            f"FROM message, generate_series(2, {ROWS}) AS n"
        )
        await connection.exec_driver_sql(
            "INSERT INTO work "
            "(message_id, processor, version, account_id, shard, state, priority, vt, run_at, enqueued_at) "
            "SELECT id, 'trivial', 1, account_id, 0, 'pending', 0, id, 0, 0 FROM message"
        )
    async with store.write() as connection:
        statement = compiled(queue_outcomes._several_rows(), connection.sync_connection)
        await connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.exec_driver_sql(f"PREPARE several AS {statement.text}")
        given = ", ".join(f"'{value}'" for value in statement.values({"ids": "{1,2,3}"}))
        plan = [row[0] for row in await connection.exec_driver_sql(f"EXPLAIN EXECUTE several({given})")]
        await connection.exec_driver_sql("DEALLOCATE several")
    scans = [(line, following) for line, following in zip(plan, [*plan[1:], ""], strict=True) if "Scan " in line]
    assert scans, plan
    assert all("Index Cond" in following or "Recheck Cond" in following for _, following in scans), plan


async def test_where_messages_lie_is_looked_up_once_for_each(store: Database) -> None:
    """As a part of the join with the mailboxes it was looked up twice where that join hashes."""
    ids = list(range(1, 201))
    async with store.write() as connection:
        await add_account(connection)
        await add_messages(connection, ids)
        boxes = [
            {"id": number, "account_id": 1, "path": f"Box {number}", "selectable": True} for number in range(1, 1001)
        ]
        await connection.execute(insert(mailbox), boxes)
        places = [
            {"mailbox_id": box, "uid_validity": 1, "uid": number, "message_id": number, "flags": "", "seen_at": 1.0}
            for number in ids
            for box in (number, number + 500)
        ]
        await connection.execute(insert(place), places)
    plans = []
    for others in ((), ("nestloop", "mergejoin")):
        async with store.write() as connection:
            await connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
            for kind in others:
                await connection.exec_driver_sql(f"SET LOCAL enable_{kind} = off")
            plain = connection.sync_connection
            statement = compiled(queue_events._told_processed(plain, past=False), plain)
            explained = f"EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) {statement.text}"
            values = statement.values({"messages_id": ids, "at": 0.0})
            plans.append([row[0] for row in await connection.exec_driver_sql(explained, values)])
            await connection.rollback()
    for plan in plans:
        [at] = [number for number, line in enumerate(plan) if line.strip().startswith("SubPlan")]
        loops = re.search(r"loops=(\d+)", plan[at + 1])
        assert loops and int(loops[1]) == len(ids), plan
    assert any("Hash" in line and "Join" in line for line in plans[1]), plans[1]
