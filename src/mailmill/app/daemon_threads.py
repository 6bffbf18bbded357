"""The loop's default executor (`asyncio.to_thread`, name lookups) with threads that nobody waits for at the end.

The standard library's executor is joined twice without a limit, when the loop is closed and when the interpreter ends:
one thread stuck in a name lookup or on a dead network disk would keep the service from stopping.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Job = tuple[Future[Any], Callable[[], Any]]

THREADS = 32


class DaemonThreads(ThreadPoolExecutor):
    """Up to ``threads`` daemon threads, started when needed. For ``loop.set_default_executor``, which takes only
    subclasses of the standard library's. What is still running when the process ends is cut.
    """

    def __init__(self, threads: int = THREADS) -> None:
        super().__init__(threads)
        self._size = threads
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._guard = threading.Lock()
        self._started = 0
        self._closed = False

    def submit(
        self, fn: Callable[_Parameters, _Result], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> Future[_Result]:
        future: Future[_Result] = Future()
        with self._guard:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if not self._idle.acquire(blocking=False) and self._started < self._size:
                name = f"mailmill-thread-{self._started + 1}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
                self._started += 1  # not one that could not be started
            self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs and let the threads end after those they have; never waits, whatever ``wait`` says."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, run = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(run())
                except BaseException as error:  # noqa: BLE001 - it is the job's outcome, not the thread's
                    future.set_exception(error)
            del job, future, run
            self._idle.release()
