"""Child processes for CPU-heavy processors: spawned, never forked, one job at a time each.

Laws: a child is free, at work, or killed; one whose exchange was cut (timeout, cancellation, broken frame) is killed,
never reused; another is started for the next job. A child leads a process group of its own, so that killing it takes
along what it started, and Ctrl-C in a terminal reaches the service alone. None is started through the loop: uvloop
forks the service, runs Python in the fork and waits for it. Where another thread held a lock at that moment, that waits
for ever; and when the service is killed, the fork lives on with its data folder, its ports and its transactions.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from mailmill.errors import ProcessorError
from mailmill.processing.child import LENGTH
from mailmill.processing.failures import too_slow

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailmill.processing.registry import Context

START_SECONDS: Final = 30.0
_REAP_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.01
_MAX_ANSWER_BYTES: Final = 16 << 20
_PICKLE_IN_THREAD_BYTES: Final = 256 << 10


class Children:
    """Up to ``size`` children, started when needed and kept warm. Belongs to one event loop."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size or os.cpu_count() or 1
        self._places = asyncio.Semaphore(self.size)
        self._free: list[_Child] = []
        self._all: set[_Child] = set()
        self._closed = False

    async def run(
        self,
        function: Callable[..., Any],
        message: Any,
        context: Context,
        *,
        timeout_seconds: float,
        memory_bytes: int | None = None,
        size_bytes: int = 0,
    ) -> str:
        """The JSON text of ``function(message, context)``, timed from when a child is free; raw bytes are parsed there.

        Raises ProcessorError: for what it raised, for one that took too long (it was killed) or wanted more memory
        than it may, for a child that died.
        """
        job = (pickle.dumps(function), message, context, memory_bytes)
        if size_bytes > _PICKLE_IN_THREAD_BYTES:
            frame = await asyncio.to_thread(pickle.dumps, job, pickle.HIGHEST_PROTOCOL)
        else:
            frame = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
        async with self._places:
            child = await self._take()
            try:
                async with asyncio.timeout(timeout_seconds):
                    answer = await child.exchange(frame)
            except TimeoutError as error:
                await self._kill(child)
                raise too_slow(timeout_seconds) from error
            except BaseException:
                await self._kill(child)
                raise
            if self._closed or answer.get("exhausted"):
                await self._kill(child)
            else:
                self._free.append(child)
        if "value" in answer:
            return str(answer["value"])
        raise ProcessorError(str(answer.get("error", "")), permanent=bool(answer.get("permanent")))

    async def close(self) -> None:
        """Kill all children, and start none any more. Takes ``_REAP_SECONDS`` at most, however many there are."""
        self._closed = True
        self._free.clear()
        await asyncio.gather(*(self._kill(child) for child in list(self._all)))

    async def _take(self) -> _Child:
        self._refuse_if_closed()
        while self._free:
            child = self._free.pop()
            if child.alive:
                return child
            await self._kill(child)
        child = _Child()
        self._all.add(child)
        try:
            await child.start()
            self._refuse_if_closed()
        except BaseException:
            await self._kill(child)
            raise
        return child

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ProcessorError("the child processes have been closed")

    async def _kill(self, child: _Child) -> None:
        self._all.discard(child)
        await child.kill()


class _Child:
    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: asyncio.StreamReader | None = None
        self._commands: asyncio.StreamWriter | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                ours, theirs = socket.socketpair()
                try:
                    self._process = await _spawned(theirs)
                    self._answers, self._commands = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
                except BaseException:
                    ours.close()
                    raise
                await self.exchange(pickle.dumps(list(sys.path)))
        except TimeoutError as error:
            raise ProcessorError(f"no child process was ready within {START_SECONDS:.0f} s") from error
        except OSError as error:
            raise ProcessorError(f"no child process could be started: {error.strerror}") from error

    async def exchange(self, frame: bytes) -> dict[str, Any]:
        answers, commands = self._answers, self._commands
        if answers is None or commands is None:
            raise ProcessorError("the child process is not there")
        try:
            commands.write(LENGTH.pack(len(frame)))
            commands.write(frame)
            await commands.drain()
            (length,) = LENGTH.unpack(await answers.readexactly(LENGTH.size))
            if length > _MAX_ANSWER_BYTES:
                raise ProcessorError("the child process broke its protocol")
            answer = json.loads(await answers.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ProcessorError(f"the child process died ({await self._exit()})") from error
        if not isinstance(answer, dict):
            raise ProcessorError("the child process broke its protocol")
        return answer

    async def kill(self) -> None:
        process = self._process
        if process is None:
            return
        _kill_group(process)
        if self._commands is not None:
            self._commands.close()
        await self._exit()

    async def _exit(self) -> str:
        process = self._process
        if process is None:
            return "never started"
        try:
            async with asyncio.timeout(_REAP_SECONDS):
                # Nobody is told of the death of a process that the loop did not start; this one's is near.
                while (code := process.poll()) is None:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            return "it did not end"
        return f"signal {-code}" if code < 0 else f"exit status {code}"


async def _spawned(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """A child with ``theirs``, which is closed here, for its input and output. One nobody waits for any more when it
    has started is killed.
    """
    starting = asyncio.get_running_loop().run_in_executor(None, _spawn, theirs)
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_discard)
        raise


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    # Popen uses vfork, unless it is asked for more than this: nothing is copied, and no Python runs before the program.
    with theirs:
        end = theirs.fileno()
        return subprocess.Popen(
            [sys.executable, "-m", "mailmill.processing.child"], stdin=end, stdout=end, start_new_session=True
        )


def _discard(starting: asyncio.Future[subprocess.Popen[bytes]]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        process = starting.result()
        _kill_group(process)
        threading.Thread(target=process.wait, daemon=True).start()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The group: what the job started goes too. It outlives its leader, so this is tried also after its end.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
