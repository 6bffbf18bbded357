"""What is done to a store that no service has open: ``mailmill db upgrade``, ``db restore`` and ``db adopt``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from mailmill.app import views
from mailmill.app.wiring import segments_of
from mailmill.errors import ConflictError, InvalidRequestError, MailmillError, StoreError
from mailmill.settings import Settings
from mailmill.store import blob_references, postgres_dump, putting_back
from mailmill.store.backup import Progress
from mailmill.store.backup_manifest import DUMP, Manifest, read_manifest
from mailmill.store.data_folder import LOCK_WAIT_SECONDS, lock_files, make_private_folder
from mailmill.store.database import Database, uncut
from mailmill.store.keys import KEY_FILE_NAME
from mailmill.store.migrate import HEAD
from mailmill.store.putting_back import Written
from mailmill.store.segments import MARKER_NAME
from mailmill.store.sqlite_database import sqlite_path

JsonObject = dict[str, Any]

Tell = Callable[[str, int, int], None]
"""Told (phase, done, total)."""

# What may be in a data folder that counts as empty: the key is put there by hand, it is in no backup.
_MAY_BE_THERE: Final = frozenset({"lock", KEY_FILE_NAME})


async def upgrade(settings: Settings, *, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> JsonObject:
    """Bring the database to this version's schema; nothing else is started.

    PostgreSQL may be in use: migrations only add, so nodes of the version before go on. SQLite has one process, which
    does it by itself when it starts: raises StoreInUseError where it runs.
    """
    url = settings.service.database_url.get_secret_value()
    if url.startswith("postgresql"):
        from mailmill.store import postgres_schema

        await postgres_schema.upgrade(url)
    else:
        database = await Database.open(url, data_dir=settings.service.data_dir, lock_wait_seconds=lock_wait_seconds)
        await database.close()
    return {"revision": HEAD}


async def adopt(settings: Settings) -> JsonObject:
    """Have a restored store collect what it does not name: its raw mail is its own from now on. ``adopted`` is false
    where it was so already. Raises StoreInUseError where a service runs in its data folder.
    """
    service = settings.service
    database = await Database.open(service.database_url.get_secret_value(), data_dir=service.data_dir)
    try:
        async with database.write() as connection:
            return {"adopted": await blob_references.adopt(connection)}
    finally:
        await database.close()


async def restore(
    settings: Settings, folder: Path, tell: Tell, *, lock_wait_seconds: float = LOCK_WAIT_SECONDS
) -> JsonObject:
    """Put a backup into the empty data folder (and, with PostgreSQL, the empty database) of the configuration.

    Everything is compared with the manifest before anything is written and again as it lies there. The database comes
    last: a restore that was cut leaves a folder that no service takes for a store. One that fails or is cancelled
    removes what it wrote. No raw mail is collected until the database is adopted (`adopt`), from the transaction or the
    file on that brings it: the segments may be those of the store that it was copied from.

    Raises InvalidRequestError for what is no backup or unfit for the configuration, ConflictError where something is
    there already, StoreError for one that is damaged.
    """
    url = settings.service.database_url.get_secret_value()
    data_dir = settings.service.data_dir
    manifest = await asyncio.to_thread(read_manifest, folder)
    _refuse_unfit(manifest, url)
    place, segments = await _place(settings)
    _refuse_other_place(manifest, place, segments)
    await asyncio.to_thread(make_private_folder, data_dir)
    lock = await lock_files([data_dir / "lock"], wait_seconds=lock_wait_seconds)
    try:
        await asyncio.to_thread(_refuse_used, data_dir, url)
        if segments is not None:
            await asyncio.to_thread(_refuse_used_segments, segments)
        if url.startswith("postgresql"):
            await postgres_dump.find_tools_to_restore()
            await _refuse_used_postgresql(url)
        await _in_thread(lambda told: putting_back.verify(folder, manifest, told), "verifying", tell)
        if not url.startswith("postgresql"):
            await asyncio.to_thread(putting_back.verify_sqlite, folder, manifest)
        written = Written()
        try:
            if url.startswith("sqlite"):
                await uncut(asyncio.to_thread(putting_back.make_room_for_sqlite, sqlite_path(url), written))
            if segments is not None:
                put_back = partial(putting_back.put_back, folder, manifest, segments, written)
                await _in_thread(put_back, "raw mail", tell)
            tell("database", 0, 0)
            if url.startswith("postgresql"):
                await _restore_postgresql(url, folder, manifest, written)
            else:
                await uncut(
                    asyncio.to_thread(putting_back.put_back_sqlite, folder, manifest, sqlite_path(url), written)
                )
        except BaseException:
            await uncut(asyncio.to_thread(written.remove))
            raise
    finally:
        lock.release()
    return {
        "folder": str(folder),
        "dataDir": str(data_dir),
        "createdAt": views.iso(manifest.created_at),
        "revision": manifest.revision,
        "segments": len(manifest.segments),
        "segmentsAt": place if segments is None else None,
        "missingSegments": len(manifest.missing),
        "bytes": manifest.size_bytes,
    }


async def _in_thread(work: Callable[[Progress], None], phase: str, tell: Tell) -> None:
    """``work`` in a thread; a cancellation ends it at its next word, and is raised when it has ended."""
    over = False

    def told(done: int, total: int) -> None:
        if over:
            raise _CutError
        tell(phase, done, total)

    working = asyncio.ensure_future(asyncio.to_thread(work, told))
    try:
        await asyncio.shield(working)
    finally:
        over = True
        await uncut(asyncio.wait((working,)))
        working.exception()  # marked as seen


class _CutError(Exception):
    """Nobody waits any more."""


async def _restore_postgresql(url: str, folder: Path, manifest: Manifest, written: Written) -> None:
    """Where it fails, and the database may have been restored all the same (its server fell silent at the COMMIT, or is
    still at it), what was ``written`` is kept: it is the database's raw mail.
    """
    then = f"{postgres_dump.of_schema(manifest.revision)};\n{blob_references.HOLD_UNTIL_ADOPTED}"
    try:
        await postgres_dump.restore(url, folder / DUMP, then=then)
    except BaseException as error:
        try:
            empty = await _is_empty_postgresql(url)
        except BaseException:  # nobody waits for the answer any more
            written.keep()
            raise
        if not empty:
            written.keep()
            if isinstance(error, StoreError):
                # In place of what it says, which is that nothing was changed.
                error.hint = (
                    "the raw mail was left where it was put: look whether the database was restored all the same, and"
                    " move the raw mail away before you try again"
                )
        raise


async def _is_empty_postgresql(url: str) -> bool:
    """And stays so; False where nobody can say."""
    from mailmill.store import postgres_schema

    try:
        return await postgres_schema.is_empty(url)
    except MailmillError:
        return False


def _refuse_unfit(manifest: Manifest, url: str) -> None:
    of_postgresql = manifest.database.name == DUMP
    if of_postgresql != url.startswith("postgresql"):
        made, wanted = ("PostgreSQL", "SQLite") if of_postgresql else ("SQLite", "PostgreSQL")
        raise InvalidRequestError(
            f"the backup is of {made}, and service.database_url names {wanted}",
            hint="restore it to what it was made of",
        )
    if manifest.revision > HEAD:
        raise InvalidRequestError(
            f"the backup has schema {manifest.revision}, this version knows {HEAD}",
            hint=f"restore it with mailmill {manifest.version} or newer",
        )


def _refuse_used(data_dir: Path, url: str) -> None:
    there = sorted(path.name for path in data_dir.iterdir() if path.name not in _MAY_BE_THERE)
    if there:
        raise ConflictError(
            f"the data folder {data_dir} is not empty: it holds {', '.join(there[:3])}{' …' if there[3:] else ''}",
            hint="a restore wants an empty one: move it away, or set service.data_dir to a new one",
        )
    if not url.startswith("sqlite"):
        return
    database = sqlite_path(url)
    if database.exists():
        raise ConflictError(f"there is a database at {database}", hint="move it away first")
    # SQLite would take what lies beside for the restored database's own, and write what is in it over that.
    partial_database = putting_back.partial_of(database)
    cut = [path for path in (partial_database, *putting_back.side_files(partial_database)) if path.exists()]
    if cut:
        raise ConflictError(
            f"{cut[0]} is left of a restore that was cut", hint=f"remove {', '.join(str(path) for path in cut)}"
        )
    for left in putting_back.side_files(database):
        if left.exists():
            raise ConflictError(
                f"{left} is left of another database",
                hint="move it to where that database went: beside the restored one it would be read as a part of it",
            )


async def _place(settings: Settings) -> tuple[str, Path | None]:
    """Where raw mail lies as configured: for people, and the folder of its segments; None in an object storage."""
    segments = segments_of(settings)
    try:
        return segments.shown, segments.folder
    finally:
        await segments.close()


def _refuse_other_place(manifest: Manifest, place: str, segments: Path | None) -> None:
    if manifest.segments_at and segments is not None:
        raise InvalidRequestError(
            f"the backup's raw mail lies at {manifest.segments_at}, and the configuration's in the folder {place}",
            hint="set service.blob_url to that place, or to a copy of it",
        )
    if not manifest.segments_at and segments is None:
        raise InvalidRequestError(
            f"the backup holds raw mail for a folder, and service.blob_url names {place}",
            hint="restore it to a folder, then copy that to the bucket: see docs/deployment.md",
        )


def _refuse_used_segments(segments: Path) -> None:
    if (segments.exists() and any(segments.iterdir())) or (segments.parent / MARKER_NAME).exists():
        raise ConflictError(
            f"the folder for raw mail {segments.parent} is in use",
            hint="a restore wants an empty one: move it away, or set service.blob_url to a new one",
        )


async def _refuse_used_postgresql(url: str) -> None:
    from mailmill.store import postgres_schema

    if (await postgres_schema.inspect(url)).revision is not None:
        raise ConflictError(
            "the database that service.database_url names is not empty",
            hint="make a new one with createdb, and name it",
        )
