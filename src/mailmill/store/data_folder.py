"""The data folder: made private, and held by one service at a time. Blocking; called in a thread."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mailmill.errors import StorageFullError, StoreError, StoreInUseError

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


def make_private_folder(folder: Path) -> None:
    """Create ``folder`` (0700) where it is missing, and take other people's access away where it is there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise disk_error(f"cannot use the data folder {folder}", error) from error


def make_private_file(path: Path) -> None:
    """Create ``path`` empty (0600) where it is missing. SQLite gives its WAL and shm files the same mode."""
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise disk_error(f"cannot create {path}", error) from error


def disk_error(what: str, error: OSError) -> StoreError:
    """The StoreError that says ``what`` failed, and the remedy that fits ``error``."""
    message = f"{what}: {error.strerror or error}"
    if error.errno in FULL_ERRNOS:
        return StorageFullError(message, hint="free space on that disk (or raise its quota); nothing was lost")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StoreError(message, hint="make it writable for the user mailmill runs as, or set service.data_dir")
    return StoreError(message)


class FolderLock:
    """Exclusive locks on files (flock), held until `release` or until the process ends, however it ends."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Take all locks or none. Raises StoreInUseError where another process, or this one, holds any of them."""
        self._descriptors: list[int] = []
        try:
            for path in paths:
                self._take(path)
        except BaseException:
            self.release()
            raise

    def _take(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_error(f"cannot open the lock {path}", error) from error
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreInUseError(
                f"another mailmill service is using the data folder {path.parent}",
                hint="stop it first; several nodes need PostgreSQL (service.database_url) and a data folder each",
            ) from error
        except OSError as error:
            raise disk_error(f"cannot lock {path}", error) from error

    def release(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())
