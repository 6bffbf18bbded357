"""Programs that this process starts, and waits for, in an event loop.

Laws:

* None is started through the loop: uvloop forks the service, runs Python in the fork and waits for it. Where another
  thread held a lock at that moment, that waits for ever; and when the service is killed, the fork lives on with its
  data folder, its ports and its transactions. `subprocess.Popen` uses vfork, unless it is asked for more than here:
  nothing is copied, and no Python runs before the program. It is called in a thread, for it waits until the program is
  loaded.
* A program leads a session of its own: killing it takes along what it started, and Ctrl-C in a terminal, and a question
  asked there, are ours alone.
* One that nobody waits for any more when it has started is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from subprocess import DEVNULL, PIPE
from typing import IO, Final

__all__ = ["DEVNULL", "PIPE", "Program", "start"]

_LOOK_SECONDS: Final = 0.01
_CHUNK_BYTES: Final = 64 * 1024


class Program:
    """One that was started. What it prints into a pipe is read by `output`, once."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def returncode(self) -> int | None:
        """None while it runs; below 0 the signal that ended it."""
        return self._process.poll()

    async def wait(self) -> int:
        """Until it has ended. May be cancelled, which does nothing to it."""
        # Nobody is told of the end of a process that the loop did not start.
        while (code := self._process.poll()) is None:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        if self._process.stdin is not None:
            self._process.stdin.close()
        return code

    async def output(self, most_bytes: int) -> tuple[bytes, bytes]:
        """All that it writes to its output and to its errors, as far as these are pipes; of each no more than
        ``most_bytes`` are kept. Waits until it, and whoever has the pipes from it, has closed them."""
        async with asyncio.TaskGroup() as reading:
            said = [
                reading.create_task(_read(pipe, most_bytes)) for pipe in (self._process.stdout, self._process.stderr)
            ]
        return said[0].result(), said[1].result()

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill it and what it started, as far as that is still in its session's group. It is still to be waited for."""
        # The group outlives its leader, so this is tried also after its end.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


async def start(
    arguments: Sequence[str],
    *,
    stdin: int = DEVNULL,
    stdout: int | None = DEVNULL,
    stderr: int | None = DEVNULL,
    environ: Mapping[str, str] | None = None,
) -> Program:
    """Start the program ``arguments[0]``, without a shell. Raises OSError, ValueError and, without a thread to start
    it from, RuntimeError.

    The streams are as `subprocess.Popen` takes them: a descriptor, which the caller may close from then on, `PIPE`,
    `DEVNULL`; None is this process's own. ``environ`` None: this process's.
    """
    given = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    own: dict[str, int] = {}
    # Taken by whoever comes first: the standard executor keeps a job for which it could start no thread.
    turn = [own]

    def run() -> subprocess.Popen[bytes]:
        streams = given | turn.pop()
        try:
            return subprocess.Popen(  # noqa: S603 - what is run is the caller's word
                list(arguments),
                stdin=streams["stdin"],
                stdout=streams["stdout"],
                stderr=streams["stderr"],
                env=None if environ is None else dict(environ),
                start_new_session=True,
            )
        finally:
            for descriptor in own.values():
                os.close(descriptor)

    try:
        # Copies: when this is cancelled the caller closes its own, and the thread may not have come to use them.
        for name, stream in given.items():
            if stream is not None and stream >= 0:
                own[name] = os.dup(stream)
        starting = asyncio.get_running_loop().run_in_executor(None, run)
    except BaseException:
        for descriptor in turn.pop().values() if turn else ():
            os.close(descriptor)
        raise
    try:
        return Program(await asyncio.shield(starting))
    except asyncio.CancelledError:
        starting.add_done_callback(_discard)
        raise


def _discard(starting: asyncio.Future[subprocess.Popen[bytes]]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        process = starting.result()
        Program(process).kill()
        threading.Thread(target=_forget, args=(process,), daemon=True).start()


def _forget(process: subprocess.Popen[bytes]) -> None:
    with process:  # closes its pipes, and waits
        pass


async def _read(pipe: IO[bytes] | None, most_bytes: int) -> bytes:
    if pipe is None:
        return b""
    reader = asyncio.StreamReader()
    transport, _protocol = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    kept = bytearray()
    try:
        while some := await reader.read(_CHUNK_BYTES):
            kept += some[: most_bytes - len(kept)]
    finally:
        transport.close()
    return bytes(kept)
