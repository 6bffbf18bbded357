"""The store as a whole: is it sound, and a copy of it. The use cases behind ``mailmill db check`` and ``db backup``.

Both run while the service does. What starts without one (``db upgrade``, ``db restore``) is in `restoring`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import text

from mailmill.app import views
from mailmill.errors import ConflictError, InvalidRequestError, StorageUnavailableError, StoreError
from mailmill.store import backup, blob_references, doors, integrity, message_counts, postgres_dump
from mailmill.store.backup_manifest import DATABASE, DUMP, Manifest
from mailmill.store.integrity import Finding
from mailmill.store.segments import BlobRef
from mailmill.store.sqlite_database import sqlite_path
from mailmill.store.stored_files import StoredFile, described, on_disk

if TYPE_CHECKING:
    from mailmill.app.application import Application

JsonObject = dict[str, Any]

_Result = TypeVar("_Result")

# Read once: it lies on the disk.
_VERSION: Final = version("mailmill")
# Raw mail held in memory at a time.
_BATCH_BYTES: Final = 16 << 20
_BLOBS_AT_ONCE: Final = 500
_SHOWN: Final = 5
# How often a backup says that it runs.
_HOLD_AGAIN_SECONDS: Final = 60.0


@dataclass(slots=True)
class Progress:
    """How far a task is. Written by it, threads of its own included; read by whoever asks."""

    task: str
    phase: str = ""
    done: int = 0
    total: int = 0

    def begin(self, phase: str, total: int = 0) -> None:
        self.phase, self.done, self.total = phase, 0, total

    def tell(self, done: int, total: int) -> None:
        self.done, self.total = done, total


class Maintenance:
    """One per application; one task at a time."""

    def __init__(self, application: Application) -> None:
        self._app = application
        self._running: Progress | None = None

    def state(self) -> JsonObject:
        """``{"running": null}``, or how far the task that runs is."""
        running = self._running
        if running is None:
            return {"running": None}
        return {
            "running": {
                "task": running.task,
                "phase": running.phase,
                "done": running.done,
                "total": running.total,
            }
        }

    async def check(self, *, full: bool) -> JsonObject:
        """Look for what is broken; with ``full`` also at every byte of raw mail. Nothing is changed."""
        return await self._alone("check", lambda progress: self._check(progress, full=full))

    async def backup(self, folder: str) -> JsonObject:
        """Make the backup ``folder``, an absolute path on this machine that is not there yet. Raises
        InvalidRequestError for one that cannot be, StoreError where the store cannot be read.
        """
        target = Path(folder)
        if not target.is_absolute():
            raise InvalidRequestError(f"not an absolute path: {folder!r}")
        return await self._alone("backup", lambda progress: self._backup(progress, target))

    async def _alone(self, task: str, work: Callable[[Progress], Awaitable[_Result]]) -> _Result:
        if self._running is not None:
            raise ConflictError(f"a {self._running.task} is running", hint="wait for its end: one at a time")
        self._running = progress = Progress(task)
        try:
            return await work(progress)
        finally:
            self._running = None

    # -- check --------------------------------------------------------------------------------------------------------

    async def _check(self, progress: Progress, *, full: bool) -> JsonObject:
        began = time.monotonic()
        findings: list[Finding] = []
        async with self._app.database.read() as connection:
            to_do = integrity.database_checks(connection)
        checks = [check.name for check in to_do]
        for number, check in enumerate(to_do):
            progress.begin(check.name, len(to_do))
            progress.done = number
            async with doors.read_unhurried(self._app.database) as connection:
                finding = await check.run(connection)
            if finding is not None:
                findings.append(finding)
        async with doors.read_unhurried(self._app.database) as connection:
            ends = await integrity.segment_ends(connection)
        checks.append("segments")
        findings += await self._segments(progress, ends)
        read = 0
        if full:
            checks.append("contents")
            damaged, read = await self._contents(progress)
            findings += damaged
        return {
            "ok": not findings,
            "full": full,
            "checks": checks,
            "segments": len(ends),
            "blobsRead": read,
            "findings": [
                {"check": each.check, "count": each.count, "detail": each.detail, "hint": each.hint}
                for each in findings
            ],
            "seconds": round(time.monotonic() - began, 6),
        }

    async def _segments(self, progress: Progress, ends: dict[str, int]) -> list[Finding]:
        """Segments that are not there, or end before what lies in them does."""
        progress.begin("segments", len(ends))
        faults: list[str] = []
        for number, (segment, end) in enumerate(sorted(ends.items())):
            progress.done = number
            fault = ""
            try:
                if len(await self._app.blobs.read_raw(segment, max(end - 1, 0), 1)) < min(end, 1):
                    fault = "is cut short"
            except StorageUnavailableError:
                raise
            except StoreError:
                fault = "is missing"
            if fault and await self._is_named(segment):
                faults.append(f"{segment} {fault}")
        return [_finding("segments", faults)] if faults else []

    async def _contents(self, progress: Progress) -> tuple[list[Finding], int]:
        """Raw mail that is not what its hash says."""
        progress.begin("contents", await self._count_blobs())
        faults: list[str] = []
        after: BlobRef | None = None
        while True:
            async with self._app.database.read() as connection:
                refs = await integrity.blobs_after(connection, after, _BLOBS_AT_ONCE)
            batch: list[BlobRef] = []
            for ref in refs:
                batch.append(ref)
                if sum(each.size_bytes for each in batch) >= _BATCH_BYTES:
                    faults += await self._damaged(batch)
                    batch = []
            faults += await self._damaged(batch)
            progress.done += len(refs)
            if len(refs) < _BLOBS_AT_ONCE:
                return [_finding("contents", faults)] if faults else [], progress.done
            after = refs[-1]

    async def _damaged(self, refs: list[BlobRef]) -> list[str]:
        blobs = self._app.blobs
        try:
            await blobs.get_many(refs)
        except StorageUnavailableError:
            raise
        except StoreError:
            if len(refs) == 1:
                return [f"{refs[0].sha256.hex()[:16]}… in {refs[0].segment}"]
            # Which of them: by halves, for one damaged message stands among hundreds that are well.
            half = len(refs) // 2
            return [*await self._damaged(refs[:half]), *await self._damaged(refs[half:])]
        return []

    async def _count_blobs(self) -> int:
        async with self._app.database.read() as connection:
            count: int = (await connection.execute(text("SELECT count(*) FROM blob"))).scalar_one()
        return count

    async def _is_named(self, segment: str) -> bool:
        """Still: it may have been collected since it was listed."""
        async with self._app.database.read() as connection:
            return segment in await integrity.segment_ends(connection)

    # -- backup -------------------------------------------------------------------------------------------------------

    async def _backup(self, progress: Progress, folder: Path) -> JsonObject:
        began = time.monotonic()
        created_at = time.time()
        await self._hold()
        holding = asyncio.create_task(self._keep_holding())
        partial: Path | None = None
        try:
            partial = await asyncio.to_thread(backup.begin, folder)
            revision, names, database = await self._database(progress, partial)
            segments_folder = self._app.blobs.segments_folder
            stored: list[StoredFile] = []
            missing: list[str] = []
            if segments_folder is not None:
                progress.begin("raw mail", len(names))
                stored, missing = await asyncio.to_thread(
                    backup.copy_segments, segments_folder, names, partial, progress.tell
                )
            incomplete = await self._without_raw(segments_folder, missing)
            manifest = Manifest(
                version=_VERSION,
                revision=revision,
                created_at=created_at,
                database=database,
                segments=tuple(stored),
                segments_at="" if segments_folder is not None else self._app.blobs.shown,
                missing=tuple(missing),
                place="" if segments_folder is None else await asyncio.to_thread(backup.read_place, segments_folder),
            )
            await asyncio.to_thread(backup.finish, partial, folder, manifest)
        except Exception:
            if partial is not None:
                await asyncio.to_thread(backup.discard, partial)
            raise
        finally:
            holding.cancel()
        return {
            "folder": str(folder),
            "createdAt": views.iso(created_at),
            "revision": revision,
            "segments": len(stored),
            "segmentsAt": manifest.segments_at or None,
            "missingSegments": len(missing),
            "messagesWithoutRaw": incomplete,
            "bytes": manifest.size_bytes,
            "seconds": round(time.monotonic() - began, 6),
        }

    async def _without_raw(self, folder: Path | None, missing: list[str]) -> int:
        """How many messages lack their bytes where these segments of ``folder`` are gone. Raises StoreError where it is
        the place that is, or was: without its mount nothing is lost, and a backup without raw mail would pass for one.
        """
        if folder is None or not missing:
            return 0
        await self._app.blobs.prove_anew()
        # After the proof: what is not there then is not there while the place is.
        if (found := await asyncio.to_thread(backup.came_back, folder, missing)) is not None:
            raise StorageUnavailableError(
                f"{folder} was away while its raw mail was copied: {found} was missing, and is there again",
                hint="look whether its mount stays, and make the backup again",
            )
        async with doors.read_unhurried(self._app.database) as connection:
            return await message_counts.count_messages_in(connection, missing)

    async def _database(self, progress: Progress, partial: Path) -> tuple[str, set[str], StoredFile]:
        url = self._app.settings.service.database_url.get_secret_value()
        progress.begin("database")
        if url.startswith("sqlite"):
            target = partial / DATABASE
            revision, names = await asyncio.to_thread(backup.copy_sqlite, sqlite_path(url), target, progress.tell)
            return revision, names, await asyncio.to_thread(_described, target)
        before, named_before = await self._named()
        target = partial / DUMP
        # Not through a pooler: pg_dump wants a session.
        direct = self._app.settings.service.listen_url
        await postgres_dump.dump(direct.get_secret_value() if direct is not None else url, target)
        # Also after the dump: under the hold nothing that it names can be collected, and what is newer does no harm.
        revision, names = await self._named()
        if revision != before:
            raise StoreError(
                f"the database was brought from schema {before} to {revision} while it was copied",
                hint="make the backup again",
            )
        return revision, names | named_before, await asyncio.to_thread(_described, target)

    async def _named(self) -> tuple[str, set[str]]:
        """The schema's revision, and the segments that the database names."""
        async with self._app.database.read() as connection:
            revision: str = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one()
            return revision, await message_counts.referenced_segments(connection)

    async def _hold(self) -> None:
        async with self._app.database.write() as connection:
            await blob_references.hold(connection, blob_references.HOLD_SECONDS)

    async def _keep_holding(self) -> None:
        while True:
            await asyncio.sleep(_HOLD_AGAIN_SECONDS)
            with contextlib.suppress(StoreError):  # there are several tries before the hold ends
                await self._hold()


def _described(path: Path) -> StoredFile:
    with on_disk(f"cannot read {path}"):
        return described(path, path.name)


def _finding(check: str, faults: list[str]) -> Finding:
    shown = "; ".join(faults[:_SHOWN]) + (" …" if len(faults) > _SHOWN else "")
    return Finding(check, len(faults), shown, integrity.FETCH_AGAIN)
