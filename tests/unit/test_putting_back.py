"""Backups that lack something, backups that were altered, and restores that fail: what is left of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from store_in_use import Opened, opened, quiet, settings_of

from harness.patience import eventually
from mailmill.app import restoring
from mailmill.errors import ConflictError, InvalidRequestError, StorageUnavailableError, StoreError
from mailmill.settings import Settings
from mailmill.settings.models import ServiceSettings
from mailmill.store import backup, migrate, postgres_dump, postgres_link, postgres_schema, putting_back
from mailmill.store.backup_manifest import read_manifest
from servers.postgres import Postgres


@pytest.fixture
async def used(data_dir: Path, database_url: str) -> AsyncIterator[Opened]:
    """A store of each make, with three messages in two segments."""
    async with opened(settings_of(data_dir, database_url)) as made:
        await made.put("one", "two")
        await made.put("three", first_uid=3)
        yield made


@pytest.fixture
async def copy(data_dir: Path, tmp_path: Path) -> Path:
    """A backup of a SQLite store with three messages in two segments."""
    async with opened(settings_of(data_dir)) as made:
        await made.put("one", "two")
        await made.put("three", first_uid=3)
        await made.maintenance.backup(str(tmp_path / "copy"))
    return tmp_path / "copy"


@pytest.fixture
async def postgres_copy(data_dir: Path, postgres_url: str, tmp_path: Path) -> Path:
    async with opened(settings_of(data_dir, postgres_url)) as made:
        await made.put("one", "two")
        await made.maintenance.backup(str(tmp_path / "copy"))
    return tmp_path / "copy"


def alter(copy: Path, **changed: Any) -> None:
    found = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(found | changed))


async def left_in(folder: Path) -> list[str]:
    """What is there, but for the lock and folders made to hold it."""
    return await asyncio.to_thread(lambda: sorted(path.name for path in folder.iterdir() if path.name != "lock"))


async def elsewhere(used: Opened, folder: Path, request: pytest.FixtureRequest) -> Settings:
    if used.store.database.alone:
        return settings_of(folder)
    return settings_of(folder, await asyncio.to_thread(request.getfixturevalue("postgres").new_database))


# -- raw mail that is gone --------------------------------------------------------------------------------------------


async def test_a_lost_segment_is_told_and_what_is_left_is_backed_up_and_restored(
    used: Opened, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lost, kept = await used.segments()
    with_two = lost if await asyncio.to_thread(lost.read_bytes) == b"onetwo" else kept
    await asyncio.to_thread(with_two.unlink)
    made = await used.maintenance.backup(str(tmp_path / "copy"))
    assert (made["segments"], made["missingSegments"], made["messagesWithoutRaw"]) == (1, 1, 2)
    manifest = await asyncio.to_thread(read_manifest, tmp_path / "copy")
    assert manifest.missing == (f"{with_two.parent.name}/{with_two.name}",)

    settings = await elsewhere(used, tmp_path / "elsewhere", request)
    answer = await restoring.restore(settings, tmp_path / "copy", quiet)
    assert (answer["segments"], answer["missingSegments"]) == (1, 1)
    async with opened(settings, new=False) as restored:
        assert await restored.raw(3) == b"three"
        with pytest.raises(StoreError, match=with_two.name):
            await restored.raw(1)
        # A backup of that lacks the same, and can be made.
        again = await restored.maintenance.backup(str(tmp_path / "again"))
        assert (again["missingSegments"], again["messagesWithoutRaw"]) == (1, 2)


async def test_a_whole_backup_lacks_nothing(used: Opened, tmp_path: Path) -> None:
    made = await used.maintenance.backup(str(tmp_path / "copy"))
    assert (made["segments"], made["missingSegments"], made["messagesWithoutRaw"]) == (2, 0, 0)


async def test_without_its_mount_no_raw_mail_is_lost_and_nothing_is_backed_up(used: Opened, tmp_path: Path) -> None:
    mounted = used.settings.service.data_dir / "blobs"
    await asyncio.to_thread(shutil.move, mounted, tmp_path / "away")
    await asyncio.to_thread(mounted.mkdir)
    with pytest.raises(StoreError, match="does not hold the raw messages of this store"):
        await used.maintenance.backup(str(tmp_path / "copy"))
    assert not await asyncio.to_thread(lambda: list(tmp_path.glob("copy*")))


async def test_what_was_missing_while_its_mount_was_away_is_not_told_as_lost(
    used: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, folder = backup.copy_segments, used.settings.service.data_dir / "blobs"

    def while_it_is_away(*given: Any) -> Any:
        folder.rename(tmp_path / "away")
        copied = real(*given)
        (tmp_path / "away").rename(folder)
        return copied

    with monkeypatch.context() as patched:
        patched.setattr(backup, "copy_segments", while_it_is_away)
        with pytest.raises(StorageUnavailableError, match="was missing, and is there again"):
            await used.maintenance.backup(str(tmp_path / "copy"))
    assert not await asyncio.to_thread(lambda: list(tmp_path.glob("copy*")))
    assert (await used.maintenance.backup(str(tmp_path / "copy")))["missingSegments"] == 0


async def test_a_segment_that_nobody_told_of_as_missing_is_wanted(copy: Path, tmp_path: Path) -> None:
    manifest = await asyncio.to_thread(read_manifest, copy)
    gone = manifest.segments[0].name
    found = json.loads(await asyncio.to_thread((copy / "manifest.json").read_text))
    shown = [each for each in found["segments"] if each["name"] != gone]
    await asyncio.to_thread(lambda: alter(copy, segments=shown))
    with pytest.raises(StoreError, match="lacks 1 segments that its database names"):
        await restoring.restore(settings_of(tmp_path / "elsewhere"), copy, quiet)
    assert await left_in(tmp_path / "elsewhere") == []
    await asyncio.to_thread(lambda: alter(copy, segments=shown, missing=[gone.removeprefix("segments/")]))
    await restoring.restore(settings_of(tmp_path / "elsewhere"), copy, quiet)


# -- databases that were altered --------------------------------------------------------------------------------------


def sql(script: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)
            connection.commit()

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(b"hello world" * 100), "no database of mailmill's"),
        (lambda path: os.truncate(path, 100_000), "damaged"),
        (sql("DROP TABLE alembic_version"), "no such table"),
        (sql("DELETE FROM alembic_version"), "not as mailmill writes it"),
        (sql("UPDATE alembic_version SET version_num = 7"), "schema 7, and the manifest"),
        (sql("UPDATE alembic_version SET version_num = '0099'"), "schema 0099, and the manifest"),
        (sql("UPDATE alembic_version SET version_num = x'00'"), "not as mailmill writes it"),
        (sql("UPDATE blob SET segment = x'00'"), "not as mailmill writes it"),
        (sql("DROP TABLE setting"), "no such table"),
    ],
)
async def test_a_database_that_was_altered_is_refused_and_nothing_is_left(
    copy: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    def spoil() -> None:
        change(copy / "mailmill.db")
        content = (copy / "mailmill.db").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        alter(copy, database={"name": "mailmill.db", "bytes": len(content), "sha256": digest})

    await asyncio.to_thread(spoil)
    with pytest.raises((StoreError, InvalidRequestError), match=said) as refused:
        await restoring.restore(settings_of(tmp_path / "elsewhere"), copy, quiet)
    assert "another backup" in refused.value.hint
    assert await left_in(tmp_path / "elsewhere") == []


async def test_postgresql_is_not_filled_with_another_schema_than_the_manifest_says(
    postgres_copy: Path, postgres: Postgres, tmp_path: Path
) -> None:
    await asyncio.to_thread(lambda: alter(postgres_copy, revision="0001"))
    url = await asyncio.to_thread(postgres.new_database)
    settings = settings_of(tmp_path / "elsewhere", url)
    with pytest.raises(StoreError, match=f"schema {migrate.HEAD}, and the manifest beside it says 0001"):
        await restoring.restore(settings, postgres_copy, quiet)
    assert (await postgres_schema.inspect(url)).revision is None
    # All that was written is gone, and the same can be tried again.
    assert await left_in(tmp_path / "elsewhere") == []
    await asyncio.to_thread(lambda: alter(postgres_copy, revision=migrate.HEAD))
    await restoring.restore(settings, postgres_copy, quiet)
    async with opened(settings, new=False) as restored:
        assert await restored.raw(1) == b"one"


# -- restores that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["psql", "pg_restore"])
async def test_without_its_tools_a_restore_does_not_begin(
    postgres_copy: Path, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    settings = settings_of(tmp_path / "elsewhere", await asyncio.to_thread(postgres.new_database))
    told: list[str] = []
    which = shutil.which
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "which", lambda name: None if name == program else which(name))
        with pytest.raises(StoreError, match=f"{program} is not on this machine"):
            await restoring.restore(settings, postgres_copy, lambda phase, _done, _total: told.append(phase))
    assert told == []
    assert await left_in(tmp_path / "elsewhere") == []
    await restoring.restore(settings, postgres_copy, quiet)


async def test_what_a_failed_restore_wrote_is_removed_and_nothing_else(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir, mail = tmp_path / "elsewhere", tmp_path / "mail"

    def prepare() -> None:
        for folder in (data_dir, mail / "segments", mail / "lost+found"):
            folder.mkdir(parents=True)
        (data_dir / "master.key").write_text("secret")

    await asyncio.to_thread(prepare)
    settings = Settings(
        service=ServiceSettings(
            data_dir=data_dir,
            database_url=SecretStr(f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}"),
            blob_url=f"file://{mail}",
        )
    )

    def fail(path: Path) -> None:
        assert path.exists()
        assert len(list(mail.glob("segments/*/*.seg"))) == 2
        path.with_name(f"{path.name}-journal").touch()
        raise StoreError("the disk went away")

    with monkeypatch.context() as patched:
        patched.setattr(putting_back, "_hold", fail)
        with pytest.raises(StoreError, match="went away"):
            await restoring.restore(settings, copy, quiet)
    assert await left_in(data_dir) == ["master.key"]
    assert await left_in(mail) == ["lost+found", "segments"]
    assert await left_in(mail / "segments") == []
    await restoring.restore(settings, copy, quiet)
    assert await left_in(data_dir) == ["mailmill.db", "master.key"]
    assert len(await asyncio.to_thread(lambda: list(mail.glob("segments/*/*.seg")))) == 2


async def test_a_cancelled_restore_leaves_nothing(copy: Path, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    began, cancelled = asyncio.Event(), asyncio.Event()

    def tell(phase: str, done: int, _total: int) -> None:
        if (phase, done) == ("raw mail", 1):
            loop.call_soon_threadsafe(began.set)
            asyncio.run_coroutine_threadsafe(cancelled.wait(), loop).result(20)

    task = asyncio.create_task(restoring.restore(settings_of(tmp_path / "elsewhere"), copy, tell))
    async with asyncio.timeout(20):
        await began.wait()
        task.cancel()
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await left_in(tmp_path / "elsewhere") == []
    await restoring.restore(settings_of(tmp_path / "elsewhere"), copy, quiet)


@pytest.mark.parametrize("restored", [True, False])
async def test_raw_mail_stays_where_its_database_was_restored_all_the_same(
    postgres_copy: Path, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored: bool
) -> None:
    """The server fell silent at the COMMIT, and nobody was told that it was done."""
    real = postgres_dump.restore

    async def fall_silent(url: str, source: Path, *, then: str) -> None:
        if restored:
            await real(url, source, then=then)
        raise StoreError("psql failed: server closed the connection", hint="look")

    monkeypatch.setattr(postgres_dump, "restore", fall_silent)
    settings = settings_of(tmp_path / "elsewhere", await asyncio.to_thread(postgres.new_database))
    with pytest.raises(StoreError, match="closed the connection") as failed:
        await restoring.restore(settings, postgres_copy, quiet)
    assert await left_in(tmp_path / "elsewhere") == (["blobs"] if restored else [])
    assert failed.value.hint.startswith("the raw mail was left" if restored else "look")
    assert "\n" not in failed.value.hint
    if restored:
        async with opened(settings, new=False) as found:
            assert await found.raw(1) == b"one"


async def test_raw_mail_stays_where_the_server_is_still_at_the_commit_of_its_database(
    postgres_copy: Path, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psql is killed, and its server goes on: it has been told all."""
    url = await asyncio.to_thread(postgres.new_database)
    settings, gate = settings_of(tmp_path / "elsewhere", url), 4_712
    real = postgres_dump.restore
    slow_commit = f"""
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock({gate}); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON public.alembic_version DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION wait();
        UPDATE public.alembic_version SET version_num = version_num"""

    async def restore(url: str, source: Path, *, then: str) -> None:
        await real(url, source, then=f"{then};{slow_commit}")

    async def waits_for(key: int) -> bool:
        held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted"
        assert not task.done()
        return bool(await postgres.fetch(held, key))

    monkeypatch.setattr(postgres_dump, "restore", restore)
    holder = await postgres_link.Link.of_url(url).connect()
    try:
        await holder.execute(f"SELECT pg_advisory_lock({gate})")
        task = asyncio.create_task(restoring.restore(settings, postgres_copy, quiet))
        await eventually(lambda: waits_for(gate))
        task.cancel()
        await eventually(lambda: waits_for(migrate.SCHEMA_LOCK))
    finally:
        await holder.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with opened(settings, new=False) as found:
        assert await found.raw(1) == b"one"


