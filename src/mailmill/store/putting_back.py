"""A backup put back: compared before anything is written, and again as it lies there. All of it blocks.

Laws:

* Nothing that is there is written over, and what is made is noted as it is made (`Written`): where a restore fails, all
  that it wrote is removed and nothing else, so that it can be tried again.
* The database has its name last of all: until it is there, nothing was restored. It is held from that moment on until
  it is adopted (`blob_references`).
* What a backup says of itself is no fact: its database is asked before anything is written.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from mailmill.errors import InvalidRequestError, StoreError
from mailmill.store.backup import Progress, look_into_sqlite
from mailmill.store.backup_manifest import SEGMENTS, Manifest
from mailmill.store.blob_references import HOLD_UNTIL_ADOPTED
from mailmill.store.data_folder import make_private_folder
from mailmill.store.segments import MARKER_NAME
from mailmill.store.stored_files import compare, on_disk, sync

_SIDE_FILES = ("-wal", "-shm", "-journal")
_OTHER = "use another backup"


class Written:
    """What was made, in that order."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def make_folder(self, folder: Path) -> None:
        """And those above it; 0700 each. Those that are there stay as they are."""
        lacking = [each for each in (folder, *folder.parents) if not each.is_dir()]
        for each in reversed(lacking):
            each.mkdir(mode=0o700)
            self._made.append(each)

    def make_file(self, target: Path, source: Path) -> None:
        """A copy of ``source``, 0600 and synced. Raises FileExistsError where something is there."""
        self._make_empty(target)
        shutil.copyfile(source, target)
        sync(target)

    def make_text(self, target: Path, text: str) -> None:
        """As `make_file`."""
        self._make_empty(target)
        target.write_text(text, encoding="ascii")
        sync(target)

    def note(self, path: Path) -> None:
        """What others may make on our behalf."""
        self._made.append(path)

    def give_name(self, made: Path, name: Path) -> None:
        if name.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        made.rename(name)
        self._made[self._made.index(made)] = name

    def keep(self) -> None:
        self._made.clear()

    def remove(self) -> None:
        """All of it, the last first. A folder that somebody else has put something into stays."""
        while self._made:
            path = self._made.pop()
            with suppress(OSError):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()

    def _make_empty(self, target: Path) -> None:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self._made.append(target)


def verify(folder: Path, manifest: Manifest, progress: Progress) -> None:
    """Read every file and compare it. Raises StoreError naming the first that is not what the manifest says."""
    files = (manifest.database, *manifest.segments)
    with on_disk(f"cannot read the backup {folder}"):
        for number, file in enumerate(files):
            compare(folder / file.name, file)
            progress(number + 1, len(files))


def verify_sqlite(folder: Path, manifest: Manifest) -> None:
    """Look into the database: is it whole, of the schema that the manifest says, and is all there that it names? Raises
    StoreError.
    """
    path = folder / manifest.database.name
    try:
        revision, names = look_into_sqlite(path)
    except sqlite3.Error as error:
        raise StoreError(f"{path} is damaged, or no database of mailmill's: {error}", hint=_OTHER) from error
    if revision != manifest.revision:
        raise InvalidRequestError(
            f"{path} has schema {revision}, and the manifest beside it says {manifest.revision}",
            hint=f"one of them was altered: {_OTHER}",
        )
    if manifest.segments_at:
        return
    held = {file.name.removeprefix(f"{SEGMENTS}/") for file in manifest.segments}
    lacking = sorted(names - held - set(manifest.missing))
    if lacking:
        raise StoreError(
            f"the backup lacks {len(lacking)} segments that its database names, such as {lacking[0]}", hint=_OTHER
        )


def put_back(folder: Path, manifest: Manifest, segments: Path, written: Written, progress: Progress) -> None:
    """Copy the segments of a backup to the folder ``segments``, synced and compared as they are written there."""
    made: set[Path] = set()
    with on_disk(f"cannot write the raw mail to {segments}"):
        written.make_folder(segments)
        # What is above it may be a mount, whose own mode is not ours to change.
        make_private_folder(segments)
        for number, file in enumerate(manifest.segments):
            target = segments / file.name.removeprefix(f"{SEGMENTS}/")
            if target.parent not in made:
                written.make_folder(target.parent)
                made.add(target.parent)
            written.make_file(target, folder / file.name)
            compare(target, file)
            progress(number + 1, len(manifest.segments))
        if manifest.place:
            # Else a service would ask for one of its segments to know the place by, and that one may be missing.
            written.make_text(segments.parent / MARKER_NAME, f"{manifest.place}\n")
        for parent in (*made, segments, segments.parent):
            sync(parent)


def make_room_for_sqlite(target: Path, written: Written) -> None:
    """The folder that the database goes to: before all that takes long, for it may be refused."""
    with on_disk(f"cannot make the folder of {target}"):
        written.make_folder(target.parent)


def put_back_sqlite(folder: Path, manifest: Manifest, target: Path, written: Written) -> None:
    """The database, under its name. Raises StoreError where a file lies beside that SQLite would take for its own."""
    partial = partial_of(target)
    with on_disk(f"cannot write {target}"):
        for path in (*side_files(partial), *side_files(target)):
            if path.exists():
                raise FileExistsError(errno.EEXIST, f"{path} is left of another database")
        written.make_file(partial, folder / manifest.database.name)
        for path in side_files(partial):
            written.note(path)
        compare(partial, manifest.database)
        _hold(partial)
        _look_into(partial, manifest)
        sync(partial)
        written.give_name(partial, target)
        sync(target.parent)


def partial_of(target: Path) -> Path:
    """Where the database is until it has its name."""
    return target.with_name(f"{target.name}.partial")


def side_files(database: Path) -> list[Path]:
    """What SQLite takes for a part of ``database`` where it lies beside it."""
    return [database.with_name(database.name + ending) for ending in _SIDE_FILES]


def _hold(path: Path) -> None:
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(HOLD_UNTIL_ADOPTED)
            connection.commit()
    except sqlite3.Error as error:
        raise StoreError(f"cannot write {path}: {error}", hint=f"is there room on the disk? Else {_OTHER}") from error


def _look_into(path: Path, manifest: Manifest) -> None:
    """It has been written to since it was compared."""
    try:
        revision, _names = look_into_sqlite(path)
    except sqlite3.Error as error:
        raise StoreError(f"{path} was damaged while it was written: {error}", hint="is the disk sound?") from error
    if revision != manifest.revision:
        raise StoreError(f"{path} is not what was written there", hint="does another program use that folder?")
