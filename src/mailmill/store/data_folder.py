"""The data folder: made private, and held by one process at a time. All but `lock_files` blocks: called in a thread."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from mailmill.errors import StorageFullError, StoreError, StoreInUseError

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
LOCK_WAIT_SECONDS: Final = 5.0
"""How long to wait where the folder is held: a command has it for a moment, and so does a service that ends."""

_LOCK_POLL_SECONDS: Final = 0.05


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

    def __init__(self, paths: Sequence[Path]) -> None:
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
                f"another mailmill service, or a command, is using the data folder {path.parent}",
                hint="stop it first, or let it end; "
                "several nodes need PostgreSQL (service.database_url) and a data folder each",
            ) from error
        except OSError as error:
            raise disk_error(f"cannot lock {path}", error) from error

    def release(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


async def lock_files(paths: Sequence[Path], *, wait_seconds: float = LOCK_WAIT_SECONDS) -> FolderLock:
    """`FolderLock`, tried again for ``wait_seconds`` while another process holds any of them: then StoreInUseError."""
    # Asked for again and again: a flock that waits cannot be given up, neither at a deadline nor when we are cancelled.
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_seconds
    while True:
        try:
            return await asyncio.to_thread(FolderLock, paths)
        except StoreInUseError:
            left = until - loop.time()
            if left <= 0:
                raise
        await asyncio.sleep(min(left, _LOCK_POLL_SECONDS))