async def test_raw_mail_stays_where_nobody_waits_to_hear_of_its_database(
    postgres_copy: Path, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled twice."""
    filling, asking = asyncio.Event(), asyncio.Event()

    async def fill(_url: str, _source: Path, *, then: str) -> None:
        assert then
        filling.set()
        await asyncio.Event().wait()

    async def ask(_url: str) -> bool:
        asking.set()
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(postgres_dump, "restore", fill)
    monkeypatch.setattr(postgres_schema, "is_empty", ask)
    settings = settings_of(tmp_path / "elsewhere", await asyncio.to_thread(postgres.new_database))
    task = asyncio.create_task(restoring.restore(settings, postgres_copy, quiet))
    async with asyncio.timeout(20):
        await filling.wait()
        task.cancel()
        await asking.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(await asyncio.to_thread(lambda: list((tmp_path / "elsewhere").glob("blobs/segments/*/*.seg")))) == 1


@pytest.mark.parametrize("endings", [[""], ["-wal"], ["-shm"], ["-journal"], ["", "-journal"]])
async def test_what_a_killed_restore_left_beside_the_data_folder_is_named(
    copy: Path, tmp_path: Path, endings: list[str]
) -> None:
    left = [tmp_path / f"own.db.partial{ending}" for ending in endings]
    await asyncio.to_thread(lambda: [path.touch() for path in left])
    settings = settings_of(tmp_path / "elsewhere", f"sqlite+aiosqlite:///{tmp_path / 'own.db'}")
    with pytest.raises(ConflictError, match=rf"own\.db\.partial{endings[0]} is left") as refused:
        await restoring.restore(settings, copy, quiet)
    assert refused.value.hint == f"remove {', '.join(str(path) for path in left)}"
    assert await asyncio.to_thread(lambda: all(path.exists() for path in left))


@pytest.mark.parametrize("name", ["own.db.partial-wal", "own.db.partial-shm", "own.db.partial-journal", "own.db-wal"])
async def test_what_came_beside_the_database_meanwhile_is_not_played_over_it_and_stays(
    copy: Path, tmp_path: Path, name: str
) -> None:
    def tell(phase: str, done: int, _total: int) -> None:
        if (phase, done) == ("raw mail", 1):
            (tmp_path / name).write_text("another's")

    settings = settings_of(tmp_path / "elsewhere", f"sqlite+aiosqlite:///{tmp_path / 'own.db'}")
    with pytest.raises(StoreError, match=f"{name} is left of another database"):
        await restoring.restore(settings, copy, tell)
    assert await asyncio.to_thread((tmp_path / name).read_text) == "another's"
    assert await left_in(tmp_path / "elsewhere") == []
    assert not await asyncio.to_thread((tmp_path / "own.db").exists)


async def test_a_database_that_was_damaged_while_it_was_written_is_not_restored(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(putting_back, "_hold", lambda path: os.truncate(path, 100_000))
    with pytest.raises(StoreError, match="was damaged while it was written"):
        await restoring.restore(settings_of(tmp_path / "elsewhere"), copy, quiet)
    assert await left_in(tmp_path / "elsewhere") == []


async def test_the_folder_of_the_database_is_made_before_raw_mail_is_copied(copy: Path, tmp_path: Path) -> None:
    own = tmp_path / "far" / "away"
    there: list[bool] = []

    def tell(phase: str, _done: int, _total: int) -> None:
        if phase == "raw mail":
            there.append(own.is_dir())

    settings = settings_of(tmp_path / "elsewhere", f"sqlite+aiosqlite:///{own / 'own.db'}")
    await restoring.restore(settings, copy, tell)
    assert there == [True, True]
    assert await left_in(own) == ["own.db"]

    blocked = tmp_path / "file"
    await asyncio.to_thread(blocked.touch)
    settings = settings_of(tmp_path / "again", f"sqlite+aiosqlite:///{blocked / 'own.db'}")
    with pytest.raises(StoreError, match="cannot make the folder of"):
        await restoring.restore(settings, copy, quiet)
    assert await left_in(tmp_path / "again") == []


async def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    def attempt() -> None:
        for path in ("source", "there"):
            (tmp_path / path).write_text(path)
        written = putting_back.Written()
        with pytest.raises(FileExistsError):
            written.make_file(tmp_path / "there", tmp_path / "source")
        written.make_file(tmp_path / "new", tmp_path / "source")
        with pytest.raises(FileExistsError):
            written.give_name(tmp_path / "new", tmp_path / "there")
        written.make_folder(tmp_path / "a" / "b")
        (tmp_path / "a" / "another's").touch()
        written.remove()

    await asyncio.to_thread(attempt)
    assert await left_in(tmp_path) == ["a", "source", "there"]
    assert await asyncio.to_thread((tmp_path / "there").read_text) == "there"
    assert await left_in(tmp_path / "a") == ["another's"]
