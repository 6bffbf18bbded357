"""Claim and fenced finish with result and event by plain SQL, over the smallest tables that hold them.

What the database gives on this machine, and no more: whole numbers as keys, one index besides them, no message, no
history, no library between. Arguments: database URL, folder, rows in the queue, batches of 100, workers. SQLite is
driven by the standard library's module in one thread, PostgreSQL by asyncpg with a connection for each worker.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg

_BATCH = 100
_WARM_UP = 20
_VALUE = '{"ok":true}'
_CLAIM = """
    UPDATE work SET state = 1, fence = fence + 1, worker = {worker}
    WHERE id IN (SELECT id FROM work WHERE state = 0 ORDER BY turn LIMIT 100 {locking}) RETURNING id, fence
"""
_TABLES = (
    "CREATE TABLE work (id {number} PRIMARY KEY, state integer, turn double precision, fence integer, worker integer)",
    "CREATE INDEX work_turn ON work (turn) WHERE state = 0",
    "CREATE TABLE result (work_id {number} PRIMARY KEY, value text, finished_at double precision)",
    "CREATE TABLE event (id {counted} PRIMARY KEY, work_id {number}, created_at double precision)",
)


def main(url: str, folder: str, *numbers: str) -> None:
    rows, batches, workers = map(int, numbers)
    if url.startswith("sqlite"):
        told = _sqlite(Path(folder) / "plain.db", rows, batches)
    else:
        told = asyncio.run(_postgresql(url.replace("+asyncpg", ""), rows, batches, workers))
    print(json.dumps(told))


def _sqlite(path: Path, rows: int, batches: int) -> dict[str, float]:
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=4000", "cache_size=-16000"):
        connection.execute(f"PRAGMA {pragma}")
    for table in _TABLES:
        connection.execute(table.format(number="integer", counted="integer"))
    connection.execute(
        "INSERT INTO work WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "SELECT i, 0, 1.7e9 + i * 1e-6, 0, 0 FROM n",
        (rows,),
    )
    claim = _CLAIM.format(worker=1, locking="")
    held: list[Any] = []
    began = 0.0
    for number in range(-_WARM_UP, batches):
        if number == 0:
            began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        for row in held:
            gone = connection.execute("DELETE FROM work WHERE id = ? AND fence = ? AND worker = 1", row).rowcount
            if gone != 1:
                raise RuntimeError("not all was held")
        now = time.time()
        connection.executemany("INSERT INTO result VALUES (?, ?, ?)", [(row[0], _VALUE, now) for row in held])
        connection.executemany("INSERT INTO event (work_id, created_at) VALUES (?, ?)", [(row[0], now) for row in held])
        held = connection.execute(claim).fetchall()
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    path.unlink()
    return {"rows": batches * _BATCH, "seconds": seconds}


async def _postgresql(url: str, rows: int, batches: int, workers: int) -> dict[str, float]:
    connections = [await asyncpg.connect(url) for _ in range(workers)]
    first = connections[0]
    try:
        for table in _TABLES:
            await first.execute(table.format(number="bigint", counted="bigserial"))
        await first.execute(
            "INSERT INTO work SELECT i, 0, 1.7e9 + i * 1e-6, 0, 0 FROM generate_series(1, $1::bigint) AS n (i)", rows
        )
        await first.execute("VACUUM ANALYZE work")
        await asyncio.gather(*(_drain(each, at + 1, _WARM_UP) for at, each in enumerate(connections)))
        began = time.perf_counter()
        share = batches // workers
        await asyncio.gather(*(_drain(each, at + 1, share) for at, each in enumerate(connections)))
        seconds = time.perf_counter() - began
        for table in ("work", "result", "event"):
            await first.execute(f"DROP TABLE {table}")
    finally:
        for each in connections:
            await each.close()
    return {"rows": share * workers * _BATCH, "seconds": seconds}


async def _drain(connection: asyncpg.Connection[Any], worker: int, batches: int) -> None:
    claim = _CLAIM.format(worker=worker, locking="FOR UPDATE SKIP LOCKED")
    held: list[Any] = []
    for number in range(batches + 1):
        async with connection.transaction():
            if held:
                ids, fences = [row[0] for row in held], [row[1] for row in held]
                gone = await connection.fetch(
                    "DELETE FROM work USING unnest($1::bigint[], $2::int[]) AS held (id, fence) "
                    "WHERE work.id = held.id AND work.fence = held.fence AND worker = $3 RETURNING work.id",
                    ids,
                    fences,
                    worker,
                )
                if len(gone) != len(held):
                    raise RuntimeError("not all was held")
                now = time.time()
                await connection.execute("INSERT INTO result SELECT unnest($1::bigint[]), $2, $3", ids, _VALUE, now)
                await connection.execute(
                    "INSERT INTO event (work_id, created_at) SELECT unnest($1::bigint[]), $2", ids, now
                )
            held = await connection.fetch(claim) if number < batches else []


if __name__ == "__main__":
    main(*sys.argv[1:])
