"""A folder on a disk as small as a test wants it, for whoever runs the tests: a tmpfs in namespaces of its own.

Only what runs `inside` sees the disk; to everybody else the folder stays as it was.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

_SOURCE = "mailmill-test"
# Who makes a user namespace is root in it, and may mount there.
_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def possible() -> bool:
    """Whether this machine lets its users have namespaces (some containers and distributions do not). Blocks."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    mounting = subprocess.run((*_UNSHARE, "mount", "-t", "tmpfs", "probe", "/mnt"), capture_output=True, check=False)
    return mounting.returncode == 0


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """``inside`` is put before a command that is to see the disk."""

    folder: Path
    inside: Sequence[str]

    async def resize(self, size: str) -> None:
        """``size`` as tmpfs takes it: ``64m``."""
        # With the source named, mount takes over no options: the owner that it would read has no name in the namespace.
        await _run(*self.inside, "mount", "-o", f"remount,size={size}", _SOURCE, str(self.folder))


@asynccontextmanager
async def small_disk(folder: Path, size: str) -> AsyncIterator[SmallDisk]:
    """``folder`` holds nothing and ``size`` at most, for the length of the block."""
    holder = await asyncio.create_subprocess_exec(
        *_UNSHARE,
        *("sh", "-c", f'mount -t tmpfs -o "size=$1" {_SOURCE} "$0" && echo mounted && read -r _', folder, size),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert holder.stdin is not None
        assert holder.stdout is not None
        async with asyncio.timeout(10):
            assert await holder.stdout.readline() == b"mounted\n"
        enter = ("nsenter", f"--target={holder.pid}", "--user", "--preserve-credentials", "--mount")
        yield SmallDisk(folder, enter)
        holder.stdin.close()
    finally:
        if holder.returncode is None:
            holder.kill()
        await holder.wait()


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0, command
