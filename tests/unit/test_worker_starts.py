"""A machine that gives no process or thread to run in: no message fails for it, nothing spins, and all is told."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import runner_jobs
from structlog.testing import capture_logs
from working import PATIENCE_SECONDS, Store, a_processor, open_store, settled, working

from mailmill import programs
from mailmill.processing import loader
from mailmill.processing.worker import WorkerSettings

pytestmark = pytest.mark.both_databases


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[Store]:
    async with open_store(data_dir) as made:
        yield made


def attempt_of(message: Any, context: Any) -> int:
    return int(context.attempt)


class Machine:
    """Gives no child and no thread for processors while ``refuses`` says so, which is told the number of the try."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuses: Callable[[int], bool] = lambda _: True
        self.tries = 0
        self.refused = asyncio.Event()
        start_program, start_thread = programs.start, threading.Thread.start

        async def program(*given: Any, **how: Any) -> Any:
            if self._refuses():
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return await start_program(*given, **how)

        def thread(started: threading.Thread) -> None:
            if started.name.startswith("mailmill-processor") and self._refuses():
                raise RuntimeError("can't start new thread")
            start_thread(started)

        monkeypatch.setattr(programs, "start", program)
        monkeypatch.setattr(threading.Thread, "start", thread)

    def _refuses(self) -> bool:
        self.tries += 1
        if self.refuses(self.tries):
            self.refused.set()
            return True
        return False


@pytest.mark.parametrize("kind", ["process", "thread"])
async def test_what_could_not_be_started_is_run_later_and_counts_for_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    machine = Machine(monkeypatch)
    machine.refuses = lambda number: number <= 3
    ids = await store.add(["one", "two", "three"], "a")
    settings = WorkerSettings(threads=1, children=1, poll_seconds=3600.0, heartbeat_seconds=0.01)
    function = runner_jobs.where_it_ran if kind == "process" else attempt_of
    # One attempt: whatever is counted as one fails its row for good.
    processor = a_processor("a", function, kind, concurrency=1, max_attempts=1)
    with capture_logs() as logs:
        async with working(store, processor, settings=settings) as made:
            await settled(made)
    assert machine.tries == 4
    assert sorted(number for number, _ in await store.results()) == ids
    assert await store.rows() == []
    told = [entry for entry in logs if entry["event"] == "runs cannot be started"]
    assert len(told) == 3
    assert told[0]["log_level"] == "warning"
    assert "LimitNOFILE" in told[0]["hint"] and "TasksMax" in told[0]["hint"]
    assert ("Too many open files" if kind == "process" else "can't start new thread") in told[0]["error"]


@pytest.mark.parametrize("kind", ["process", "thread"])
async def test_nothing_is_tried_again_before_the_upkeep_comes(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    machine = Machine(monkeypatch)
    processor = a_processor("a", attempt_of, kind, concurrency=1)
    await store.add([f"{n}" for n in range(5)], "a")
    settings = WorkerSettings(threads=1, children=1, poll_seconds=3600.0, heartbeat_seconds=3600.0)
    async with working(store, processor, settings=settings) as made:
        made._pumps[0]._seconds_each = 0.001  # so that it takes them all in hand
        async with asyncio.timeout(PATIENCE_SECONDS):
            await machine.refused.wait()
    assert machine.tries == 1
    assert [(row.state, row.attempt) for row in await store.rows()] == [("pending", 0)] * 5


async def test_a_message_that_no_thread_could_parse_is_parsed_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Executor(ThreadPoolExecutor):
        refusals = 2

        def submit(self, function: Any, *arguments: Any, **more: Any) -> Future[Any]:
            if getattr(function, "__name__", "") == "parse_message" and self.refusals:
                self.refusals -= 1
                raise RuntimeError("can't start new thread")
            return super().submit(function, *arguments, **more)

    monkeypatch.setattr(loader, "PARSE_INLINE_BYTES", 0)
    executor = Executor()
    asyncio.get_running_loop().set_default_executor(executor)
    ids = await store.add(["one", "two"], "a")
    settings = WorkerSettings(threads=1, poll_seconds=3600.0, heartbeat_seconds=0.01)
    async with working(store, a_processor("a", max_attempts=1), settings=settings) as made:
        await settled(made)
    assert executor.refusals == 0
    assert sorted(number for number, _ in await store.results()) == ids
