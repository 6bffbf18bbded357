"""The SQLite driver: a statement is one visit to the connection's thread, and what comes back is what SQLite said."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from mailmill.store import sqlite_driver
from mailmill.store.database import Database


class _Counted(sqlite_driver.Connection):
    visits = 0

    async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self.visits += 1
        return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def _opened(tmp_path: Path) -> AsyncIterator[_Counted]:
    connection = _Counted(partial(sqlite3.connect, tmp_path / "db", isolation_level=None), iter_chunk_size=64)
    await connection
    try:
        async with connection.cursor() as cursor:
            await cursor.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        connection.visits = 0
        yield connection
    finally:
        await connection.close()


async def test_a_statement_and_its_rows_are_one_visit(tmp_path: Path):
    async with _opened(tmp_path) as connection:
        async with connection.cursor() as cursor:
            await cursor.executemany("INSERT INTO t (b) VALUES (?)", [("x",), ("y",), ("z",)])
        assert (cursor.rowcount, connection.visits) == (3, 1)
        async with connection.cursor() as cursor:
            await cursor.execute("SELECT b FROM t WHERE a > ? ORDER BY a", (1,))
            assert [column[0] for column in cursor.description] == ["b"]
            assert await cursor.fetchone() == ("y",)
            assert await cursor.fetchmany(5) == [("z",)]
            assert await cursor.fetchall() == []
        assert connection.visits == 2


async def test_returning_rows_come_and_the_statement_is_over(tmp_path: Path):
    async with _opened(tmp_path) as connection, connection.cursor() as cursor:
        await cursor.execute("INSERT INTO t (b) VALUES ('x') RETURNING a")
        assert await cursor.fetchall() == [(1,)]
        assert cursor.lastrowid == 1
        # Were it still under way, this would be refused: "cannot commit - SQL statements in progress".
        await cursor.execute("BEGIN")
        await cursor.execute("COMMIT")


async def test_a_rollback_visits_only_where_there_is_something_to_roll_back(tmp_path: Path):
    async with _opened(tmp_path) as connection, connection.cursor() as cursor:
        await connection.rollback()
        assert connection.visits == 0
        await cursor.execute("BEGIN")
        await cursor.execute("INSERT INTO t (b) VALUES ('x')")
        await connection.rollback()
        await cursor.execute("SELECT count(*) FROM t")
        assert await cursor.fetchall() == [(0,)]


async def test_a_transaction_begins_in_the_visit_of_its_first_statement(tmp_path: Path):
    async with _opened(tmp_path) as connection, connection.cursor() as cursor:
        connection.begin_by("BEGIN IMMEDIATE")
        await connection.commit()
        connection.begin_by("BEGIN IMMEDIATE")
        await connection.rollback()
        assert (connection.visits, connection.in_transaction) == (0, False)
        connection.begin_by("BEGIN IMMEDIATE")
        await cursor.execute("INSERT INTO t (b) VALUES ('x')")
        assert (connection.visits, connection.in_transaction) == (1, True)
        await connection.commit()
        assert (connection.visits, connection.in_transaction) == (2, False)


async def test_a_commit_that_fails_leaves_nothing_open(tmp_path: Path):
    async with _opened(tmp_path) as connection, connection.cursor() as cursor:
        await cursor.execute("PRAGMA foreign_keys=ON")
        await cursor.execute("CREATE TABLE child (of INTEGER REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)")
        connection.begin_by("BEGIN")
        await cursor.execute("INSERT INTO child VALUES (99)")
        with pytest.raises(sqlite3.IntegrityError):
            await connection.commit()
        assert not connection.in_transaction
        await cursor.execute("SELECT count(*) FROM child")
        assert await cursor.fetchall() == [(0,)]


async def test_what_follows_a_transaction_that_sqlite_ended_does_not_stand_for_itself(tmp_path: Path):
    async with _opened(tmp_path) as connection, connection.cursor() as cursor:
        await cursor.execute("PRAGMA max_page_count=2")
        connection.begin_by("BEGIN")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await cursor.execute("INSERT INTO t (b) VALUES (zeroblob(100000))")
        for step in (cursor.execute("INSERT INTO t (b) VALUES ('x')"), connection.commit()):
            with pytest.raises(sqlite3.OperationalError, match="rolled back"):
                await step
        await connection.rollback()
        await cursor.execute("SELECT count(*) FROM t")
        assert await cursor.fetchall() == [(0,)]


async def test_errors_are_sqlites_own(tmp_path: Path):
    async with _opened(tmp_path) as connection, connection.cursor() as cursor:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await cursor.execute("SELECT * FROM nowhere")
        await cursor.execute("INSERT INTO t VALUES (1, 'x')")
        with pytest.raises(sqlite3.IntegrityError):
            await cursor.execute("INSERT INTO t VALUES (1, 'y')")


async def test_the_database_is_driven_by_it(tmp_path: Path):
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/db", data_dir=tmp_path)
    try:
        async with database.read() as reader:
            raw = await reader.get_raw_connection()
            assert isinstance(raw.driver_connection, sqlite_driver.Connection)
            assert (await reader.execute(text("SELECT 1 AS one"))).one().one == 1
    finally:
        await database.close()


async def test_a_read_that_is_cancelled_leaves_no_snapshot_and_no_thread_behind(tmp_path: Path):
    """Cancelled at each of its steps, BEGIN and ROLLBACK among them: who reads next sees what is committed by then."""
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/db", data_dir=tmp_path)
    threads = threading.active_count()
    counted = text("SELECT count(*) FROM a, (SELECT 1 UNION SELECT 2)")

    async def read() -> int:
        async with database.read() as reader:
            await reader.execute(counted)
            return (await reader.execute(counted)).scalar_one() // 2

    try:
        async with database.write() as writer:
            await writer.execute(text("CREATE TABLE a (b INTEGER)"))
        for steps in range(30):
            reading = [asyncio.create_task(read()) for _ in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in reading:
                task.cancel()
            await asyncio.wait(reading)
            async with database.write() as writer:
                await writer.execute(text("INSERT INTO a VALUES (1)"))
            assert await asyncio.gather(*(read() for _ in range(6))) == [steps + 1] * 6
    finally:
        await database.close()
    assert threading.active_count() <= threads


async def test_a_statement_whose_caller_is_gone_is_over_when_the_database_is_closed(tmp_path: Path):
    """Else its thread would tell of its end to a loop that is closed, and hold the file of a folder given back."""
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/db", data_dir=tmp_path)
    loop = asyncio.get_running_loop()
    begun, end = asyncio.Event(), threading.Event()
    threads = []

    def hold() -> int:
        threads.append(threading.current_thread())
        loop.call_soon_threadsafe(begun.set)
        end.wait(10)
        return 1

    async def read() -> None:
        async with database.read() as reader:
            raw = await reader.get_raw_connection()
            assert isinstance(raw.driver_connection, sqlite_driver.Connection)
            await raw.driver_connection.create_function("hold", 0, hold)
            await reader.execute(text("SELECT hold()"))

    reading = asyncio.create_task(read())
    await begun.wait()
    # The first waits for the statement; who is cancelled once more does not.
    while not reading.done():
        reading.cancel()
        await asyncio.sleep(0)
    later = threading.Timer(0.3, end.set)
    later.start()
    await database.close()
    assert end.is_set()
    assert [thread.is_alive() for thread in threads] == [False]
    await asyncio.to_thread(later.join)


async def test_a_close_that_is_cancelled_gives_the_folder_back_all_the_same(tmp_path: Path):
    for steps in range(0, 40, 3):
        database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/db", data_dir=tmp_path)
        async with database.read() as reader:
            await reader.execute(text("SELECT 1"))
        closing = asyncio.create_task(database.close())
        for _ in range(steps):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait((closing,))
        if closing.cancelled() and steps == 0:
            await database.close()  # it had not begun
    reopened = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/db", data_dir=tmp_path, lock_wait_seconds=0)
    await reopened.close()
