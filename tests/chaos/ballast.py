"""A small disk that is filled and freed from outside, to the page, while a service uses it.

Who is not in the disk's namespace does not see it by its path; by a descriptor of its folder anybody who may does.
SQLite does not take such a path: it follows the descriptor's link, and is back outside (`sqlite_store` reads inside).
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.small_disk import SmallDisk

_NAME = "ballast"


@dataclass(slots=True)
class Ballast:
    """``seen`` is the disk's folder as this process sees it."""

    seen: Path
    _file: int = field(init=False)

    def __post_init__(self) -> None:
        self._file = os.open(self.seen / _NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    @property
    def free_bytes(self) -> int:
        disk = os.statvfs(self.seen)
        return disk.f_bavail * disk.f_frsize

    @property
    def used_bytes(self) -> int:
        """By others than the ballast."""
        disk = os.statvfs(self.seen)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize - self._bytes

    @property
    def _bytes(self) -> int:
        return os.fstat(self._file).st_size

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all but ``leave_bytes``, against whoever takes some at the same time. Blocks."""
        while (room := self.free_bytes - leave_bytes) > 0:
            try:
                os.posix_fallocate(self._file, self._bytes, room)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def give(self, free_bytes: int) -> None:
        """As much back, or all that there is of it."""
        os.ftruncate(self._file, max(0, self._bytes - free_bytes))

    def close(self) -> None:
        os.close(self._file)


@asynccontextmanager
async def ballast(disk: SmallDisk) -> AsyncIterator[Ballast]:
    # What is started is not inside at once.
    process = await asyncio.create_subprocess_exec(
        *(*disk.inside, "sh", "-c", "echo inside && read -r _"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        async with asyncio.timeout(10):
            assert await process.stdout.readline() == b"inside\n"
        folder = os.open(f"/proc/{process.pid}/root{disk.folder}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    try:
        found = Ballast(Path(f"/proc/self/fd/{folder}"))
        try:
            yield found
        finally:
            found.close()
    finally:
        os.close(folder)
