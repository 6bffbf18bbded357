"""How PostgreSQL plans the queue's statements, also for tables that were just filled: it has not analyzed them yet."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from work_rows import add_account, add_messages

from mailmill.store import queue_events, queue_outcomes, queue_recording
from mailmill.store.database import Database
from mailmill.store.queue import Claim, Finished
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


async def fill(connection: AsyncConnection) -> None:
    """So many messages, each with a row of work, that nobody has analyzed."""
    own = {"id": "n", "sha256": "sha256(CAST(n AS text)::bytea)"}
    columns = [column.name for column in message.c]
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


def given(value: Any) -> str:
    """A value as EXECUTE takes it."""
    if isinstance(value, list):
        value = f"{{{', '.join(json.dumps(str(each)) for each in value)}}}"
    return f"'{value}'"


CLAIMS = [
    Claim(
        number, account_id=1, processor="trivial", version=1, attempt=0, crashes=0, fence=1, enqueued_at=0, priority=0
    )
    for number in range(1, 101)
]
LOOKS: dict[str, tuple[Callable[[Connection], Any], Mapping[str, Any]]] = {
    "messages with other work": (
        lambda _connection: queue_outcomes._several_rows(),
        {"ids": [claim.message_id for claim in CLAIMS]},
    ),
    "what is done": (
        lambda _connection: queue_recording._recording(),
        queue_recording._parameters("a", [Finished(claim, "{}", 0.1) for claim in CLAIMS], 1.0),
    ),
    "what is done and told": (
        queue_recording._recording_and_telling,
        queue_recording._parameters("a", [Finished(claim, "{}", 0.1) for claim in CLAIMS], 1.0),
    ),
}


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize("look", LOOKS)
async def test_rows_are_looked_up_and_the_queue_is_not_walked(store: Database, look: str, mode: str) -> None:
    """A join of the given ids took a hundred times as long there, until the table was analyzed."""
    build, parameters = LOOKS[look]
    async with store.write() as connection:
        await fill(connection)
    async with store.write() as connection:
        plain = connection.sync_connection
        assert plain is not None
        statement = compiled(build(plain), plain)
        await connection.exec_driver_sql(f"SET LOCAL plan_cache_mode = {mode}")
        await connection.exec_driver_sql(f"PREPARE looked AS {statement.text}")
        values = ", ".join(map(given, statement.values(parameters)))
        plan = [row[0] for row in await connection.exec_driver_sql(f"EXPLAIN EXECUTE looked({values})")]
        await connection.exec_driver_sql("DEALLOCATE looked")
    scans = [
        (line, following)
        for line, following in zip(plan, [*plan[1:], ""], strict=True)
        if re.search(r"Scan .*\b(on|using) (work|message|pk_work|ix_work\w*)\b", line)
    ]
    assert scans, plan
    assert all("Index Cond" in following or "Recheck Cond" in following for _, following in scans), plan


async def test_where_a_message_lies_is_no_walk_of_all_places(store: Database) -> None:
    """As the least of a column it was one, on tables of a million rows that nobody had analyzed: few different messages
    are expected there. Here that is said outright."""
    async with store.write() as connection:
        await fill(connection)
        await connection.execute(insert(mailbox), [{"id": 7, "account_id": 1, "path": "Box", "selectable": True}])
        await connection.exec_driver_sql(
            "INSERT INTO place (mailbox_id, uid_validity, uid, message_id, flags, seen_at) "
            "SELECT 7, 1, id, id, '', 1 FROM message"
        )
        await connection.exec_driver_sql("ALTER TABLE place ALTER COLUMN message_id SET (n_distinct = 20)")
        await connection.exec_driver_sql("ANALYZE place")
        plain = connection.sync_connection
        assert plain is not None
        statement = compiled(queue_events._told_processed(plain, past=False), plain)
        values = statement.values({"messages_id": list(range(1, 101)), "at": 0.0})
        plan = [row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {statement.text}", values)]
    assert any("message_id = message" in line for line in plan), plan
    assert not any("mailbox_id IS NOT NULL" in line for line in plan), plan


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
