"""Child processes for CPU-heavy processors: spawned, never forked, one job at a time each.

Laws: a child is free, at work, or killed; one whose exchange was cut (timeout, cancellation, broken frame, an answer to
another job) is killed, never reused, and so is one whose job left processes; another is started for the next job.
Killing it takes along what it started (`programs`). That none can be started is the machine's trouble, no run's.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from mailmill import programs
from mailmill.errors import NotStartedError, ProcessorError
from mailmill.processing.child import HEAD
from mailmill.processing.failures import too_slow
from mailmill.processing.threads import in_default_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailmill.processing.registry import Context
    from mailmill.programs import Program

START_SECONDS: Final = 30.0
_REAP_SECONDS: Final = 2.0
_MAX_ANSWER_BYTES: Final = 16 << 20
_PICKLE_IN_THREAD_BYTES: Final = 256 << 10
_BROKEN: Final = "the child process broke its protocol"


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
        than it may, for a child that died. NotStartedError: there is no child for it, and it did not run.
        """
        job = (pickle.dumps(function), message, context, memory_bytes)
        if size_bytes > _PICKLE_IN_THREAD_BYTES:
            frame = await in_default_thread(pickle.dumps, job, pickle.HIGHEST_PROTOCOL)
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
            if self._closed or answer.get("spent"):
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
        self._process: Program | None = None
        self._answers: asyncio.StreamReader | None = None
        self._commands: asyncio.StreamWriter | None = None
        self._number = 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Raises NotStartedError, whatever it was that kept it from being ready."""
        try:
            async with asyncio.timeout(START_SECONDS):
                ours, theirs = socket.socketpair()
                try:
                    with theirs:
                        # -P: what lies in the working directory is none of our modules.
                        child = [sys.executable, "-P", "-m", "mailmill.processing.child"]
                        self._process = await programs.start(
                            child, stdin=programs.PIPE, stdout=theirs.fileno(), stderr=None
                        )
                    self._answers, self._commands = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
                except BaseException:
                    ours.close()
                    raise
                await self.exchange(pickle.dumps(list(sys.path)))
        except TimeoutError as error:
            raise NotStartedError(f"no child process was ready within {START_SECONDS:.0f} s") from error
        except (OSError, RuntimeError, MemoryError, ProcessorError) as error:
            # RuntimeError: there is no thread to start it from.
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise NotStartedError(f"no child process could be started: {reason or type(error).__name__}") from error

    async def exchange(self, frame: bytes) -> dict[str, Any]:
        """Its answer to ``frame``. Raises ProcessorError where it died or what it says is no answer to that."""
        answers, commands = self._answers, self._commands
        if answers is None or commands is None:
            raise ProcessorError("the child process is not there")
        self._number += 1
        try:
            commands.write(HEAD.pack(len(frame), self._number))
            commands.write(frame)
            await commands.drain()
            length, number = HEAD.unpack(await answers.readexactly(HEAD.size))
            if number != self._number or length > _MAX_ANSWER_BYTES:
                raise ProcessorError(_BROKEN)
            answer = json.loads(await answers.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ProcessorError(f"the child process died ({await self._exit()})") from error
        except (ValueError, RecursionError) as error:
            raise ProcessorError(_BROKEN) from error
        if not isinstance(answer, dict):
            raise ProcessorError(_BROKEN)
        return answer

    async def kill(self) -> None:
        process = self._process
        if process is None:
            return
        process.kill()
        if self._commands is not None:
            self._commands.close()
        await self._exit()

    async def _exit(self) -> str:
        process = self._process
        if process is None:
            return "never started"
        try:
            async with asyncio.timeout(_REAP_SECONDS):
                code = await process.wait()
        except TimeoutError:
            return "it did not end"
        return f"signal {-code}" if code < 0 else f"exit status {code}"
