"""The door to the database, and what is SQLite's own: one writer, one process, files, disk. PostgreSQL's own is in
`test_store_writers` and `test_postgres_connections`.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from store_mail import open_database

from harness import stores
from mailmill.errors import ConfigurationError, StorageFullError, StoreError, StoreInUseError
from mailmill.model import EventName
from mailmill.store import event_log, migrate
from mailmill.store.database import Database
from mailmill.store.event_log import NewEvent
from mailmill.store.tables import EMAIL_STATUS_VIEW, metadata, setting

EVENT = NewEvent("default", EventName.ACCOUNT_ADDED, 1.0)


@pytest.fixture
async def database(data_dir: Path) -> AsyncIterator[Database]:
    opened = await stores.open_database(data_dir)
    yield opened
    await opened.close()


async def names(database: Database) -> list[str]:
    async with database.read() as connection:
        written = select(setting.c.name).where(setting.c.name != migrate.OLDEST_CODE).order_by(setting.c.name)
        return list((await connection.execute(written)).scalars())


def on_writer(database: Database, name: str, action: Callable[[], object], *, statement: str = "") -> None:
    """Run ``action`` on the loop, once, while the writer waits for the driver: at the event ``name``, or where
    ``statement`` is given at the first one that begins so."""
    loop = asyncio.get_running_loop()
    armed = [True]

    def listen(*happened: Any) -> None:
        if armed and (not statement or happened[2].startswith(statement)):
            armed.clear()
            loop.call_soon(action)

    event.listen(database._writer.sync_engine, name, listen)


# -- the data folder --------------------------------------------------------------------------------------------------


async def test_a_second_store_on_the_same_folder_is_refused(data_dir: Path, database: Database) -> None:
    with pytest.raises(StoreInUseError) as refused:
        await Database.open(f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}", data_dir=data_dir, lock_wait_seconds=0)
    assert str(data_dir) in str(refused.value)
    assert "PostgreSQL" in refused.value.hint
    await database.close()
    async with open_database(data_dir):
        pass


async def test_two_folders_cannot_share_one_database_file(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'shared' / 'mail.db'}"
    first = await Database.open(url, data_dir=tmp_path / "one")
    try:
        with pytest.raises(StoreInUseError):
            await Database.open(url, data_dir=tmp_path / "two", lock_wait_seconds=0)
    finally:
        await first.close()


async def test_a_refused_open_holds_no_lock(data_dir: Path) -> None:
    await asyncio.to_thread((data_dir / "mailmill.db").write_bytes, b"this is not a database, whatever it says" * 100)
    with pytest.raises(StoreError, match="damaged"):
        async with open_database(data_dir):
            pass
    await asyncio.to_thread((data_dir / "mailmill.db").unlink)
    async with open_database(data_dir):
        pass


async def test_folder_and_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    async with open_database(folder) as database:
        async with database.write() as connection:
            await connection.execute(insert(setting).values(name="a", value=""))
        modes = await asyncio.to_thread(_modes, folder)
    assert modes == {
        "data": "0o700", "mailmill.db": "0o600", "mailmill.db-wal": "0o600", "mailmill.db-shm": "0o600", "lock": "0o600"
    }  # fmt: skip


def _modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in [folder, *folder.iterdir()]}


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file/data"):
        async with open_database(tmp_path / "file" / "data"):
            pass


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite:///x.db", "mysql://u:secret@h/d", "nonsense", ""])
async def test_an_unusable_url_is_a_configuration_error(data_dir: Path, url: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        await Database.open(url, data_dir=data_dir)
    assert error.value.key == "service.database_url"
    assert "secret" not in str(error.value)


async def test_odd_characters_in_the_path(tmp_path: Path) -> None:
    async with open_database(tmp_path / "50% of a #folder") as database:
        assert await names(database) == []


# -- transactions -----------------------------------------------------------------------------------------------------


async def test_the_writer_is_durable_and_readers_cannot_write(database: Database) -> None:
    async with database.write() as connection:
        for pragma, value in {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}.items():
            assert await connection.scalar(text(f"PRAGMA {pragma}")) == value
    with pytest.raises(StoreError, match="readonly"):
        async with database.read() as connection:
            await connection.execute(insert(setting).values(name="a", value=""))


@pytest.mark.both_databases
async def test_a_reader_sees_one_snapshot(database: Database) -> None:
    async with database.read() as reader:
        assert (await reader.execute(select(setting).where(setting.c.name == "a"))).all() == []
        async with database.write() as connection:
            await connection.execute(insert(setting).values(name="a", value=""))
        assert (await reader.execute(select(setting).where(setting.c.name == "a"))).all() == []
    assert await names(database) == ["a"]


@pytest.mark.both_databases
async def test_an_exception_rolls_back(database: Database) -> None:
    with pytest.raises(KeyError):
        async with database.write() as connection:
            await connection.execute(insert(setting).values(name="a", value=""))
            raise KeyError
    assert await names(database) == []


async def test_writers_take_turns_in_order(database: Database) -> None:
    order: list[int] = []
    gate = asyncio.Event()

    async def write(number: int) -> None:
        async with database.write() as connection:
            await gate.wait()
            await connection.execute(insert(setting).values(name=str(number), value=""))
            order.append(number)

    tasks = [asyncio.create_task(write(number)) for number in range(10)]
    gate.set()
    await asyncio.gather(*tasks)
    assert order == list(range(10))


@pytest.mark.both_databases
async def test_a_cancelled_write_leaves_nothing_and_frees_the_writer(database: Database) -> None:
    inside = asyncio.Event()

    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(insert(setting).values(name="a", value=""))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(database) == []
    async with database.write() as connection:
        await connection.execute(insert(setting).values(name="b", value=""))
    assert await names(database) == ["b"]


async def test_a_statement_cut_by_a_cancellation_keeps_the_connection(database: Database) -> None:
    async with database.write() as connection:
        before = (await connection.get_raw_connection()).driver_connection

    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(insert(setting).values(name="a", value=""))

    task = asyncio.create_task(write())

    on_writer(database, "before_cursor_execute", task.cancel, statement="INSERT")
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.write() as connection:
        assert (await connection.get_raw_connection()).driver_connection is before
    assert await names(database) == []


async def test_a_visit_cut_by_a_cancellation_is_made_to_its_end_and_rolled_back(database: Database) -> None:
    loop = asyncio.get_running_loop()
    visits = []

    def visit(blocking: Connection) -> None:
        loop.call_soon_threadsafe(task.cancel)
        for name in ("a", "b"):
            blocking.execute(insert(setting).values(name=name, value=""))
        visits.append(blocking.scalar(select(func.count()).select_from(setting).where(setting.c.name.in_(("a", "b")))))

    async def write() -> None:
        async with database.write() as connection:
            await connection.run_sync(visit)
            await connection.run_sync(visit)

    task = asyncio.create_task(write())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert visits == [2]
    assert await names(database) == []


async def test_a_visit_sees_its_transaction_and_raises_what_went_wrong(database: Database) -> None:
    def visit(blocking: Connection) -> list[str]:
        blocking.execute(insert(setting).values(name="b", value=""))
        return list(blocking.scalars(select(setting.c.name).where(setting.c.name.in_(("a", "b"))).order_by("name")))

    async with database.write() as connection:
        await connection.execute(insert(setting).values(name="a", value=""))
        assert await connection.run_sync(visit) == ["a", "b"]
    with pytest.raises(StoreError, match="UNIQUE"):
        async with database.write() as connection:
            await connection.execute(insert(setting).values(name="c", value=""))
            await connection.run_sync(visit)
    assert await names(database) == ["a", "b"]


async def test_a_cancellation_during_the_commit_comes_after_it(database: Database) -> None:
    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(insert(setting).values(name="a", value=""))
            await event_log.append(connection, [EVENT])

    task = asyncio.create_task(write())
    on_writer(database, "commit", task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(database) == ["a"]
    assert await database.wake.events.wait(0)


async def test_a_cancelled_wait_for_the_writer_does_not_hold_up_others(database: Database) -> None:
    async with database.write():
        waiting = asyncio.create_task(_write_name(database, "never"))
        later = asyncio.create_task(_write_name(database, "later"))
        await asyncio.sleep(0)
        waiting.cancel()
    await later
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await names(database) == ["later"]


async def _write_name(database: Database, name: str) -> None:
    async with database.write() as connection:
        await connection.execute(insert(setting).values(name=name, value=""))


async def test_a_driver_error_can_be_handled_within_the_block(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(insert(setting).values(name="a", value=""))
        with pytest.raises(DBAPIError):
            await connection.execute(insert(setting).values(name="a", value=""))
    assert await names(database) == ["a"]
    with pytest.raises(StoreError, match="UNIQUE"):
        await _write_name(database, "a")


@pytest.mark.both_databases
async def test_an_error_shows_no_values(database: Database) -> None:
    """Values are mail: an error's text goes into logs and answers."""
    with pytest.raises(StoreError) as failed:
        async with database.write() as connection:
            await connection.execute(
                text("INSERT INTO account (id, name) VALUES (1, :name)"), {"name": "private words"}
            )
    assert "private words" not in f"{failed.value} {failed.value.__cause__}"


