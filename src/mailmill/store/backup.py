"""A backup: one folder with the database as of one moment, the segments that it names, and a manifest over both.

::

    FOLDER/manifest.json            what is in it, with the SHA-256 of each file; written last (`backup_manifest`)
    FOLDER/mailmill.db              SQLite: the whole database, one file
    FOLDER/postgresql.dump          PostgreSQL: what pg_dump made (`postgres_dump`)
    FOLDER/segments/ab/….seg        the raw mail, as in the data folder

Laws:

* The database first, the segments after it: a segment is never written again, and none that the copy names can go
  meanwhile (`blob_references.hold`). So what is copied later is what was there then.
* SQLite is read through a connection of its own that cannot write (``mode=ro``), within one transaction: it sees one
  snapshot however long it takes, and never checkpoints.
* A segment that is gone is told in the manifest, and the backup goes on.
* A folder has its name only when all of it is synced; until then it is called ``….partial``.
* The master key is never in it: who finds a backup must not find the key beside what it seals.

Everything here blocks; it is called in threads.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from mailmill.errors import InvalidRequestError, StoreError
from mailmill.store.backup_manifest import SEGMENTS, Manifest, is_place, write_manifest
from mailmill.store.data_folder import disk_error, make_private_folder
from mailmill.store.segments import MARKER_NAME
from mailmill.store.stored_files import StoredFile, described, on_disk, sync

_PAGES_AT_ONCE = 2000

Progress = Callable[[int, int], None]
"""Told (done, total), in pages or files."""


def begin(folder: Path) -> Path:
    """The folder to fill; `finish` gives it its name. Raises InvalidRequestError where ``folder`` is there already."""
    if folder.exists():
        raise InvalidRequestError(f"{folder} is there already", hint="a backup makes its own folder: name a new one")
    with on_disk(f"cannot write the backup to {folder}"):
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
    """The revision of a database file that nobody uses, and the segments it names. Raises sqlite3.Error where it is
    damaged or no database of ours.
    """
    # Immutable: what may lie beside it (a journal) is no part of it, and nothing is written there.
    with closing(sqlite3.connect(f"{_read_only(path)}&immutable=1", uri=True)) as connection:
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
        if problems != ["ok"]:
            raise sqlite3.DatabaseError("; ".join(problems))
        revisions = [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]
        names = {row[0] for row in connection.execute("SELECT DISTINCT segment FROM blob")}
    if len(revisions) != 1 or not all(isinstance(each, str) for each in (*revisions, *names)):
        raise sqlite3.DatabaseError("it is not as mailmill writes it")
    return revisions[0], names


def copy_segments(
    source: Path, names: Collection[str], partial: Path, progress: Progress
) -> tuple[list[StoredFile], list[str]]:
    """The segments ``names`` of the folder ``source``, linked where that can be and else copied; synced. And the names
    of those that are not there: what is left of a store is worth a backup more than ever.

    A link is as good as a copy against all but the loss of the disk, since a segment is never written again.
    """
    folder = partial / SEGMENTS
    stored: list[StoredFile] = []
    missing: list[str] = []
    made: set[Path] = set()
    make_private_folder(folder)
    with on_disk(f"cannot copy the raw mail to {folder}"):
        for number, name in enumerate(sorted(names)):
            target = folder / name
            if target.parent not in made:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                made.add(target.parent)
            if _link_or_copy(source / name, target):
                stored.append(described(target, f"{SEGMENTS}/{name}"))
            else:
                missing.append(name)
            progress(number + 1, len(names))
        for parent in (*made, folder):
            sync(parent)
    return stored, missing


def came_back(source: Path, missing: Collection[str]) -> str | None:
    """One of the segments ``missing`` of the folder ``source`` that is there by now."""
    with on_disk(f"cannot read {source}"):
        return next((name for name in missing if (source / name).exists()), None)


def read_place(segments: Path) -> str:
    """What is said beside the folder ``segments`` of whose it is (`blob_marker`); empty where nothing is, or something
    that no manifest can hold.
    """
    with on_disk(f"cannot read {segments.parent / MARKER_NAME}"):
        try:
            said = (segments.parent / MARKER_NAME).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return ""
    return said if is_place(said) else ""


def finish(partial: Path, folder: Path, manifest: Manifest) -> None:
    """Write the manifest and give the folder its name."""
    with on_disk(f"cannot write the backup to {folder}"):
        write_manifest(partial, manifest)
        sync(partial)
        partial.rename(folder)
        sync(folder.parent)


# -- pieces -----------------------------------------------------------------------------------------------------------


def _read_only(path: Path) -> str:
    return f"file:{quote(str(path))}?mode=ro"


def _link_or_copy(source: Path, target: Path) -> bool:
    """False where there is no ``source``."""
    try:
        os.link(source, target)
    except OSError:
        # Another disk, or a file system without links.
        if not source.exists():
            return False
        shutil.copyfile(source, target)
        target.chmod(0o600)
    return True
