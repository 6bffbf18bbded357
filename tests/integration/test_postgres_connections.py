"""PostgreSQL's connections: cut, restarted, refused, cancelled. What a user of the store sees, and that it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import event, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from mailmill.errors import ConfigurationError, DatabaseUnavailableError, StoreError, StoreInUseError
from mailmill.model import EventName
from mailmill.store import event_log, migrate, postgres_database, stopped_sessions
from mailmill.store.database import Database
from mailmill.store.event_log import NewEvent
from mailmill.store.postgres_database import PostgresDatabase
from mailmill.store.tables import metadata, setting
from mailmill.store.wakeups import WAKE_NAMES
from servers.ports import free_ports
from servers.postgres import Postgres

EVENT = NewEvent("default", EventName.ACCOUNT_ADDED, 1.0)


@asynccontextmanager
async def opened(url: str, data_dir: Path, **options: object) -> AsyncIterator[PostgresDatabase]:
    database = await Database.open(url, data_dir=data_dir, **options)  # type: ignore[arg-type]
    assert isinstance(database, PostgresDatabase)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(postgres_url: str, data_dir: Path) -> AsyncIterator[PostgresDatabase]:
    async with opened(postgres_url, data_dir) as made:
        yield made


# What the schema itself has put there is no test's.
_NAMES = select(setting.c.name).where(setting.c.name != migrate.OLDEST_CODE).order_by(setting.c.name)


async def write_name(database: Database, name: str) -> None:
    async with database.write() as connection:
        await connection.execute(insert(setting).values(name=name, value=""))


async def names(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(_NAMES)).scalars())


# -- opening ----------------------------------------------------------------------------------------------------------


async def test_nodes_that_start_at_once_make_the_schema_once(postgres: Postgres, tmp_path: Path) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    nodes = await asyncio.gather(*(Database.open(url, data_dir=tmp_path / f"node{number}") for number in range(3)))
    try:
        await asyncio.gather(*(write_name(node, f"node{number}") for number, node in enumerate(nodes)))
        assert await names(nodes[0]) == ["node0", "node1", "node2"]
        assert not any(node.alone for node in nodes)
    finally:
        await asyncio.gather(*(node.close() for node in nodes))


async def test_a_data_folder_serves_one_process(postgres_url: str, data_dir: Path, database: Database) -> None:
    with pytest.raises(StoreInUseError):
        await Database.open(postgres_url, data_dir=data_dir, lock_wait_seconds=0)


async def test_a_schema_of_a_newer_version_is_left_alone(postgres: Postgres, postgres_url: str, data_dir: Path) -> None:
    await postgres.fetch("UPDATE alembic_version SET version_num = '9999'", url=postgres_url)
    await postgres.fetch("UPDATE setting SET value = '9999' WHERE name = $1", migrate.OLDEST_CODE, url=postgres_url)
    with pytest.raises(StoreError) as refused:
        await Database.open(postgres_url, data_dir=data_dir)
    assert "newer" in refused.value.hint


async def test_what_the_server_refuses_is_the_configurations_fault_and_tells_no_password(
    postgres: Postgres, postgres_url: str, data_dir: Path
) -> None:
    wrong = {
        "password": postgres_url.replace(postgres.password, "hunter2-wrong"),
        "database": postgres_url.rpartition("/")[0] + "/nobody_made_this",
        "option": postgres_url + "?sslmode=hunter2-odd",
    }
    for url in wrong.values():
        with pytest.raises(ConfigurationError) as refused:
            await Database.open(url, data_dir=data_dir)
        assert refused.value.key == "service.database_url"
        assert_tells_no_secret(refused.value, postgres.password)
    with pytest.raises(ConfigurationError) as refused:
        await Database.open(postgres_url, data_dir=data_dir, listen_url=wrong["password"])
    assert refused.value.key == "service.listen_url"
    async with opened(postgres_url, data_dir):  # nothing kept the folder
        pass


async def test_a_server_that_is_not_there(data_dir: Path) -> None:
    (port,) = free_ports(1)
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached") as refused:
        await Database.open(f"postgresql+asyncpg://u:hunter2@127.0.0.1:{port}/d", data_dir=data_dir)
    assert "service.database_url" in refused.value.hint
    assert "by itself" not in refused.value.hint, "nothing runs that could"
    assert_tells_no_secret(refused.value, "")


async def test_what_is_wrong_with_a_url_is_told(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not where it may be a piece of the password."""
    monkeypatch.setenv("HOME", str(tmp_path))
    no_authority = f'root certificate file "{tmp_path}/.postgresql/root.crt" does not exist'
    for rest, said, hinted in (
        ("u:hunter2@h/d?sslmode=verify-full", no_authority, "sslrootcert="),
        ("u:hunter2@h/d?sslmode=hunter2", "`sslmode` parameter must be one of: disable", "postgresql://USER"),
        ("u:hunter2/2@h/d", "cannot be used", "postgresql://USER"),
        ("u:p@[hunter2/2@h/d", "cannot be used", "postgresql://USER"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            await Database.open(f"postgresql+asyncpg://{rest}", data_dir=data_dir)
        assert said in str(refused.value) and hinted in refused.value.hint
        assert "hunter2" not in str(refused.value) + refused.value.hint
    with pytest.raises(DatabaseUnavailableError) as refused_file:
        url = f"postgresql+asyncpg://u@h/d?sslmode=verify-full&sslrootcert={tmp_path}/none"
        await Database.open(url, data_dir=data_dir)
    assert "a file of certificates" in refused_file.value.hint


def assert_tells_no_secret(error: BaseException, password: str) -> None:
    told: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        told += [str(seen), repr(seen), str(getattr(seen, "hint", ""))]
        seen = seen.__cause__
    assert not [each for each in told if "hunter2" in each or (password and password in each)]


async def test_no_repr_shows_the_password(postgres: Postgres, database: PostgresDatabase) -> None:
    assert postgres.password not in repr(vars(database)) + repr(database._link) + str(vars(database.channel))


# -- transactions -----------------------------------------------------------------------------------------------------


async def test_several_write_at_once(database: Database) -> None:
    inside = asyncio.Barrier(3)

    async def write(name: str) -> None:
        async with database.write() as connection:
            await connection.execute(insert(setting).values(name=name, value=""))
            await inside.wait()

    await asyncio.gather(write("a"), write("b"), write("c"))
    assert await names(database) == ["a", "b", "c"]


async def test_a_reader_sees_one_snapshot_and_cannot_write(database: Database) -> None:
    async with database.read() as reader:
        assert (await reader.execute(_NAMES)).all() == []
        await write_name(database, "a")
        assert (await reader.execute(_NAMES)).all() == []
    assert await names(database) == ["a"]
    with pytest.raises(StoreError, match="read"):
        async with database.read() as connection:
            await connection.execute(insert(setting).values(name="b", value=""))


async def test_sessions_have_their_limits(database: Database) -> None:
    for door in (database.write, database.read):
        async with door() as connection:
            for name, value in {
                "statement_timeout": "1min",
                "idle_in_transaction_session_timeout": "10s",
                "jit": "off",
                "application_name": "mailmill",
            }.items():
                assert await connection.scalar(text(f"SHOW {name}")) == value


async def test_a_process_stopped_before_it_runs_what_is_prepared_loses_its_locks(
    database: PostgresDatabase, postgres_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_name(database, "a")
    monkeypatch.setattr(stopped_sessions, "STOPPED_SECONDS", 0.5)
    monkeypatch.setattr(stopped_sessions, "LOOK_SECONDS", 0.1)
    stopped = await asyncpg.connect(
        postgres_url.replace("+asyncpg", ""), server_settings={"application_name": "mailmill"}
    )
    try:
        await stopped.execute("BEGIN; UPDATE setting SET value = 'mine'")
        # Parse, Describe, Flush, and then nothing.
        await stopped._protocol.prepare(
            "", "SELECT 1", timeout=None, state=None, ignore_custom_codec=False, record_class=asyncpg.Record
        )
        async with (
            asyncio.timeout(30),
            opened(postgres_url, data_dir / "second") as second,
            second.write() as connection,
        ):
            await connection.execute(update(setting).values(value="ours"))
        assert stopped.is_closed()
    finally:
        stopped.terminate()


async def test_a_statement_that_takes_too_long_is_given_up(database: Database) -> None:
    with pytest.raises(StoreError, match="too long") as failed:
        async with database.write() as connection:
            await connection.execute(text("SET LOCAL statement_timeout = '10ms'"))
            await connection.execute(select(func.pg_sleep(30)))
    assert failed.value.hint
    await write_name(database, "on")


async def test_a_cancelled_statement_leaves_nothing_and_the_next_works(database: Database, postgres: Postgres) -> None:
    inside = asyncio.Event()

    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(insert(setting).values(name="a", value=""))
            inside.set()
            await connection.execute(select(func.pg_sleep(30)))

    task = asyncio.create_task(write())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(database) == []
    await write_name(database, "a")  # nothing holds its key


async def test_a_commit_that_is_cancelled_stands_and_its_hint_comes_after_it(database: PostgresDatabase) -> None:
    mine: list[object] = []

    async def write() -> None:
        async with database.write() as connection:
            mine.append(connection.sync_connection)
            await connection.execute(insert(setting).values(name="a", value=""))
            await connection.execute(
                insert(metadata.tables["work"]).from_select(
                    ["message_id"], select(metadata.tables["work"].c.message_id).where(text("false"))
                )
            )

    task = asyncio.create_task(write())
    loop = asyncio.get_running_loop()

    def commits(connection: object) -> None:
        if connection in mine:  # the sequencer commits too
            loop.call_soon(task.cancel)

    event.listen(database._writers.sync_engine, "commit", commits)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(database) == ["a"]
    assert await database.wake.work.wait(0)


async def test_an_error_shows_no_values(database: Database) -> None:
    """Values are mail: an error's text goes into logs and answers."""
    account = metadata.tables["account"]
    for statement in (
        insert(account).values(id=1, name="private words"),  # NOT NULL: its DETAIL holds the row
        insert(setting).values([{"name": "private words", "value": ""}] * 2),  # UNIQUE: its DETAIL holds the key
        insert(account).values(id="private words"),  # the driver cannot encode it
    ):
        with pytest.raises(StoreError) as failed:
            async with database.write() as connection:
                await connection.execute(statement)
        seen: BaseException | None = failed.value
        while seen is not None:
            assert "private words" not in f"{seen!s} {seen!r}"
            seen = seen.__cause__


@pytest.mark.parametrize("slow", [False, True], ids=["in the long run", "once a transaction was slow"])
async def test_a_plan_that_was_made_for_a_small_table_does_not_stay(
    postgres: Postgres, postgres_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    look = select(setting.c.value).where(setting.c.name == "a")

    async def plan(database: Database) -> str:
        """As it is used: after some executions it is made once for all values."""
        async with database.write() as connection:
            for _ in range(7):
                await connection.execute(look)
            kept = text("SELECT name FROM pg_prepared_statements WHERE statement LIKE 'SELECT setting.value%'")
            name = await connection.scalar(kept)
            return "\n".join(await connection.scalars(text(f"EXPLAIN EXECUTE {name}('a')")))

    async with opened(postgres_url, data_dir, writers=1) as database:
        await write_name(database, "a")
        await postgres.fetch("ANALYZE setting", url=postgres_url)
        assert "Seq Scan" in await plan(database)
        await postgres.fetch(
            "INSERT INTO setting SELECT 'name' || i, repeat('x', 100) FROM generate_series(1, 20000) i",
            url=postgres_url,
        )
        assert "Seq Scan" in await plan(database), "there is something to be mended"
        if slow:
            monkeypatch.setattr(postgres_database, "_SLOW_SECONDS", 0.0)
            monkeypatch.setattr(postgres_database, "_DOUBTED_PLANS_KEPT_SECONDS", -1.0)
            await write_name(database, "this took long")
        else:
            monkeypatch.setattr(postgres_database, "_PLANS_KEPT_SECONDS", -1.0)
        assert "Index Scan" in await plan(database)


# -- cut connections --------------------------------------------------------------------------------------------------


async def test_idle_connections_that_were_cut_are_not_noticed(
    database: PostgresDatabase, postgres: Postgres, postgres_url: str
) -> None:
    await write_name(database, "before")
    assert await names(database) == ["before"]
    closed = await _idle_ends(database._writers, database._readers)
    assert await postgres.terminate_connections(postgres_url) >= 2
    await asyncio.gather(*(each.wait() for each in closed))
    await write_name(database, "on")
    assert await names(database) == ["before", "on"]


async def _idle_ends(*engines: AsyncEngine) -> list[asyncio.Event]:
    """Each set when one of the connections that the engines' pools hold now is cut."""
    ends = []
    async with AsyncExitStack() as stack:
        for engine in engines:
            pool = engine.sync_engine.pool
            assert isinstance(pool, AsyncAdaptedQueuePool)
            for _ in range(pool.checkedin()):
                connection = await stack.enter_async_context(engine.connect())
                raw = await connection.get_raw_connection()
                ended = asyncio.Event()
                raw.driver_connection.add_termination_listener(lambda _, ended=ended: ended.set())  # type: ignore[union-attr]
                ends.append(ended)
    return ends


@pytest.mark.parametrize("door", ["write", "read"])
async def test_a_connection_cut_in_a_transaction_is_told_and_the_next_works(
    database: PostgresDatabase, postgres: Postgres, postgres_url: str, door: str
) -> None:
    # The other door's is idle and cut as well; one whose end is on its way is not known to be.
    await write_name(database, "before")
    closed = await _idle_ends(database._readers if door == "write" else database._writers)
    with pytest.raises(StoreError, match="connection") as failed:
        async with getattr(database, door)() as connection:
            assert (await connection.execute(_NAMES)).scalars().all() == ["before"]
            await postgres.terminate_connections(postgres_url)
            await connection.execute(select(setting))
    assert "by itself" in failed.value.hint
    await asyncio.gather(*(each.wait() for each in closed))
    await write_name(database, "on")
    assert await names(database) == ["before", "on"]


async def test_a_connection_cut_within_a_statement(database: Database, postgres: Postgres, postgres_url: str) -> None:
    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(select(func.pg_sleep(60)))

    task = asyncio.create_task(write())
    while not await postgres.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%'"
        " AND pid <> pg_backend_pid()"
    ):
        await asyncio.sleep(0)
    with pytest.raises(DatabaseUnavailableError, match=r"ended the connection|was lost"):
        await task
    await write_name(database, "on")


async def test_a_restart_of_the_server(
    start_postgres: Callable[..., Awaitable[Postgres]], data_dir: Path, tmp_path: Path
) -> None:
    server = await start_postgres()
    url = await asyncio.to_thread(server.new_store)
    async with opened(url, data_dir) as one, opened(url, tmp_path / "other") as other:
        await write_name(one, "before")
        await asyncio.gather(one.channel.connected.wait(), other.channel.connected.wait())
        await asyncio.to_thread(server.stop)
        with pytest.raises(StoreError) as failed:
            await write_name(one, "lost")
        assert "by itself" in failed.value.hint
        with pytest.raises(StoreError):
            await names(other)
        await asyncio.to_thread(server.start)
        await write_name(one, "after")
        assert await names(other) == ["after", "before"]
        await asyncio.gather(one.channel.connected.wait(), other.channel.connected.wait())
        await heard(one, other)


async def test_closing_goes_on_where_a_step_of_it_fails(
    postgres_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = await Database.open(postgres_url, data_dir=data_dir)
    assert isinstance(broken, PostgresDatabase)
    close = broken.channel.close

    async def closed_and_failed() -> None:
        await close()
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(broken.channel, "close", closed_and_failed)
    with pytest.raises(RuntimeError, match="unforeseen"):
        await broken.close()
    async with opened(postgres_url, data_dir) as again:  # the folder is free
        await write_name(again, "on")


# -- hints between processes ------------------------------------------------------------------------------------------


async def heard(one: PostgresDatabase, other: PostgresDatabase) -> None:
    """What ``one`` commits wakes who waits at ``other``."""
    with other.wake.requests.subscribe() as subscription:
        async with one.write(wake=("requests",)):
            pass
        assert await subscription.wait(30)


async def test_what_one_process_commits_wakes_the_others(
    postgres_url: str, database: PostgresDatabase, tmp_path: Path
) -> None:
    async with opened(postgres_url, tmp_path / "other") as other:
        await asyncio.gather(database.channel.connected.wait(), other.channel.connected.wait())
        with other.wake.events.subscribe() as events, other.wake.deliveries.subscribe() as deliveries:
            async with database.write() as connection:
                await event_log.append(connection, [EVENT])
            assert await events.wait(30)
            async with other.read() as connection:
                assert len(await event_log.read_after(connection, 0, 10)) == 1
            assert not await deliveries.wait(0)


async def test_what_is_rolled_back_gives_no_hint(postgres_url: str, database: PostgresDatabase) -> None:
    await database.channel.connected.wait()
    with database.wake.work.subscribe() as work, pytest.raises(KeyError):
        async with database.write(wake=("work",)):
            raise KeyError
    assert not await work.wait(0)


async def test_a_listener_that_was_cut_comes_back_and_looks_at_everything(
    postgres: Postgres, postgres_url: str, database: PostgresDatabase, tmp_path: Path
) -> None:
    async with opened(postgres_url, tmp_path / "other") as other:
        await asyncio.gather(database.channel.connected.wait(), other.channel.connected.wait())
        with other.wake.work.subscribe() as work:
            cut = await postgres.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND query ILIKE 'LISTEN%'",
                postgres_url.rpartition("/")[2],
            )
            assert cut
            assert await work.wait(30)  # of what it may have missed
        await asyncio.gather(database.channel.connected.wait(), other.channel.connected.wait())
        await heard(database, other)


async def test_hints_of_others_are_taken_as_they_come(
    postgres: Postgres, postgres_url: str, database: PostgresDatabase
) -> None:
    """A payload of a later version, or nobody's: what is known of it counts."""
    await database.channel.connected.wait()
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    try:
        with database.wake.work.subscribe() as work:
            for payload in ("", "x", "x unknown", "x unknown work"):
                await connection.execute("SELECT pg_notify('mailmill', $1)", payload)
            assert await work.wait(30)
        assert "unknown" not in WAKE_NAMES
    finally:
        await connection.close()