async def test_a_full_disk_says_so_and_loses_nothing(database: Database) -> None:
    await _write_name(database, "kept")
    async with database.write() as connection:
        pages = await connection.scalar(text("PRAGMA page_count"))
        await connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageFullError) as full:
        async with database.write() as connection:
            for number in range(100):
                await connection.execute(insert(setting).values(name=f"{number}", value="x" * 10_000))
    assert "free space" in full.value.hint
    assert await names(database) == ["kept"]
    async with database.write() as connection:
        await connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    await _write_name(database, "and on")
    assert await names(database) == ["and on", "kept"]


# -- hints ------------------------------------------------------------------------------------------------------------


async def test_inserts_give_hints_after_the_commit_only(database: Database) -> None:
    async with database.write() as connection:
        await event_log.append(connection, [EVENT])
        assert not await database.wake.events.wait(0)
    assert await database.wake.events.wait(0)
    assert not await database.wake.events.wait(0)
    assert not await database.wake.work.wait(0)


async def test_what_is_rolled_back_gives_no_hint(database: Database) -> None:
    with pytest.raises(KeyError):
        async with database.write() as connection:
            await event_log.append(connection, [EVENT])
            raise KeyError
    async with database.write():
        pass
    assert not await database.wake.events.wait(0)


