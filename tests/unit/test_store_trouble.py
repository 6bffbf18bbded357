"""Whose fault a failed transaction is: as the drivers of both databases really tell it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Executable, insert, select, text, update

from mailmill.errors import ConfigurationError, LeaseLostError, StorageFullError, StoreError
from mailmill.store.database import Database
from mailmill.store.postgres_errors import opening_error, store_error
from mailmill.store.row_changes import RowChanges
from mailmill.store.tables import setting
from mailmill.store.trouble import is_store_trouble

UNBINDABLE: Any = object()


@pytest.fixture
async def database(database_url: str, data_dir: Path) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    yield opened
    await opened.close()


async def failure(database: Database, *statements: Executable) -> BaseException:
    with pytest.raises(Exception) as failed:
        async with database.write() as connection:
            for statement in statements:
                await connection.execute(statement)
    return failed.value


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([{"name": "a", "value": "1"}, {"name": "a", "value": "2"}], id="twice"),
        pytest.param([{"name": "a", "value": None}], id="missing"),
        pytest.param([{"name": "a", "value": UNBINDABLE}], id="of no type"),
        pytest.param([{"name": "a", "value": "\ud800"}], id="no text"),
    ],
)
async def test_what_a_row_is_refused_for_is_its_own_fault(database: Database, rows: list[dict[str, Any]]) -> None:
    assert not is_store_trouble(await failure(database, *(insert(setting).values(row) for row in rows)))


@pytest.mark.parametrize("value", [pytest.param(None, id="missing"), pytest.param(UNBINDABLE, id="of no type")])
async def test_so_it_is_where_the_drivers_own_cursor_is_used(database: Database, value: Any) -> None:
    change = RowChanges(
        lambda _connection, given: update(setting).where(setting.c.name == given.name).values(value=given.value),
        name=setting.c.name,
        value=setting.c.value,
    )
    with pytest.raises(Exception) as failed:
        async with database.write() as connection:
            await connection.execute(insert(setting).values(name="a", value="1"))
            await connection.run_sync(change, [("a", value)])
    assert not is_store_trouble(failed.value)


@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM nobody_made_this", "INSERT INTO setting (nothing) VALUES ('x')"],
    ids=["table", "column"],
)
async def test_a_schema_that_is_not_there_is_no_rows_fault(database: Database, statement: str) -> None:
    assert is_store_trouble(await failure(database, text(statement)))


async def test_a_row_beyond_the_limits_of_postgresql_is_its_own_fault(postgres_url: str, data_dir: Path) -> None:
    database = await Database.open(postgres_url, data_dir=data_dir)
    try:
        # Random, or it would be compressed until the index takes it.
        grown = text(
            "INSERT INTO setting SELECT 'large', string_agg(md5(random()::text), '') FROM generate_series(1, 1000)"
        )
        error = await failure(database, text("CREATE INDEX ON setting (value)"), grown)
        assert "index row" in str(error)
        assert not is_store_trouble(error)
    finally:
        await database.close()


async def test_a_missing_right_is_no_rows_fault(postgres_url: str, data_dir: Path) -> None:
    database = await Database.open(postgres_url, data_dir=data_dir)
    try:
        less = (text("CREATE ROLE less"), text("SET LOCAL ROLE less"), insert(setting).values(name="a", value=""))
        error = await failure(database, *less)
        assert "lacks a right" in str(error)
        assert is_store_trouble(error)
    finally:
        await database.close()


async def test_a_database_that_was_closed_is_no_rows_fault(data_dir: Path) -> None:
    database = await Database.open(f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}", data_dir=data_dir)
    async with database.read() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        await driver.close()
        with pytest.raises(Exception) as failed:
            await connection.execute(select(setting))
    await database.close()
    assert is_store_trouble(failed.value)


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (StorageFullError("the disk is full"), True),
        (LeaseLostError("another node has it"), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (KeyError("a bug"), False),
        (RuntimeError("a bug"), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_errors_without_a_drivers_word(error: BaseException, trouble: bool) -> None:
    assert is_store_trouble(error) is trouble


@pytest.mark.parametrize(
    ("kind", "trouble"),
    [
        (asyncpg.UniqueViolationError, False),
        (asyncpg.StringDataRightTruncationError, False),
        (asyncpg.CardinalityViolationError, False),
        (asyncpg.ProgramLimitExceededError, False),
        (asyncpg.DeadlockDetectedError, True),
        (asyncpg.SerializationError, True),
        (asyncpg.DiskFullError, True),
        (asyncpg.QueryCanceledError, True),
        (asyncpg.LockNotAvailableError, True),
        (asyncpg.AdminShutdownError, True),
        (asyncpg.TooManyConnectionsError, True),
        (asyncpg.InsufficientPrivilegeError, True),
        (asyncpg.UndefinedTableError, True),
        (asyncpg.InvalidCachedStatementError, True),
        (asyncpg.InternalServerError, True),
    ],
)
def test_by_sqlstate(kind: type[asyncpg.PostgresError], trouble: bool) -> None:
    told = store_error(kind("words"))
    told.__cause__ = kind("words")
    assert isinstance(told, StoreError)
    assert is_store_trouble(told) is trouble


def test_a_certificate_that_is_not_trusted_is_no_database_that_is_away() -> None:
    told = opening_error(ssl.SSLCertVerificationError(1, "self-signed certificate"), "service.database_url")
    assert isinstance(told, ConfigurationError)
    assert "self-signed certificate" in str(told)
    assert "sslrootcert" in told.hint
