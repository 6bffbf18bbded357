"""A backup: one folder with the database as of one moment, the segments that it names, and a manifest over both.

::

    FOLDER/manifest.json            what is in it, with the SHA-256 of each file; written last
    FOLDER/mailmill.db              SQLite: the whole database, one file
    FOLDER/postgresql.dump          PostgreSQL: what pg_dump made (`postgres_dump`)
    FOLDER/segments/ab/….seg        the raw mail, as in the data folder

Laws:

* The database first, the segments after it: a segment is never written again, and none that the copy names can go
  meanwhile (`blob_references.hold`). So what is copied later is what was there then.
* SQLite is read through a connection of its own that cannot write (``mode=ro``), within one transaction: it sees one
  snapshot however long it takes, and never checkpoints.
* A folder has its name only when all of it is synced; until then it is called ``….partial``.
* The master key is never in it: who finds a backup must not find the key beside what it seals.

Everything here blocks; it is called in threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from mailmill.errors import InvalidRequestError, StoreError
from mailmill.store.blob_references import HOLD_UNTIL_ADOPTED
from mailmill.store.data_folder import disk_error, make_private_folder

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DATABASE: Final = "mailmill.db"
DUMP: Final = "postgresql.dump"
SEGMENTS: Final = "segments"

_PAGES_AT_ONCE = 2000
_PIECE_BYTES = 1024 * 1024

Progress = Callable[[int, int], None]
"""Told (done, total), in pages or files."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a backup. ``name`` is its path in it."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself. ``segments_at``: where the segments are, of a store whose raw mail is in an object
    storage and so not in the backup; else empty.
    """

    version: str
    revision: str
    created_at: float
    database: StoredFile
    segments: tuple[StoredFile, ...]
    segments_at: str = ""

    @property
    def size_bytes(self) -> int:
        return self.database.size_bytes + sum(segment.size_bytes for segment in self.segments)


def begin(folder: Path) -> Path:
    """The folder to fill; `finish` gives it its name. Raises InvalidRequestError where ``folder`` is there already."""
    if folder.exists():
        raise InvalidRequestError(f"{folder} is there already", hint="a backup makes its own folder: name a new one")
    with _on_disk(f"cannot write the backup to {folder}"):
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A name of its own: another process may be making the same backup.
        return Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))


def discard(partial: Path) -> None:
    """Remove what `begin` made, and no other's."""
    shutil.rmtree(partial, ignore_errors=True)


def copy_sqlite(source: Path, target: Path, progress: Progress) -> tuple[str, set[str]]:
    """One moment of ``source`` as the file ``target``; its revision and the segments it names.

    Raises StoreError where the source cannot be read, or the copy is not whole.
    """
    try:
        with closing(sqlite3.connect(_read_only(source), uri=True)) as reading:
            # Held from here on: else each write of the service between two steps would begin the copy anew.
            reading.execute("BEGIN")
            reading.execute("SELECT 1 FROM alembic_version").fetchone()
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(target)) as writing:
                reading.backup(
                    writing, pages=_PAGES_AT_ONCE, progress=lambda _status, left, total: progress(total - left, total)
                )
                # One file, nothing beside it, also when it is looked at.
                writing.execute("PRAGMA journal_mode=DELETE")
        return look_into_sqlite(target)
    except sqlite3.Error as error:
        raise StoreError(f"the database cannot be copied: {error}", hint="mailmill db check says more") from error
    except OSError as error:
        raise disk_error(f"cannot write {target}", error) from error


def look_into_sqlite(path: Path) -> tuple[str, set[str]]:
    """The revision of a database file that nobody uses, and the segments it names. Raises StoreError where it is
    damaged.
    """
    with closing(sqlite3.connect(_read_only(path), uri=True)) as connection:
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
        if problems != ["ok"]:
            raise StoreError(f"{path} is damaged: {'; '.join(problems)}", hint="use another backup")
        revision: str = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
        return revision, {row[0] for row in connection.execute("SELECT DISTINCT segment FROM blob")}


def copy_segments(source: Path, names: Collection[str], partial: Path, progress: Progress) -> list[StoredFile]:
    """The segments ``names`` of the folder ``source``, linked where that can be and else copied; synced.

    A link is as good as a copy against all but the loss of the disk, since a segment is never written again.
    """
    folder = partial / SEGMENTS
    stored: list[StoredFile] = []
    made: set[Path] = set()
    make_private_folder(folder)
    with _on_disk(f"cannot copy the raw mail to {folder}"):
        for number, name in enumerate(sorted(names)):
            target = folder / name
            if target.parent not in made:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                made.add(target.parent)
            _link_or_copy(source / name, target)
            stored.append(_described(target, f"{SEGMENTS}/{name}"))
            progress(number + 1, len(names))
        for parent in made:
            _sync(parent)
    return stored


def described(path: Path, name: str) -> StoredFile:
    """A file that was written by others, read back and synced."""
    with _on_disk(f"cannot read {path}"):
        return _described(path, name)


