"""Threads for ``def`` processors: a stated number at work, and a bound on those that never come back.

A thread cannot be killed. One whose job outlives its timeout is *stuck*: it is counted, and another takes its place, up
to a cap; beyond it jobs wait until a stuck one returns. The standard library's executor is not used because the
interpreter joins its threads when it ends: one stuck job would keep the service from stopping. These are daemons.

Law: jobs at work and free places are together ``size - max(0, stuck - max_stuck)``, whichever of the stuck come back.
A thread is started where those that are there all have a job; one that cannot be started costs no place.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mailmill.errors import NotStartedError
from mailmill.processing.failures import too_slow

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_SIZE: Final = min(32, (os.cpu_count() or 1) + 4)

T = TypeVar("T")


class _Job:
    __slots__ = ("arguments", "context", "error", "function", "future", "loop", "value")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.context = contextvars.copy_context()
        self.value: Any = None
        self.error: BaseException | None = None


class Threads:
    """Up to ``size`` threads at work, and up to ``max_stuck`` stuck ones beside them. Belongs to one event loop."""

    def __init__(self, size: int = DEFAULT_SIZE, *, max_stuck: int | None = None) -> None:
        self.size = size
        self.max_stuck = 4 * size if max_stuck is None else max_stuck
        self.stuck = 0
        self._started = 0
        self._free = size
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()

    async def run(self, function: Callable[..., Any], *arguments: Any, timeout_seconds: float) -> Any:
        """``function(*arguments)`` in a thread, timed from when a thread is free; raises what it raised.

        ProcessorError where it took longer than ``timeout_seconds``. After that or a cancellation the thread
        goes on, and its outcome is dropped. NotStartedError where there is no thread for it; it did not run.
        """
        await self._acquire()
        job = _Job(function, arguments, asyncio.get_running_loop())
        if self._started < self.size + min(self.stuck, self.max_stuck) - self._free:
            self._start_thread()
        self._jobs.put(job)
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.shield(job.future)
        except TimeoutError as error:
            self._abandon(job)
            raise too_slow(timeout_seconds) from error
        except asyncio.CancelledError:
            self._abandon(job)
            raise
        self._release()
        if job.error is not None:
            raise job.error
        return job.value

    def close(self) -> None:
        """Let the free threads end. Stuck ones end with their job, or with the process."""
        for _ in range(self._started):
            self._jobs.put(None)

    async def _acquire(self) -> None:
        while self._free < 1:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                raise
            finally:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
        self._free -= 1

    def _release(self) -> None:
        self._free += 1
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiting and self._free > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _abandon(self, job: _Job) -> None:
        """Count the job's thread stuck until it comes back; while the cap allows, another may work in its place."""
        if job.future.done():
            self._release()
            return
        self.stuck += 1
        if self.stuck <= self.max_stuck:
            self._release()
        job.future.add_done_callback(self._take_back)

    def _take_back(self, _: object) -> None:
        # By how many are stuck now, not by whether this one was replaced: any other may have come back before it.
        if self.stuck > self.max_stuck:
            self._release()
        self.stuck -= 1

    def _start_thread(self) -> None:
        name = f"mailmill-processor-{self._started + 1}"
        try:
            threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            self._release()
            raise NotStartedError(f"no thread could be started: {error}") from error
        self._started += 1


def in_default_thread(function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
    """``function(*arguments)`` in a thread of the loop's own executor. Raises NotStartedError at once where there is
    none for it: told apart from what the function raises, which the future has.
    """
    try:
        return asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    except RuntimeError as error:
        raise NotStartedError(f"no thread could be started: {error}") from error


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job.value = job.context.run(job.function, *job.arguments)
        except BaseException as error:  # noqa: BLE001 - SystemExit too: it is the job's outcome, not the thread's
            job.error = error
        try:
            job.loop.call_soon_threadsafe(_settle, job.future)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more
        del job


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
