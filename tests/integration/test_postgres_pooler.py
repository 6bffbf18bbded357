"""A pooler that lends the server's connections for one transaction each (pgbouncer): the store works through it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from mailmill.model import EventName
from mailmill.store import event_log
from mailmill.store.database import Database
from mailmill.store.event_log import NewEvent
from mailmill.store.postgres_database import PostgresDatabase
from mailmill.store.tables import setting
from servers.pgbouncer import PgBouncer
from servers.postgres import Postgres


@pytest.fixture(scope="module")
def pooler(postgres: Postgres) -> Iterator[PgBouncer]:
    with PgBouncer(postgres) as running:
        yield running


async def test_the_schema_is_made_through_a_pooler(postgres: Postgres, pooler: PgBouncer, data_dir: Path) -> None:
    url = pooler.url(await asyncio.to_thread(postgres.new_database))
    database = await Database.open(url, data_dir=data_dir)
    await database.close()


async def test_many_transactions_over_few_connections(
    pooler: PgBouncer, postgres: Postgres, postgres_url: str, data_dir: Path
) -> None:
    """The connection is another one each time: no statement, setting or lock of an earlier one counts on it."""
    database = await Database.open(pooler.url(postgres_url), data_dir=data_dir, listen_url=postgres_url)
    used: set[int] = set()

    async def write(number: int) -> None:
        for turn in range(8):
            async with database.write() as connection:
                used.add(await connection.scalar(text("SELECT pg_backend_pid()")))
                # Both ways to give the driver parameters, and the same statement again and again.
                await connection.execute(insert(setting).values(name=f"{number} {turn}", value=""))
                await event_log.append(connection, [NewEvent("default", EventName.ACCOUNT_ADDED, 1.0)] * 3)
                for name, value in {"statement_timeout": "1min", "jit": "off"}.items():
                    assert await connection.scalar(text(f"SHOW {name}")) == value
            async with database.read() as connection:
                assert f"{number} {turn}" in (await connection.execute(select(setting.c.name))).scalars().all()

    try:
        await asyncio.gather(*(write(number) for number in range(8)))
        assert len(used) > 1
        held = await postgres.fetch(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND client_port IS NOT NULL",
            postgres_url.rpartition("/")[2],
        )
        assert held[0][0] <= 4  # three of the pooler's, and the one that listens
    finally:
        await database.close()


async def test_hints_come_by_the_listen_url(
    pooler: PgBouncer, postgres_url: str, data_dir: Path, tmp_path: Path
) -> None:
    one = await Database.open(pooler.url(postgres_url), data_dir=data_dir, listen_url=postgres_url)
    other = await Database.open(pooler.url(postgres_url), data_dir=tmp_path / "other", listen_url=postgres_url)
    try:
        assert isinstance(one, PostgresDatabase)
        assert isinstance(other, PostgresDatabase)
        await asyncio.gather(one.channel.connected.wait(), other.channel.connected.wait())
        with other.wake.requests.subscribe() as requests:
            async with one.write(wake=("requests",)):
                pass
            assert await requests.wait(30)
    finally:
        await asyncio.gather(one.close(), other.close())


async def test_without_a_listen_url_it_is_said_what_to_do(
    pooler: PgBouncer, postgres_url: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = await Database.open(pooler.url(postgres_url), data_dir=data_dir)
    try:
        with database.wake.requests.subscribe() as requests:
            async with database.write(wake=("requests",)):
                pass
            assert await requests.wait(0)  # within the process they need no channel
    finally:
        await database.close()
    shown = capsys.readouterr()
    assert "service.listen_url" in shown.out + shown.err