def finish(partial: Path, folder: Path, manifest: Manifest) -> None:
    """Write the manifest and give the folder its name."""
    with _on_disk(f"cannot write the backup to {folder}"):
        (partial / MANIFEST).write_text(_dumped(manifest), encoding="utf-8")
        (partial / MANIFEST).chmod(0o600)
        _sync(partial / MANIFEST)
        _sync(partial)
        partial.rename(folder)
        _sync(folder.parent)


# -- restoring --------------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> Manifest:
    """Raises InvalidRequestError where ``folder`` holds no whole backup that this version can read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise InvalidRequestError(
                f"the backup {folder} has the format {found['format']}", hint="it was made by a newer mailmill"
            )
        return Manifest(
            version=found["version"],
            revision=found["revision"],
            created_at=found["createdAt"],
            database=_file(found["database"]),
            segments=tuple(_file(each) for each in found["segments"]),
            segments_at=found["segmentsAt"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequestError(
            f"{folder} holds no backup, or not all of it",
            hint=f"a whole one has a {MANIFEST}; what ends in .partial was cut while it was made",
        ) from error


def verify(folder: Path, manifest: Manifest, progress: Progress) -> None:
    """Read every file and compare it. Raises StoreError naming the first that is not what the manifest says."""
    files = (manifest.database, *manifest.segments)
    for number, file in enumerate(files):
        _compare(folder / file.name, file)
        progress(number + 1, len(files))


def put_back(folder: Path, manifest: Manifest, segments: Path, progress: Progress) -> None:
    """Copy the segments of a backup to the folder ``segments``, synced and compared as they are written there."""
    made: set[Path] = set()
    with _on_disk(f"cannot write the raw mail to {segments}"):
        # It may be a mount, whose own mode is not ours to change.
        segments.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private_folder(segments)
        for number, file in enumerate(manifest.segments):
            target = segments / file.name.removeprefix(f"{SEGMENTS}/")
            if target.parent not in made:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                made.add(target.parent)
            shutil.copyfile(folder / file.name, target)
            target.chmod(0o600)
            _sync(target)
            _compare(target, file)
            progress(number + 1, len(manifest.segments))
        for parent in (*made, *({segments, segments.parent} if made else ())):
            _sync(parent)


def put_back_sqlite(folder: Path, manifest: Manifest, target: Path, segments: Path | None) -> None:
    """The database under its name, last of all: until it is there, nothing was restored. It is held until it is adopted
    (`blob_references`). ``segments``: the folder where its raw mail lies by now; None where that is in no folder.
    """
    partial = target.with_name(f"{target.name}.partial")
    with _on_disk(f"cannot write {target}"):
        shutil.copyfile(folder / manifest.database.name, partial)
        partial.chmod(0o600)
        _sync(partial)
        _compare(partial, manifest.database)
        _revision, names = look_into_sqlite(partial)
        if segments is not None:
            missing = [name for name in sorted(names) if not (segments / name).exists()]
            if missing:
                raise StoreError(
                    f"the backup lacks {len(missing)} segments that its database names, such as {missing[0]}",
                    hint="use another backup",
                )
        _hold(partial)
        _sync(partial)
        partial.rename(target)
        _sync(target.parent)


# -- pieces -----------------------------------------------------------------------------------------------------------


def _hold(path: Path) -> None:
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(HOLD_UNTIL_ADOPTED)
            connection.commit()
    except sqlite3.Error as error:
        raise StoreError(f"cannot write {path}: {error}", hint="is there room on the disk?") from error


def _read_only(path: Path) -> str:
    return f"file:{quote(str(path))}?mode=ro"


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise StoreError(
                f"segment {source} is not there, and the database names it", hint="mailmill db check"
            ) from error
        # Another disk, or a file system without links.
        shutil.copyfile(source, target)
        target.chmod(0o600)


def _described(path: Path, name: str) -> StoredFile:
    size, digest = _hash(path)
    _sync(path)
    return StoredFile(name, size, digest)


def _compare(path: Path, file: StoredFile) -> None:
    try:
        size, digest = _hash(path)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", hint="use another backup") from None
    if (size, digest) != (file.size_bytes, file.sha256):
        raise StoreError(f"{path} is not what was backed up", hint="use another backup")


def _hash(path: Path) -> tuple[int, str]:
    hasher = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            hasher.update(piece)
            size += len(piece)
    return size, hasher.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file(found: Mapping[str, Any]) -> StoredFile:
    name = str(found["name"])
    if name.startswith("/") or ".." in Path(name).parts:
        raise ValueError(name)
    return StoredFile(name, int(found["bytes"]), str(found["sha256"]))


def _dumped(manifest: Manifest) -> str:
    def shown(file: StoredFile) -> dict[str, Any]:
        return {"name": file.name, "bytes": file.size_bytes, "sha256": file.sha256}

    return json.dumps(
        {
            "format": FORMAT,
            "version": manifest.version,
            "revision": manifest.revision,
            "createdAt": manifest.created_at,
            "database": shown(manifest.database),
            "segmentsAt": manifest.segments_at,
            "segments": [shown(each) for each in manifest.segments],
        },
        indent=1,
    )


@contextmanager
def _on_disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(what, error) from error