async def test_updates_give_hints_only_when_asked(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(update(metadata.tables["work"]).values(state="pending"))
    assert not await database.wake.work.wait(0)
    async with database.write(wake=("work",)):
        pass
    assert await database.wake.work.wait(0)


# -- migrations -------------------------------------------------------------------------------------------------------


def _schema(path: Path) -> dict[tuple[str, str], list[str]]:
    """Each table's, index's and view's definition, as sorted words: constraints stand in an order of their own."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {
        (kind, name): sorted(re.findall(r"[^\s,()]+|[()]", sql))
        for kind, name, sql in rows
        if name != "alembic_version"
    }


def test_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    migrated, created = tmp_path / "migrated.db", tmp_path / "created.db"
    migrate.migrate_sqlite(migrated)
    engine = create_engine(f"sqlite:///{created}")
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text(EMAIL_STATUS_VIEW))
    engine.dispose()
    assert _schema(migrated) == _schema(created)


def test_head_is_the_newest_migration() -> None:
    revisions = sorted(path.name.split("_")[0] for path in (migrate.MIGRATIONS / "versions").glob("*.py"))
    assert revisions[-1] == migrate.HEAD


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE email_status (in_the_way)")
    before = _schema(path)
    with pytest.raises(DBAPIError):
        migrate.migrate_sqlite(path)
    assert _schema(path) == before


async def test_a_store_of_a_newer_version_is_left_alone(data_dir: Path) -> None:
    async with open_database(data_dir):
        pass
    await asyncio.to_thread(_become_newer, data_dir / "mailmill.db")
    with pytest.raises(StoreError) as refused:
        async with open_database(data_dir):
            pass
    assert "newer" in refused.value.hint


def _become_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("DELETE FROM setting WHERE name = ?", (migrate.OLDEST_CODE,))
        connection.commit()
