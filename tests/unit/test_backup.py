"""A backup while the store is used, put back elsewhere; and checks that find what is broken."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from store_in_use import Opened, opened, quiet, settings_of
from store_mail import NOW

from mailmill import programs
from mailmill.app import housekeeping, restoring
from mailmill.errors import ConflictError, InvalidRequestError, StoreError, StoreInUseError
from mailmill.settings import Settings
from mailmill.settings.models import ServiceSettings
from mailmill.store import (
    backup,
    blob_references,
    integrity,
    marks,
    messages,
    migrate,
    postgres_dump,
    postgres_link,
    postgres_schema,
    putting_back,
)
from mailmill.store.backup_manifest import read_manifest
from mailmill.store.postgres_database import PostgresDatabase
from mailmill.store.tables import blob, delivery, message, place
from servers.ports import free_ports
from servers.postgres import Postgres


@pytest.fixture
async def used(data_dir: Path, database_url: str) -> AsyncIterator[Opened]:
    """A store of each make, with three messages in two segments."""
    async with opened(settings_of(data_dir, database_url)) as made:
        await made.put("one", "two")
        await made.put("three", first_uid=3)
        yield made


@pytest.fixture
async def embedded(data_dir: Path) -> AsyncIterator[Opened]:
    async with opened(settings_of(data_dir)) as made:
        await made.put("one", "two")
        await made.put("three", first_uid=3)
        yield made


# -- backup and restore -----------------------------------------------------------------------------------------------


async def test_a_backup_of_a_store_in_use_can_be_restored(
    used: Opened, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = await used.maintenance.backup(str(tmp_path / "copy"))
    assert (made["segments"], made["revision"], made["segmentsAt"]) == (2, migrate.HEAD, None)
    assert used.maintenance.state() == {"running": None}
    await used.put("after it", first_uid=4)

    elsewhere = settings_of(tmp_path / "elsewhere")
    if not used.store.database.alone:
        postgres = request.getfixturevalue("postgres")
        elsewhere = settings_of(tmp_path / "elsewhere", await asyncio.to_thread(postgres.new_database))
    answer = await restoring.restore(elsewhere, tmp_path / "copy", quiet)
    assert (answer["segments"], answer["revision"]) == (2, migrate.HEAD)
    async with opened(elsewhere, new=False) as restored:
        assert [await restored.raw(number) for number in (1, 2, 3)] == [b"one", b"two", b"three"]
        report = await restored.maintenance.check(full=True)
        assert (report["ok"], report["blobsRead"]) == (True, 3)
        async with restored.store.database.read() as connection:
            assert len((await messages.list_messages(connection)).messages) == 3


async def test_a_backup_is_of_one_moment_however_long_it_takes(
    embedded: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service writes between any two pages: what is copied is what was there at the start."""
    monkeypatch.setattr(backup, "_PAGES_AT_ONCE", 1)
    loop = asyncio.get_running_loop()
    told: list[tuple[int, int]] = []
    uid = 10

    def between(done: int, total: int) -> None:
        nonlocal uid
        told.append((done, total))
        if len(told) % 20 == 1:
            uid += 1
            asyncio.run_coroutine_threadsafe(embedded.put(f"late {uid}", first_uid=uid), loop).result(20)

    source = embedded.settings.service.data_dir / "mailmill.db"
    revision, segments = await asyncio.to_thread(backup.copy_sqlite, source, tmp_path / "copy.db", between)
    assert revision == migrate.HEAD
    assert len(segments) == 2
    assert uid > 12  # there were writes
    assert len(told) <= told[-1][1] + 1  # and it began once

    def subjects() -> set[str]:
        with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
            return {row[0] for row in connection.execute("SELECT subject FROM message")}

    assert await asyncio.to_thread(subjects) == {"one", "two", "three"}


