"""Large literals to disk, off the loop, and never faster than the disk takes them.

Chunks come from the framer on the loop and are written by one thread job at a time for each file, in order. More than
`_HIGH_WATER_BYTES` waiting pauses the reading of the connection until the disk has caught up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from mailmill.errors import StorageFullError, StoreError

_HIGH_WATER_BYTES = 4 * 1024 * 1024
_LOW_WATER_BYTES = 1024 * 1024


class SpoolFile:
    """One literal on its way to ``folder``; sink and, once finished, value (`LiteralSink`, `Spooled`).

    ``await ready()`` gives the file, which is then the caller's; until then `discard` removes it. ``on_pressure`` is
    called with True when reading should pause, and with False when it may go on.
    """

    def __init__(self, folder: Path, size_bytes: int, on_pressure: Callable[[bool], None]) -> None:
        self.size_bytes = size_bytes
        self.path = folder / f"literal-{secrets.token_hex(16)}"
        self._on_pressure = on_pressure
        self._loop = asyncio.get_running_loop()
        self._chunks: list[bytes] = []
        self._waiting_bytes = 0
        self._pressed = False
        self._job: asyncio.Future[None] | None = None
        self._error: OSError | None = None
        self._unwanted = False
        self._created = False
        self._done: asyncio.Future[None] | None = None

    # -- the framer's side ---------------------------------------------------------------------------------------------

    def write(self, chunk: bytes) -> None:
        if self._unwanted or self._error is not None:
            return
        self._chunks.append(chunk)
        self._waiting_bytes += len(chunk)
        self._start_job()
        if self._waiting_bytes > _HIGH_WATER_BYTES and not self._pressed:
            self._pressed = True
            self._on_pressure(True)

    def finish(self) -> SpoolFile:
        return self

    def abort(self) -> None:
        self.discard()

    # -- the consumer's side -------------------------------------------------------------------------------------------

    async def ready(self) -> Path:
        """The file, when all of it is written. Raises StorageFullError, or StoreError where the disk failed."""
        while self._job is not None:
            if self._done is None:
                self._done = self._loop.create_future()
            await self._done
        if self._error is not None:
            self.discard()
            if self._error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFullError(
                    f"no space left for a message in {self.path.parent}", hint="free disk space; nothing was lost"
                ) from self._error
            raise StoreError(f"cannot write to {self.path.parent}: {self._error.strerror}") from self._error
        return self.path

    def discard(self) -> None:
        """Remove the file, now or as soon as the thread has left it."""
        if self._unwanted:
            return
        self._unwanted = True
        self._chunks.clear()
        if self._job is None and self._created:
            self._start_job()

    # -- the thread's side ---------------------------------------------------------------------------------------------

    def _start_job(self) -> None:
        if self._job is not None:
            return
        chunks, self._chunks = self._chunks, []
        first = not self._created
        work = self._remove if self._unwanted else lambda: self._append(chunks, make_folder=first)
        try:
            job = self._loop.run_in_executor(None, work)
        except RuntimeError:
            # The loop is shutting down and takes no more work: all that is left to do is to leave nothing behind.
            if self._unwanted:
                self._remove()
            return
        self._created = not self._unwanted
        self._job = job
        job.add_done_callback(lambda done: self._job_done(done, sum(map(len, chunks))))

    def _job_done(self, job: asyncio.Future[None], written_bytes: int) -> None:
        self._job = None
        self._waiting_bytes -= written_bytes
        error = None if job.cancelled() else job.exception()
        if isinstance(error, OSError):
            self._error = error
            self._chunks.clear()
            self._waiting_bytes = 0
        if self._pressed and self._waiting_bytes <= _LOW_WATER_BYTES:
            self._pressed = False
            self._on_pressure(False)
        if (self._chunks and not self._unwanted) or (self._unwanted and self._created):
            self._start_job()
        elif self._done is not None and not self._done.done():
            self._done.set_result(None)
            self._done = None

    def _append(self, chunks: list[bytes], *, make_folder: bool) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if make_folder:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, flags, 0o600)
        with open(descriptor, "ab", buffering=0) as file:  # noqa: PTH123 - by descriptor, so that the mode is ours
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