async def test_only_what_the_snapshot_names_is_copied_and_it_cannot_go_meanwhile(
    embedded: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = backup.copy_segments
    loop = asyncio.get_running_loop()

    async def everything_goes() -> None:
        async with embedded.store.database.write() as connection:
            await connection.execute(message.delete())
        await housekeeping.collect(embedded.store.database, embedded.blobs, older_than_seconds=0)

    def later(*given: Any) -> Any:
        asyncio.run_coroutine_threadsafe(everything_goes(), loop).result(20)
        return real(*given)

    await embedded.blobs.put_batch([b"nobody names this"])
    monkeypatch.setattr(backup, "copy_segments", later)
    made = await embedded.maintenance.backup(str(tmp_path / "copy"))
    assert made["segments"] == 2
    manifest = await asyncio.to_thread(read_manifest, tmp_path / "copy")
    await asyncio.to_thread(putting_back.verify, tmp_path / "copy", manifest, lambda _done, _total: None)


async def test_the_master_key_is_not_in_it(embedded: Opened, tmp_path: Path) -> None:
    await asyncio.to_thread((embedded.settings.service.data_dir / "master.key").write_text, "secret")
    await embedded.maintenance.backup(str(tmp_path / "copy"))
    names = await asyncio.to_thread(lambda: {path.name for path in (tmp_path / "copy").iterdir()})
    assert names == {"manifest.json", "mailmill.db", "segments"}
    modes = await asyncio.to_thread(
        lambda: {oct(path.stat().st_mode & 0o077) for path in (tmp_path / "copy").iterdir()}
    )
    assert modes == {"0o0"}


async def test_where_a_backup_goes_must_be_new(embedded: Opened, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="absolute"):
        await embedded.maintenance.backup("copy")
    with pytest.raises(InvalidRequestError, match="there already"):
        await embedded.maintenance.backup(str(tmp_path))


async def test_a_backup_that_was_cut_is_none(embedded: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup.shutil, "rmtree", shutil.rmtree)
    with monkeypatch.context() as patched:
        patched.setattr(backup, "described", cut)
        with pytest.raises(StoreError, match="No space left"):
            await embedded.maintenance.backup(str(tmp_path / "copy"))
    with pytest.raises(InvalidRequestError):
        await asyncio.to_thread(read_manifest, tmp_path / "copy")
    assert not await asyncio.to_thread(lambda: list(tmp_path.glob("copy*")))
    # One that is being made by another, or was cut, is in nobody's way, and stays.
    other = await asyncio.to_thread(backup.begin, tmp_path / "copy")
    with pytest.raises(InvalidRequestError, match="holds no backup"):
        await asyncio.to_thread(read_manifest, other)
    await embedded.maintenance.backup(str(tmp_path / "copy"))
    assert await asyncio.to_thread(other.is_dir)


async def test_one_task_at_a_time(embedded: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []

    async def meanwhile() -> None:
        try:
            await embedded.maintenance.check(full=False)
        except ConflictError as error:
            refused.append(str(error))

    loop = asyncio.get_running_loop()
    real = backup.finish

    def finish(*given: Any) -> None:
        asyncio.run_coroutine_threadsafe(meanwhile(), loop).result(20)
        real(*given)

    monkeypatch.setattr(backup, "finish", finish)
    await embedded.maintenance.backup(str(tmp_path / "copy"))
    assert refused == ["a backup is running"]


@pytest.mark.parametrize("damage", ["database", "segment", "missing", "manifest", "escape"])
async def test_a_damaged_backup_is_refused_and_nothing_is_restored(
    embedded: Opened, tmp_path: Path, damage: str
) -> None:
    copy = tmp_path / "copy"
    await embedded.maintenance.backup(str(copy))

    def spoil() -> None:
        segment = sorted(copy.glob("segments/*/*.seg"))[0]
        manifest = json.loads((copy / "manifest.json").read_text())
        if damage == "database":
            whole = (copy / "mailmill.db").read_bytes()
            (copy / "mailmill.db").write_bytes(whole[:-1] + b"\x01")
        elif damage == "segment":
            content = segment.read_bytes()
            segment.unlink()  # a link to the store's own
            segment.write_bytes(b"X" + content[1:])
        elif damage == "missing":
            segment.unlink()
        elif damage == "manifest":
            (copy / "manifest.json").write_text("{}")
        else:
            manifest["segments"][0]["name"] = "../../outside"
            (copy / "manifest.json").write_text(json.dumps(manifest))

    await asyncio.to_thread(spoil)
    elsewhere = settings_of(tmp_path / "elsewhere")
    with pytest.raises((StoreError, InvalidRequestError)):
        await restoring.restore(elsewhere, copy, quiet)
    assert not await asyncio.to_thread((tmp_path / "elsewhere" / "mailmill.db").exists)


async def test_a_restore_wants_an_empty_folder(embedded: Opened, tmp_path: Path) -> None:
    copy, target = tmp_path / "copy", tmp_path / "target"
    await embedded.maintenance.backup(str(copy))
    with pytest.raises(StoreInUseError):
        await restoring.restore(embedded.settings, copy, quiet, lock_wait_seconds=0)
    await asyncio.to_thread(target.mkdir)
    await asyncio.to_thread((target / "notes.txt").touch)
    with pytest.raises(ConflictError, match=r"notes\.txt"):
        await restoring.restore(settings_of(target), copy, quiet)
    await asyncio.to_thread((target / "notes.txt").rename, target / "master.key")
    await restoring.restore(settings_of(target), copy, quiet)  # the key is put there by hand
    with pytest.raises(ConflictError):
        await restoring.restore(settings_of(target), copy, quiet)


async def test_a_backup_of_another_make_or_a_newer_version_is_refused(embedded: Opened, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    await embedded.maintenance.backup(str(copy))
    with pytest.raises(InvalidRequestError, match="PostgreSQL"):
        await restoring.restore(settings_of(tmp_path / "a", "postgresql+asyncpg://h/d"), copy, quiet)
    manifest = json.loads(await asyncio.to_thread((copy / "manifest.json").read_text))
    manifest["revision"] = "9999"
    await asyncio.to_thread((copy / "manifest.json").write_text, json.dumps(manifest))
    with pytest.raises(InvalidRequestError, match="9999"):
        await restoring.restore(settings_of(tmp_path / "a"), copy, quiet)


async def test_a_restored_store_removes_no_raw_mail_until_it_is_adopted(
    used: Opened, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It may stand on the segments of the store that it was copied from."""
    await used.maintenance.backup(str(tmp_path / "copy"))
    elsewhere = settings_of(tmp_path / "elsewhere")
    if not used.store.database.alone:
        postgres = request.getfixturevalue("postgres")
        # What libpq says and the driver's own way of opening does not know.
        url = await asyncio.to_thread(postgres.new_database)
        elsewhere = settings_of(tmp_path / "elsewhere", f"{url}{'&' if '?' in url else '?'}sslmode=prefer")
    await restoring.restore(elsewhere, tmp_path / "copy", quiet)
    if not used.store.database.alone:
        await asyncio.to_thread((tmp_path / "again").mkdir)
        again = elsewhere.service.database_url.get_secret_value()
        with pytest.raises(ConflictError, match="not empty"):
            await restoring.restore(settings_of(tmp_path / "again", again), tmp_path / "copy", quiet)

    async def collected() -> int:
        async with opened(elsewhere, new=False) as restored:
            database = restored.store.database
            before = len(await restored.segments())
            await housekeeping.collect(database, restored.blobs, older_than_seconds=-1)
            async with database.read() as connection:
                assert await housekeeping.tell_if_held(database) == await blob_references.is_held(connection)
            return before - len(await restored.segments())

    async with opened(elsewhere, new=False) as restored:
        await restored.blobs.put_batch([b"production's, and newer than the backup"])
    assert await collected() == 0
    assert await restoring.adopt(elsewhere) == {"adopted": True}
    assert await restoring.adopt(elsewhere) == {"adopted": False}
    async with opened(elsewhere, new=False) as restored, restored.store.database.write() as connection:
        assert not await blob_references.awaits_adoption(connection)
        await marks.move(connection, blob_references.HELD_UNTIL, 0)  # ten minutes later
    assert await collected() == 1


@pytest.fixture
async def dumped(postgres_url: str, data_dir: Path, tmp_path: Path) -> Path:
    """An archive of a database with three messages."""
    async with opened(settings_of(data_dir, postgres_url)) as made:
        await made.put("one", "two", "three")
        await postgres_dump.dump(postgres_url, tmp_path / "dump")
    return tmp_path / "dump"


async def is_empty(url: str) -> bool:
    return (await postgres_schema.inspect(url)).revision is None


async def test_a_database_is_restored_with_its_hold_or_not_at_all(dumped: Path, postgres: Postgres) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    with pytest.raises(StoreError, match="psql failed") as failed:
        await postgres_dump.restore(url, dumped, then="INSERT INTO setting VALUES ('private words', NULL)")
    assert "private words" not in str(failed.value)
    assert await is_empty(url)
    await postgres_dump.restore(url, dumped, then=blob_references.HOLD_UNTIL_ADOPTED)
    held = await postgres.fetch(f"SELECT value FROM setting WHERE name = '{blob_references.HELD_UNTIL}'", url=url)
    assert [row["value"] for row in held] == [str(blob_references.UNTIL_ADOPTED)]


async def test_a_restore_that_is_cut_before_its_hold_leaves_nothing(dumped: Path, postgres: Postgres) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    restoring_it = asyncio.create_task(postgres_dump.restore(url, dumped, then="SELECT pg_sleep(60)"))
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE datname = $1 AND wait_event = 'PgSleep'"
    async with asyncio.timeout(30):
        while not await postgres.fetch(sleeping, url.rpartition("/")[2]):
            assert not restoring_it.done()
        restoring_it.cancel()
        with pytest.raises(asyncio.CancelledError):
            await restoring_it
        await postgres.terminate_connections(url)
    assert await is_empty(url)


async def test_an_archive_that_ends_too_soon_is_not_restored(dumped: Path, postgres: Postgres) -> None:
    """The script of what there was of it is a whole one to psql."""
    url = await asyncio.to_thread(postgres.new_database)
    whole = await asyncio.to_thread(dumped.read_bytes)
    await asyncio.to_thread(dumped.write_bytes, whole[: len(whole) * 9 // 10])
    with pytest.raises(StoreError, match="pg_restore failed"):
        await postgres_dump.restore(url, dumped, then="SELECT 1")
    assert await is_empty(url)


async def test_a_restore_into_a_server_that_is_not_there(dumped: Path) -> None:
    (port,) = free_ports(1)
    with pytest.raises(StoreError, match="psql failed"):
        await postgres_dump.restore(f"postgresql+asyncpg://u@127.0.0.1:{port}/d", dumped, then="SELECT 1")


async def test_raw_mail_is_put_where_the_configuration_says(embedded: Opened, tmp_path: Path) -> None:
    copy, mail = tmp_path / "copy", tmp_path / "mail"
    await embedded.maintenance.backup(str(copy))

    def named(folder: str, blob_url: str) -> Settings:
        url = f"sqlite+aiosqlite:///{tmp_path / folder / 'mailmill.db'}"
        return Settings(
            service=ServiceSettings(data_dir=tmp_path / folder, database_url=SecretStr(url), blob_url=blob_url)
        )

    with pytest.raises(InvalidRequestError, match="s3://bucket"):
        await restoring.restore(named("a", "s3://bucket/mail"), copy, quiet)
    await restoring.restore(named("a", f"file://{mail}"), copy, quiet)
    assert len(await asyncio.to_thread(lambda: list(mail.glob("segments/*/*.seg")))) == 2
    with pytest.raises(ConflictError, match="raw mail"):
        await restoring.restore(named("b", f"file://{mail}"), copy, quiet)
    manifest = json.loads(await asyncio.to_thread((copy / "manifest.json").read_text))
    manifest["segmentsAt"] = "s3://bucket/mail"
    await asyncio.to_thread((copy / "manifest.json").write_text, json.dumps(manifest))
    with pytest.raises(InvalidRequestError, match="s3://bucket/mail"):
        await restoring.restore(settings_of(tmp_path / "c"), copy, quiet)


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
async def test_what_is_left_of_another_database_is_refused(embedded: Opened, tmp_path: Path, ending: str) -> None:
    await embedded.maintenance.backup(str(tmp_path / "copy"))
    left = tmp_path / f"own.db{ending}"
    await asyncio.to_thread(left.touch)
    elsewhere = settings_of(tmp_path / "elsewhere", f"sqlite+aiosqlite:///{tmp_path / 'own.db'}")
    with pytest.raises(ConflictError, match=ending):
        await restoring.restore(elsewhere, tmp_path / "copy", quiet)


@pytest.mark.parametrize("text", ["two words", "caf\u00e9", "x" * 201])
async def test_what_no_manifest_can_hold_of_the_place_is_left_out(embedded: Opened, tmp_path: Path, text: str) -> None:
    """Of a text that an operator wrote."""
    marker = embedded.settings.service.data_dir / "blobs" / "mailmill-store"
    await asyncio.to_thread(marker.write_text, text, encoding="utf-8")
    await embedded.maintenance.backup(str(tmp_path / "copy"))
    assert (await asyncio.to_thread(read_manifest, tmp_path / "copy")).place == ""
    await restoring.restore(settings_of(tmp_path / "elsewhere"), tmp_path / "copy", quiet)
    async with opened(settings_of(tmp_path / "elsewhere"), new=False) as restored:
        assert await restored.raw(1) == b"one"


@pytest.mark.parametrize(
    "url",
    ["postgresql+asyncpg://mill:s3cr3t@h:5/d?sslmode=require", "postgresql+asyncpg://mill@h/d?password=s3cr3t&a=b"],
)
async def test_no_password_is_among_the_arguments(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[tuple[Sequence[str], dict[str, str]]] = []

    async def start(arguments: Sequence[str], *, environ: dict[str, str], **_: Any) -> Any:
        run.append((arguments, environ))
        raise OSError("seen enough")

    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr(programs, "start", start)
    with pytest.raises(OSError, match="enough"):
        await postgres_dump.dump(url, tmp_path / "dump")
    ((arguments, environ),) = run
    assert "s3cr3t" not in " ".join(arguments)
    assert "--dbname=postgresql://mill@h" in " ".join(arguments)
    assert environ["PGPASSWORD"] == "s3cr3t"


async def test_upgrade_makes_the_schema_and_starts_nothing(data_dir: Path, database_url: str) -> None:
    settings = settings_of(data_dir, database_url)
    assert await restoring.upgrade(settings) == {"revision": migrate.HEAD}
    async with opened(settings):
        if database_url.startswith("sqlite"):
            with pytest.raises(StoreInUseError):
                await restoring.upgrade(settings, lock_wait_seconds=0)
        else:
            assert await restoring.upgrade(settings) == {"revision": migrate.HEAD}


# -- check ------------------------------------------------------------------------------------------------------------


async def broken(used: Opened, *, full: bool = False) -> dict[str, int]:
    report = await used.maintenance.check(full=full)
    assert report["ok"] == (not report["findings"])
    assert all(each["hint"] and each["detail"] for each in report["findings"])
    return {each["check"]: each["count"] for each in report["findings"]}


async def write(used: Opened, *statements: Any) -> None:
    async with used.store.database.write() as connection:
        for statement in statements:
            await connection.execute(statement)


async def test_a_whole_store_has_nothing_to_find(used: Opened) -> None:
    report = await used.maintenance.check(full=True)
    assert report["findings"] == []
    assert (report["segments"], report["blobsRead"]) == (2, 3)
    assert {"schema", "place without message", "work without message", "message without raw bytes", "segments"} <= set(
        report["checks"]
    )


async def test_a_check_takes_its_time_and_says_how_far_it_is(used: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the limits of a statement are."""
    told: list[dict[str, Any]] = []

    async def slow(connection: AsyncConnection) -> None:
        told.append(used.maintenance.state()["running"])
        if not used.store.database.alone:
            await connection.execute(text("SELECT pg_sleep(0.4)"))

    if isinstance(used.store.database, PostgresDatabase):
        hasty = replace(used.store.database._link, answer_seconds=0.1)
        monkeypatch.setattr(used.store.database, "_link", hasty)
        monkeypatch.setitem(cast("dict[str, str]", postgres_link.SESSION), "statement_timeout", "100ms")
        await used.store.database._readers.dispose()  # those that are made from now on have these limits
    slow_ones = [integrity.Check("first", slow), integrity.Check("second", slow)]
    monkeypatch.setattr(integrity, "database_checks", lambda _connection: slow_ones)
    assert (await used.maintenance.check(full=False))["checks"] == ["first", "second", "segments"]
    assert [(each["phase"], each["done"], each["total"]) for each in told] == [("first", 0, 2), ("second", 1, 2)]


async def test_rules_that_no_database_knows_are_checked(used: Opened) -> None:
    await write(
        used,
        update(message).where(message.c.id == 1).values(sha256=b"\x01" * 32),
        update(blob).where(blob.c.size_bytes == 5).values(size_bytes=4),
        insert(delivery).values(
            tenant_id="default", destination="hook", event_id=999, state="pending", run_at=1, created_at=1
        ),
    )
    assert await broken(used) == {
        "message without raw bytes": 1, "message of another size": 1, "delivery without event": 1
    }  # fmt: skip
    # What retention took is no gap.
    await write(used, update(message).where(message.c.id == 1).values(raw_expired_at=NOW))
    assert "message without raw bytes" not in await broken(used)


async def test_places_without_their_message_are_found(embedded: Opened) -> None:
    path = embedded.settings.service.data_dir / "mailmill.db"
    async with embedded.store.database.write() as connection:
        pass
    assert await broken(embedded) == {}
    del connection

    def tear(folder: Path) -> None:
        with closing(sqlite3.connect(folder)) as writing:  # foreign keys are off here
            writing.execute("DELETE FROM message WHERE id = 2")
            writing.execute("UPDATE id_block SET next_id = 2")
            writing.commit()

    await embedded.store.database.close()
    await asyncio.to_thread(tear, path)
    async with opened(embedded.settings, new=False) as again:
        assert await broken(again) == {"place without message": 1, "message ids": 1}
        async with again.store.database.write() as writing:
            await writing.execute(place.delete())
        assert await broken(again) == {"message ids": 1}


async def test_raw_mail_that_is_gone_short_or_damaged_is_found(used: Opened) -> None:
    first, second = await used.segments()
    whole = await asyncio.to_thread(first.read_bytes)
    await asyncio.to_thread(first.write_bytes, b"#" + whole[1:])
    assert await broken(used) == {}
    assert await broken(used, full=True) == {"contents": 1}
    await asyncio.to_thread(first.write_bytes, whole[:-1])
    await asyncio.to_thread(second.unlink)
    found = await broken(used)
    assert found == {"segments": 2}


async def test_an_older_schema_is_told(used: Opened) -> None:
    async with used.store.database.write() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    assert await broken(used) == {"schema": 1}


@pytest.mark.parametrize(
    ("url", "shown", "password"),
    [
        ("postgresql+asyncpg://me:s3@a/mail", "postgresql://me@a/mail", "s3"),
        ("postgresql+asyncpg://me@a:5433/mail?password=s3", "postgresql://me@a:5433/mail", "s3"),
        (
            "postgresql+asyncpg://me:s3@a:5433,b/mail?target_session_attrs=read-write",
            "postgresql://me@/mail?host=a%2Cb&port=5433%2C5432&target_session_attrs=read-write",
            "s3",
        ),
    ],
    ids=["in the address", "in the query", "several hosts"],
)
def test_the_tools_are_given_the_address_without_the_password(url: str, shown: str, password: str) -> None:
    assert postgres_dump.without_password(url) == (shown, password)
